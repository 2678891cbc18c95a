package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;

class VerifyCommandTest {
    @TempDir
    Path dir;

    private Path run;
    private String chain;

    @BeforeEach
    void train() throws IOException {
        run = dir.resolve("out");
        chain = Cli.run(Cli.train(Cli.data(dir), run, "--max_steps", 4, "--save_steps", 2, "--json"))
                .json()
                .get("chain")
                .stringValue();
    }

    @Test
    void saysThatEverythingIsAsItWas() {
        Cli.Result result = Cli.run("verify", run);
        assertThat(result.status()).as(result.err()).isZero();
        assertThat(result.out())
                .contains("chain     " + chain + ", 4 links to the adapter of step 4")
                .contains("whole     checkpoint-2, checkpoint-4", "files     as they were")
                .contains("replay    steps 3 to 4", "adapter and optimizer have the same bits");
        assertThat(result.err()).contains("step 4/4");
    }

    @Test
    void jsonIsOneDocument() {
        JsonNode json = Cli.run("verify", run, "--steps", "0..4", "--json").json();
        assertThat(json.get("verified").booleanValue()).isTrue();
        assertThat(json.get("chain").stringValue()).isEqualTo(chain);
        assertThat(json.get("checkpoints").toString()).isEqualTo("[2,4]");
        assertThat(json.get("replayed").get("from").intValue()).isZero();
        assertThat(json.get("replayed").get("differences").isEmpty()).isTrue();
        JsonNode chainOnly = Cli.run("verify", run, "--steps", "none", "--json").json();
        assertThat(chainOnly.get("verified").booleanValue()).isTrue();
        assertThat(chainOnly.has("replayed")).isFalse();
    }

    @Test
    void namesWhatHasChanged() throws IOException {
        Path file = run.resolve("checkpoint-4/optimizer.safetensors");
        byte[] bytes = Files.readAllBytes(file);
        bytes[bytes.length - 1] ^= 1;
        Files.write(file, bytes);
        Cli.Result result = Cli.run("verify", run);
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err())
                .contains("lora4j: " + file + " has changed in tensor ")
                .contains("no step was done again");
        assertThat(result.out()).doesNotContain("as they were", "same bits");
        assertThat(Cli.run("verify", run, "--json").status()).isEqualTo(1);
    }

    @Test
    void wrongUse() {
        assertThat(Cli.run("verify", dir).err()).contains("has no checkpoint; expected the output_dir of lora4j train");
        assertThat(Cli.run("verify").err()).contains("option run is missing");
        assertThat(Cli.run("verify", run, "--steps", "1..4").err())
                .contains("option steps: found 1..4, expected 0 or the step of a checkpoint", "there are [2, 4]");
        Cli.Result words = Cli.run("verify", run, "--steps", "all");
        assertThat(words.status()).isEqualTo(2);
        assertThat(words.err()).contains("option steps: found \"all\", expected a..b such as 2..4, or none");
    }

    @Test
    void theModelMayHaveMoved() throws IOException {
        Path model = Cli.model(dir.resolve("copy"));
        Cli.Result result = Cli.run("verify", run, "--model", model, "--threads", 1);
        assertThat(result.status()).as(result.err()).isZero();
        Files.writeString(model.resolve("config.json"), Files.readString(model.resolve("config.json")) + "\n");
        assertThat(Cli.run("verify", run, "--model", model).err())
                .contains("lora4j: base: " + model.resolve("config.json") + " has changed");
    }
}
