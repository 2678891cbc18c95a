package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class TrainCommandTest {
    @TempDir
    Path dir;

    @Test
    void writesAdapterCheckpointMetricsAndChart() throws IOException {
        Path output = dir.resolve("a folder");
        Path data = Cli.data(dir);
        Cli.Result result = Cli.run(
                Cli.train(data, output, "--max_steps", 5, "--eval_file", data, "--lr_scheduler_type", "cosine"));
        assertThat(result.status()).as(result.err()).isZero();
        assertThat(result.err()).containsPattern("peak memory \\S+ [MG]iB, planned \\S+ [MG]iB");
        assertThat(result.out()).contains("adapter  " + output, "curve    " + output.resolve("loss.png"));
        assertThat(result.err())
                .contains(
                        "7 rows (prompt and completion)", "adapter   r 4, alpha 32.0, on 56 modules", "cosine schedule")
                .contains("  peak ", "  available (", "first row, «learned»:", "« ran home and slept.")
                .containsPattern("step 5/5  loss \\d.*  lr 1\\.910e-04  [\\d,]+ tokens/s  ETA 0:00")
                .contains("eval loss", "step 5  saved " + output.resolve("checkpoint-5"));
        assertThat(names(output))
                .containsExactly(
                        "adapter_config.json",
                        "adapter_model.safetensors",
                        "chain.json",
                        "chat_template.jinja",
                        "checkpoint-5",
                        "loss.png",
                        "metrics.jsonl",
                        "tokenizer.json",
                        "tokenizer_config.json");
        BufferedImage chart = ImageIO.read(output.resolve("loss.png").toFile());
        assertThat(chart.getWidth()).isEqualTo(900);

        List<JsonNode> lines = metrics(output);
        assertThat(lines).hasSize(7);
        JsonNode eval = lines.getLast();
        lines = lines.stream().filter(line -> line.has("loss")).toList();
        double first = lines.getFirst().get("loss").doubleValue();
        for (int i = 0; i < 5; i++) {
            JsonNode line = lines.get(i);
            assertThat(line.get("step").intValue()).isEqualTo(i + 1);
            assertThat(line.get("epoch").doubleValue()).isEqualTo((i + 1) / 4.0);
            assertThat(line.get("loss").doubleValue()).isBetween(0.1, first + 0.5);
            assertThat(line.get("grad_norm").doubleValue()).isPositive();
            assertThat(line.get("learning_rate").doubleValue())
                    .isCloseTo(1e-3 * (1 + Math.cos(Math.PI * i / 5)), within(1e-9));
            assertThat(line.get("num_tokens").longValue()).isPositive();
            assertThat(line.get("tokens_per_second").doubleValue()).isPositive();
            assertThat(line.get("mean_token_accuracy").doubleValue()).isBetween(0.0, 1.0);
        }
        assertThat(eval.get("eval_perplexity").doubleValue())
                .isCloseTo(Math.exp(eval.get("eval_loss").doubleValue()), within(1e-6));
        assertThat(eval.get("eval_loss").doubleValue()).isLessThan(first);
    }

    /** As huggingface_hub lays its cache out, and in a process of its own, whose environment can be set. */
    @Test
    void aModelOfTheHuggingFaceCacheIsNamedByItsId() throws Exception {
        Path repository = dir.resolve("hub/models--org--tiny");
        Cli.model(repository.resolve("snapshots/0123456789abcdef"));
        Files.createDirectories(repository.resolve("refs"));
        Files.writeString(repository.resolve("refs/v1"), "0123456789abcdef");
        Path log = dir.resolve("log");
        Path output = dir.resolve("out");
        ProcessBuilder train = new ProcessBuilder(Cli.command(
                List.of(),
                "train",
                "--model",
                "org/tiny@v1",
                "--data",
                Cli.data(dir),
                "--output_dir",
                output,
                "--max_steps",
                1));
        train.environment().put("HF_HUB_CACHE", dir.resolve("hub").toString());
        int status = Cli.waitFor(
                train.redirectErrorStream(true).redirectOutput(log.toFile()).start());
        assertThat(status).as(Files.readString(log)).isZero();
        String config = Files.readString(output.resolve("adapter_config.json"));
        assertThat(config)
                .contains("\"base_model_name_or_path\": \"org/tiny\"", "\"revision\": \"v1\"")
                .doesNotContain(dir.toString());
        assertThat(names(output)).contains("tokenizer.json", "chat_template.jinja");
    }

    @Test
    void jsonIsOneDocument() throws IOException {
        Path output = dir.resolve("out");
        JsonNode json = Cli.run(Cli.train(Cli.data(dir), output, "--max_steps", 2, "--json"))
                .json();
        assertThat(json.get("completed").booleanValue()).isTrue();
        assertThat(json.get("step").intValue()).isEqualTo(2);
        assertThat(json.get("checkpoint").stringValue())
                .isEqualTo(output.resolve("checkpoint-2").toString());
        assertThat(json.get("metrics").size()).isEqualTo(2);
        assertThat(json.get("chain").stringValue()).hasSize(64);
        assertThat(json.get("memory_bytes").get("planned").longValue()).isPositive();
        List<String> files = new ArrayList<>();
        json.get("files").forEach(file -> files.add(file.stringValue()));
        try (Stream<Path> written = Files.list(output)) {
            assertThat(files)
                    .containsExactlyElementsOf(
                            written.sorted().map(Path::toString).toList());
        }
    }

    @Test
    void aDryRunShowsEverythingAndWritesNothing() throws IOException {
        Path output = dir.resolve("out");
        Object[] args = Cli.train(
                Cli.data(dir),
                output,
                "--max_steps",
                20,
                "--warmup_steps",
                2,
                "--rank_pattern",
                "{\"q_proj\": 2}",
                "--max_length",
                11,
                "--dry_run");
        Cli.Result shown = Cli.run(args);
        assertThat(shown.status()).as(shown.err()).isZero();
        assertThat(shown.out())
                .contains(
                        "7 rows read (prompt and completion), 4 rows cut to max_length, 0 dropped without targets",
                        "; 7 used: ")
                .contains(
                        "   8 x q_proj     [192, 192]  r 2, alpha 32.0",
                        "   8 x down_proj  [192, 512]  r 4, alpha 32.0")
                .contains("steps     20, 4 in an epoch; linear schedule, 2 of warm-up")
                .contains("step 1: learning rate 0.0000", "step 3: learning rate 0.0020")
                .contains("  peak ", "  available (", "first rows, «learned»:", "The owl« ran home")
                .contains("nothing was trained or written");

        Cli.Result result =
                Cli.run(Stream.concat(Stream.of(args), Stream.of("--json")).toArray());
        JsonNode json = result.json();
        JsonNode data = json.get("data");
        assertThat(data.get("rows_read").intValue()).isEqualTo(7);
        int counted = 0;
        for (JsonNode range : data.get("lengths")) {
            counted += range.get("rows").intValue();
        }
        assertThat(counted).isEqualTo(7);
        assertThat(data.get("longest").intValue()).isEqualTo(11);
        assertThat(json.get("first_rows").size()).isEqualTo(3);
        assertThat(json.get("first_rows").get(1).get(1).get("learned").booleanValue())
                .isTrue();
        assertThat(json.get("adapter").get("modules").size()).isEqualTo(56);
        JsonNode module = json.get("adapter").get("modules").get(0);
        assertThat(module.get("name").stringValue()).isEqualTo("model.layers.0.self_attn.q_proj");
        assertThat(module.get("r").intValue()).isEqualTo(2);
        assertThat(module.get("scaling").doubleValue()).isEqualTo(16);
        assertThat(json.get("adapter").get("trainable_share").doubleValue()).isBetween(0.0, 0.2);
        assertThat(json.get("schedule").get("steps_per_epoch").intValue()).isEqualTo(4);
        assertThat(json.get("schedule").get("learning_rate_at").get("3").doubleValue())
                .isEqualTo(2e-3);
        long sum = 0;
        for (JsonNode part : json.get("memory_bytes").get("parts")) {
            sum += part.longValue();
        }
        assertThat(json.get("memory_bytes").get("peak").longValue()).isEqualTo(sum);
        assertThat(output).doesNotExist();
    }

    /** The shapes of the weights are looked at before the first step of a real run; so they are in a dry one. */
    @Test
    void aDryRunFindsWeightsOfAnotherModel() throws IOException {
        Path model = Cli.model(dir.resolve("model"));
        Path config = model.resolve("config.json");
        Files.writeString(
                config,
                Files.readString(config).replaceFirst("\"intermediate_size\": \\d+", "\"intermediate_size\": 256"));
        Object[] args = Cli.train(Cli.data(dir), dir.resolve("out"), "--dry_run");
        args[2] = model;
        Cli.Result result = Cli.run(args);
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err()).contains("gate_proj.weight has shape [512, 192]; config.json implies [256, 192]");
    }

    /** What is learned: the content, the end of the turn and what the template prints after it; EOS once. */
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "text                  | {'text': 'One day.'}                      | One day.<|end_of_text|>»",
                "prompt and completion | {'prompt': 'One', 'completion': ' day.'}  | One« day.<|end_of_text|>»",
                "messages | {'messages': [{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': 'Me.'}]}"
                        + " | «Me.<|im_end|>",
            })
    void everyKindOfRows(String kind, String row, String learned) throws IOException {
        Path data = Files.writeString(dir.resolve("rows.jsonl"), row.replace('\'', '"') + "\n");
        Cli.Result result = Cli.run(Cli.train(data, dir.resolve("out"), "--max_steps", 1));
        assertThat(result.status()).as(result.err()).isZero();
        assertThat(result.err())
                .contains("1 rows (" + kind + ")")
                .contains(learned)
                .doesNotContain("<|end_of_text|><|end_of_text|>");
    }

    @Test
    void rowsThatAreCutOrDroppedAreCounted() throws IOException {
        Path data = Files.writeString(dir.resolve("rows.jsonl"), """
                {"prompt": "One", "completion": " day a cat sat on a mat and slept all night."}
                {"prompt": "One day a very little cat sat on a", "completion": " mat."}
                {"prompt": "A", "completion": " cat."}
                """);
        Cli.Result result = Cli.run(Cli.train(data, dir.resolve("out"), "--max_steps", 1, "--max_length", 8));
        assertThat(result.err()).contains("2 rows (prompt and completion)", "2 rows cut to max_length, 1 dropped");
    }

    @Test
    void goesOnTrainingAnAdapter() throws IOException {
        Path data = Files.copy(Cli.GOLDEN.resolve("../../tiny-llama/instruct/valid.jsonl"), dir.resolve("chat.jsonl"));
        Object[] args = {
            "train",
            "--model",
            Cli.TINY,
            "--adapter",
            Cli.ADAPTER,
            "--data",
            data,
            "--output_dir",
            dir.resolve("out"),
            "--max_steps",
            3,
            "--per_device_train_batch_size",
            4,
            "--logging_steps",
            1
        };
        Cli.Result result = Cli.run(args);
        assertThat(result.status()).as(result.err()).isZero();
        assertThat(result.err()).contains("adapter   r 8, alpha 16.0, on 56 modules");
        JsonNode before = eval(data, Cli.ADAPTER);
        JsonNode after = eval(data, dir.resolve("out"));
        assertThat(after.get("loss").doubleValue())
                .isLessThan(before.get("loss").doubleValue());
        // The first step's loss is the old adapter's on those rows, not the base model's.
        assertThat(metrics(dir.resolve("out")).getFirst().get("loss").doubleValue())
                .isCloseTo(before.get("loss").doubleValue(), within(1.0));

        Object[] other =
                Stream.concat(Stream.of(args), Stream.of("--lora_r", 4)).toArray();
        assertThat(Cli.run(other).err()).contains("option lora_r: an adapter that is trained further keeps its own");
    }

    @Test
    void anOutputFolderInUseIsKept() throws IOException {
        Path data = Cli.data(dir);
        Path output = dir.resolve("out");
        assertThat(Cli.run(Cli.train(data, output, "--max_steps", 2)).status()).isZero();
        byte[] adapter = Files.readAllBytes(output.resolve("adapter_model.safetensors"));

        Cli.Result refused = Cli.run(Cli.train(data, output, "--max_steps", 1));
        assertThat(refused.status()).isEqualTo(1);
        assertThat(refused.err())
                .contains("out is not empty", "--resume_from_checkpoint true", "--overwrite_output_dir");
        assertThat(output.resolve("adapter_model.safetensors")).hasBinaryContent(adapter);

        Cli.Result again = Cli.run(Cli.train(data, output, "--max_steps", 2, "--overwrite_output_dir"));
        assertThat(again.status()).as(again.err()).isZero();
        assertThat(output.resolve("adapter_model.safetensors")).hasBinaryContent(adapter);
        assertThat(metrics(output)).hasSize(2);
    }

    @Test
    void anInputFolderIsNoOutputFolder() throws IOException {
        Path data = Cli.data(dir);
        Path model = Cli.model(dir.resolve("model"));
        for (String more : List.of("--overwrite_output_dir", "--resume_from_checkpoint=true")) {
            Cli.Result refused = Cli.run("train", "--model", model, "--data", data, "--output_dir", model, more);
            assertThat(refused.status()).isEqualTo(1);
            assertThat(refused.err()).contains("model is the folder of the base model or adapter, which are only read");
        }
        assertThat(names(model)).isEqualTo(names(Cli.model(dir.resolve("copy"))));

        Path adapter = dir.resolve("adapter");
        assertThat(Cli.run(Cli.train(data, adapter, "--max_steps", 1)).status()).isZero();
        Cli.Result refused = Cli.run(
                "train",
                "--model",
                model,
                "--adapter",
                adapter,
                "--data",
                data,
                "--output_dir",
                adapter,
                "--overwrite_output_dir");
        assertThat(refused.status()).isEqualTo(1);
        assertThat(refused.err())
                .contains("adapter is the folder of the base model or adapter", "choose another folder");
    }

    @Test
    void threadsDoNotChangeTheAdapter() throws IOException {
        Path data = Cli.data(dir);
        for (int threads : new int[] {1, 3, 64}) {
            assertThat(Cli.run(Cli.train(data, dir.resolve("t" + threads), "--max_steps", 2, "--threads", threads))
                            .status())
                    .isZero();
        }
        for (int threads : new int[] {3, 64}) {
            assertThat(dir.resolve("t" + threads + "/adapter_model.safetensors"))
                    .hasSameBinaryContentAs(dir.resolve("t1/adapter_model.safetensors"));
        }
        Cli.Result tooMany = Cli.run(Cli.train(data, dir.resolve("x"), "--max_steps", 1, "--threads", 1_000_000));
        assertThat(tooMany.status()).isNotZero();
        assertThat(tooMany.err()).contains("threads");
    }

    /** What a terminal shows in the end: every line that was printed, and the bar, which redraws itself below them. */
    @Test
    void theBarOfATerminalCoversNoLine() throws Exception {
        assumeTrue(Files.isExecutable(Path.of("/usr/bin/script")), "no script(1), which makes a terminal");
        Path screen = dir.resolve("screen");
        Object[] train =
                Cli.train(Cli.data(dir), dir.resolve("out"), "--max_steps", 3, "--save_steps", 1, "--threads", 1);
        String command = String.join(" ", Cli.command(List.of(), train));
        Process process = new ProcessBuilder("script", "-qec", command, screen.toString())
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .start();
        assertThat(Cli.waitFor(process)).isZero();
        String typed = Files.readString(screen);
        assertThat(typed).contains("train ", " 3/3 ", "tokens/s").doesNotContain("\033[1A");
        for (int step = 1; step <= 3; step++) {
            assertThat(typed).containsPattern("\r\033\\[Kstep " + step + "  saved [^\r\n]*\r*\n");
        }
    }

    private static JsonNode eval(Path data, Path adapter) {
        return Cli.run("eval", "--model", Cli.TINY, "--data", data, "--adapter", adapter, "--json")
                .json();
    }

    private static List<JsonNode> metrics(Path output) throws IOException {
        return Files.readAllLines(output.resolve("metrics.jsonl")).stream()
                .map(new JsonMapper()::readTree)
                .toList();
    }

    private static List<String> names(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(f -> f.getFileName().toString()).sorted().toList();
        }
    }
}
