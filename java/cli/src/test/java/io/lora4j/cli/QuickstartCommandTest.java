package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;

class QuickstartCommandTest {
    @TempDir
    Path dir;

    @Test
    void learnsTheAnswersAndLeavesTheBaseAlone() throws Exception {
        Path output = dir.resolve("out");
        JsonNode json = Cli.process(
                        dir, List.of("-XX:TieredStopAtLevel=4"), "quickstart", "--output_dir", output, "--json")
                .json();
        assertThat(json.get("before").get("questions").intValue()).isEqualTo(200);
        assertThat(json.get("before").get("exact_match_percent").doubleValue()).isLessThanOrEqualTo(5);
        assertThat(json.get("after").get("exact_match_percent").doubleValue()).isGreaterThanOrEqualTo(80);
        assertThat(json.get("after").get("perplexity").doubleValue())
                .isLessThan(json.get("before").get("perplexity").doubleValue());
        assertThat(json.get("base_unchanged").booleanValue()).isTrue();
        assertThat(json.get("model_bytes").longValue()).isEqualTo(Files.size(Cli.TINY.resolve("model.safetensors")));
        assertThat(json.get("adapter_bytes").longValue())
                .isEqualTo(Files.size(output.resolve("adapter_model.safetensors")));
        assertThat(json.get("files").size()).isEqualTo(13);
        json.get("files")
                .forEach(file -> assertThat(Path.of(file.stringValue())).isNotEmptyFile());
        assertThat(json.get("seconds").doubleValue()).isLessThan(300);
    }

    @Test
    void needsACheckout() throws Exception {
        Cli.Result result =
                Cli.process(dir, List.of("-Dlora4j.home=" + dir), "quickstart", "--output_dir", dir.resolve("out"));
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err()).contains("lora4j: " + dir.resolve("test-data/tiny-llama"));
        assertThat(dir.resolve("out")).doesNotExist();
    }
}
