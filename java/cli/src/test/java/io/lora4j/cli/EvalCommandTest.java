package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class EvalCommandTest {
    @TempDir
    Path dir;

    /** The first step's loss of the golden run: rows 0 to 3, split by kind, together as PEFT has it. */
    @Test
    void lossIsThatOfPeft() throws IOException {
        JsonNode reference = new JsonMapper().readTree(Files.readString(Cli.GOLDEN.resolve("reference.json")));
        List<String> rows = Files.readAllLines(Cli.GOLDEN.resolve("rows.jsonl"));
        double loss = 0;
        long targets = 0;
        for (List<Integer> kind : List.of(List.of(0, 2), List.of(1, 3))) {
            Path file = Files.write(
                    dir.resolve("rows.jsonl"), kind.stream().map(rows::get).toList());
            JsonNode json = eval(file, "--adapter", Cli.ADAPTER);
            long tokens = json.get("target_tokens").longValue();
            loss += json.get("loss").doubleValue() * tokens;
            targets += tokens;
        }
        assertThat(targets)
                .isEqualTo(reference.get("target_tokens_per_step").get(0).longValue());
        double expected = reference.get("loss").get(0).doubleValue();
        assertThat(loss / targets).isCloseTo(expected, within(1e-4 * expected));
    }

    @Test
    void withAndWithoutAdapter() throws IOException {
        Path data = Cli.data(dir);
        JsonNode base = eval(data);
        assertThat(base.has("base")).isFalse();
        assertThat(base.get("perplexity").doubleValue())
                .isCloseTo(Math.exp(base.get("loss").doubleValue()), within(1e-6));
        assertThat(base.get("target_tokens").longValue()).isEqualTo(61);
        assertThat(base.get("rows").intValue()).isEqualTo(7);
        JsonNode both = eval(data, "--adapter", Cli.ADAPTER);
        assertThat(both.get("base").get("loss")).isEqualTo(base.get("loss"));
        assertThat(both.get("loss")).isNotEqualTo(base.get("loss"));
        for (Object[] how : new Object[][] {{"--per_device_eval_batch_size", 1}, {"--threads", 1}, {"--threads", 5}}) {
            assertThat(eval(data, how).get("loss")).isEqualTo(base.get("loss"));
        }

        Cli.Result text = Cli.run("eval", "--model", Cli.TINY, "--data", data, "--adapter", Cli.ADAPTER);
        assertThat(text.out()).contains("base model ", "with adapter ", "perplexity", "(61 target tokens)");
    }

    @Test
    void cutRowsAreSaid() throws IOException {
        Cli.Result result = Cli.run("eval", "--model", Cli.TINY, "--data", Cli.data(dir), "--max_length", 6);
        assertThat(result.status()).isZero();
        assertThat(result.err()).contains("of 7 rows: 7 rows cut to max_length, 0 dropped");
    }

    @Test
    void aFolderStandsForItsTestFile() throws IOException {
        Path folder = Files.createDirectory(dir.resolve("data"));
        Files.move(Cli.data(dir), folder.resolve("valid.jsonl"));
        assertThat(eval(folder).get("file").asString()).endsWith("valid.jsonl");
        Files.writeString(folder.resolve("test.jsonl"), "{\"body\": \"one day a cat sat\"}\n");
        JsonNode report = eval(folder, "--dataset_text_field", "body");
        assertThat(report.get("file").asString()).endsWith("test.jsonl");
        assertThat(report.get("rows").intValue()).isOne();
    }

    @Test
    void longRowsAreDroppedOrRefused() throws IOException {
        Path data = Cli.data(dir);
        assertThat(eval(data, "--max_length", 12, "--on_long", "drop")
                        .get("rows_too_long")
                        .intValue())
                .isPositive();
        Cli.Result result =
                Cli.run("eval", "--model", Cli.TINY, "--data", data, "--max_length", 12, "--on_long", "error");
        assertThat(result.status()).isOne();
        assertThat(result.err()).contains("train.jsonl:", "tokens, max_length is 12 and on_long is error");
    }

    private static JsonNode eval(Path data, Object... more) {
        return Cli.run(Stream.concat(Stream.of("eval", "--model", Cli.TINY, "--data", data, "--json"), Stream.of(more))
                        .toArray())
                .json();
    }
}
