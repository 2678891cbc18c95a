package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.train.checkpoint.Chain;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.checkpoint.Sha256;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.model.BatchLoss;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class TrainerTest {
    @TempDir
    Path dir;

    private Path data;

    @BeforeEach
    void writeData() throws IOException {
        data = Runs.data(dir);
    }

    private Settings.Builder small(String output) {
        return Runs.small(data, dir.resolve(output));
    }

    private List<JsonNode> metrics(String output) throws IOException {
        try (Stream<String> lines = Files.lines(dir.resolve(output).resolve("metrics.jsonl"))) {
            JsonMapper mapper = new JsonMapper();
            return lines.map(mapper::readTree).toList();
        }
    }

    private List<String> names(Path folder) throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(e -> e.getFileName().toString()).sorted().toList();
        }
    }

    @Test
    void learnsAndLeavesTheBaseAlone() throws Exception {
        String before = Sha256.of(RunIdentity.baseFiles(Runs.TINY));
        Settings.Builder run = small("out").set(TrainOptions.MAX_STEPS, 20).set(TrainOptions.EVAL_FILE, data);
        List<Integer> steps = new ArrayList<>();
        List<String> events = new ArrayList<>();
        TrainResult result = Trainer.open(run.build()).run(new TrainListener() {
            @Override
            public void onStart(TrainPlan plan, int firstStep) {
                events.add("start " + firstStep + " of " + plan.totalSteps());
            }

            @Override
            public void onStep(Metrics metrics) {
                steps.add(metrics.step());
            }

            @Override
            public void onEval(int step, BatchLoss loss) {
                events.add("eval " + step);
            }

            @Override
            public void onSave(int step, Path checkpoint) {
                events.add("save " + step + " " + checkpoint.getFileName());
            }
        });
        assertThat(result.completed()).isTrue();
        assertThat(result.step()).isEqualTo(20);
        assertThat(steps).hasSize(20).startsWith(1).endsWith(20);
        assertThat(events)
                .containsExactly(
                        "start 1 of 20", "eval 4", "eval 8", "eval 12", "eval 16", "eval 20", "save 20 checkpoint-20");
        List<JsonNode> metrics = new ArrayList<>(metrics("out"));
        assertThat(metrics).hasSize(25);
        assertThat(metrics.removeLast().path("eval_loss").asDouble())
                .isLessThan(0.7 * metrics.get(4).path("eval_loss").asDouble());
        metrics.removeIf(line -> line.has("eval_loss"));
        double first = metrics.get(0).path("loss").asDouble();
        assertThat(metrics.get(19).path("loss").asDouble()).isLessThan(0.7 * first);
        for (String key : List.of(
                "epoch", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens", "tokens_per_second")) {
            assertThat(metrics.get(0).path(key).isNumber()).as(key).isTrue();
        }
        assertThat(metrics.get(3).path("epoch").asDouble()).isEqualTo(1.0);
        assertThat(names(dir.resolve("out")))
                .containsExactly(
                        "adapter_config.json",
                        "adapter_model.safetensors",
                        "chain.json",
                        "chat_template.jinja",
                        "checkpoint-20",
                        "metrics.jsonl",
                        "tokenizer.json",
                        "tokenizer_config.json");
        assertThat(Sha256.of(RunIdentity.baseFiles(Runs.TINY))).isEqualTo(before);
    }

    @Test
    void planSaysWhatWillHappen() throws Exception {
        TrainPlan plan = Trainer.open(
                        small("out").set(TrainOptions.MAX_STEPS, -1).build())
                .plan();
        assertThat(plan.totalSteps()).isEqualTo(12);
        assertThat(plan.data().rows()).hasSize(7);
        assertThat(plan.modules()).hasSize(56);
        assertThat(plan.trainableParameters()).isEqualTo(8 * 4 * (2 * (192 + 192) + 2 * (192 + 64) + 3 * (192 + 512)));
        assertThat(plan.preview()).extracting(p -> p.learned()).containsExactly(false, true);
        assertThat(plan.memory().toString()).contains("weights", "activations", "peak", "available");
        assertThat(Files.exists(dir.resolve("out"))).isFalse();
    }

    @Test
    void equalRunsGiveEqualBytes() throws Exception {
        Runs.run(small("a"));
        Runs.run(small("b")
                .set(TrainOptions.THREADS, 1)
                .set(TrainOptions.GRADIENT_CHECKPOINTING, true)
                .set(TrainOptions.SAVE_STEPS, 2));
        assertThat(Runs.adapter(dir.resolve("b"))).isEqualTo(Runs.adapter(dir.resolve("a")));
        assertThat(names(dir.resolve("b")))
                .contains("checkpoint-4", "checkpoint-6")
                .doesNotContain("checkpoint-2");
        Runs.run(small("c").set(TrainOptions.SEED, 43L));
        assertThat(Runs.adapter(dir.resolve("c"))).isNotEqualTo(Runs.adapter(dir.resolve("a")));
    }

    @Test
    void microBatchesAndPackingDoNotChangeTheStep() throws Exception {
        Runs.run(small("1x4").set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 4));
        Runs.run(small("4x1")
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 1)
                .set(TrainOptions.GRADIENT_ACCUMULATION_STEPS, 4));
        assertThat(Runs.adapter(dir.resolve("4x1"))).isEqualTo(Runs.adapter(dir.resolve("1x4")));
        // All rows in every step, so that packed and unpacked steps have the same rows.
        Runs.run(small("apart").set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 7));
        Settings.Builder packed = small("packed")
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 7)
                .set(TrainOptions.PACKING, true)
                .set(TrainOptions.MAX_LENGTH, 48);
        Runs.run(packed);
        assertThat(Runs.adapter(dir.resolve("packed"))).isEqualTo(Runs.adapter(dir.resolve("apart")));
        // Two packed sequences in two micro-batches: the order of the rows in the step is another one.
        Runs.run(packed.set(TrainOptions.OUTPUT_DIR, dir.resolve("split"))
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 1)
                .set(TrainOptions.GRADIENT_ACCUMULATION_STEPS, 7));
        assertSameStep("apart", "split");
    }

    private void assertSameStep(String one, String other) throws IOException {
        JsonNode a = metrics(one).getFirst();
        JsonNode b = metrics(other).getFirst();
        for (String key : List.of("loss", "grad_norm", "num_tokens")) {
            double expected = a.path(key).asDouble();
            assertThat(b.path(key).asDouble()).as(key).isCloseTo(expected, within(1e-6 * expected));
        }
    }

    @Test
    void cancelledRunGoesOnBitForBit() throws Exception {
        Runs.run(small("whole").set(TrainOptions.MAX_STEPS, 9).set(TrainOptions.LOGGING_STEPS, 2));
        Settings.Builder parts = small("parts").set(TrainOptions.MAX_STEPS, 9).set(TrainOptions.LOGGING_STEPS, 2);
        for (int stop : new int[] {3, 4, 7}) {
            Trainer trainer = Trainer.open(parts.build());
            TrainResult result = trainer.run(new TrainListener() {
                @Override
                public void onStep(Metrics metrics) {
                    if (metrics.step() == stop) {
                        trainer.cancel();
                    }
                }
            });
            assertThat(result.completed()).isFalse();
            assertThat(result.step()).isEqualTo(stop);
            assertThat(result.checkpoint()).isEqualTo(dir.resolve("parts/checkpoint-" + stop));
            parts.set(TrainOptions.RESUME_FROM_CHECKPOINT, "true");
        }
        assertThat(Runs.run(parts).completed()).isTrue();
        assertThat(Runs.adapter(dir.resolve("parts"))).isEqualTo(Runs.adapter(dir.resolve("whole")));
        assertThat(Files.readString(dir.resolve("parts/adapter_config.json")))
                .isEqualTo(Files.readString(dir.resolve("whole/adapter_config.json")));
        List<JsonNode> whole = metrics("whole");
        List<JsonNode> resumed = metrics("parts");
        assertThat(resumed).extracting(m -> m.path("step").asInt()).containsExactly(2, 4, 6, 8, 9);
        for (int i = 0; i < whole.size(); i++) {
            for (String key : List.of("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens")) {
                assertThat(resumed.get(i).path(key))
                        .as(key)
                        .isEqualTo(whole.get(i).path(key));
            }
        }
        // Once more when it is complete: nothing to do, the same result.
        assertThat(Runs.run(parts).completed()).isTrue();
        assertThat(Runs.adapter(dir.resolve("parts"))).isEqualTo(Runs.adapter(dir.resolve("whole")));
    }

    @Test
    void momentsInEightBitsGoOnBitForBit() throws Exception {
        Settings.Builder eightBit =
                small("whole").set(TrainOptions.LORA_R, 32).set(TrainOptions.OPTIM, Optimizer.ADAMW_8BIT);
        Runs.run(eightBit.set(TrainOptions.SAVE_STEPS, 3));
        Path half = dir.resolve("whole/checkpoint-3");
        Runs.run(eightBit.set(TrainOptions.OUTPUT_DIR, dir.resolve("rest"))
                .set(TrainOptions.RESUME_FROM_CHECKPOINT, half.toString()));
        for (String file : List.of("adapter_model.safetensors", "checkpoint-6/optimizer.safetensors")) {
            assertThat(dir.resolve("rest").resolve(file))
                    .hasSameBinaryContentAs(dir.resolve("whole").resolve(file));
        }
        assertThat(Verifier.open(dir.resolve("whole"), Map.of()).replay(3, 6, step -> {}))
                .isEmpty();

        // Codes where a matrix has 4096 numbers or more, floats elsewhere.
        Map<String, String> types = new TreeMap<>();
        try (Checkpoint file = Checkpoint.open(half.resolve("optimizer.safetensors"))) {
            file.tensors().forEach((name, info) -> types.put(name, info.typeName() + info.shape()));
        }
        String layer = "base_model.model.model.layers.0.self_attn.";
        assertThat(types)
                .containsEntry(layer + "q_proj.lora_A.weight.exp_avg", "U8[32, 192]")
                .containsEntry(layer + "q_proj.lora_A.weight.exp_avg_scale", "F32[24]")
                .containsEntry(layer + "q_proj.lora_A.weight.exp_avg_sq", "U8[32, 192]")
                .containsEntry(layer + "q_proj.lora_A.weight.exp_avg_sq_scale", "F32[24]")
                .containsEntry(layer + "k_proj.lora_B.weight.exp_avg", "F32[64, 32]")
                .doesNotContainKey(layer + "k_proj.lora_B.weight.exp_avg_scale");

        // Nearly the run with moments in floats, and not that run.
        Runs.run(small("floats").set(TrainOptions.LORA_R, 32));
        List<JsonNode> floats = metrics("floats");
        List<JsonNode> codes = metrics("whole");
        assertThat(Runs.adapter(dir.resolve("whole"))).isNotEqualTo(Runs.adapter(dir.resolve("floats")));
        for (int i = 0; i < floats.size(); i++) {
            assertThat(codes.get(i).path("loss").asDouble())
                    .isCloseTo(floats.get(i).path("loss").asDouble(), within(0.02));
        }
        assertThatThrownBy(() -> Runs.run(small("other")
                        .set(TrainOptions.LORA_R, 32)
                        .set(TrainOptions.RESUME_FROM_CHECKPOINT, half.toString())))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("optim was adamw_8bit, is adamw_torch");
    }

    /** Ctrl-C waits for the step and the save, not for an evaluation, which a run that goes on makes later. */
    @Test
    void aCancelledRunSavesWithoutEvaluating() throws Exception {
        Trainer trainer = Trainer.open(small("out")
                .set(TrainOptions.EVAL_FILE, data)
                .put("eval_strategy", "steps")
                .set(TrainOptions.EVAL_STEPS, 2)
                .build());
        List<Integer> evaluated = new ArrayList<>();
        TrainResult result = trainer.run(new TrainListener() {
            @Override
            public void onStep(Metrics metrics) {
                if (metrics.step() == 4) {
                    trainer.cancel();
                }
            }

            @Override
            public void onEval(int step, BatchLoss loss) {
                evaluated.add(step);
            }
        });
        assertThat(result.checkpoint()).isEqualTo(dir.resolve("out/checkpoint-4"));
        assertThat(evaluated).containsExactly(2);
    }

    @Test
    void resumingFromAnOlderCheckpointDropsWhatCameAfterIt() throws Exception {
        Runs.run(small("out").set(TrainOptions.SAVE_STEPS, 3));
        byte[] expected = Runs.adapter(dir.resolve("out"));
        Settings.Builder again = small("out")
                .set(TrainOptions.SAVE_STEPS, 3)
                .set(
                        TrainOptions.RESUME_FROM_CHECKPOINT,
                        dir.resolve("out/checkpoint-3").toString());
        Runs.run(again);
        assertThat(Runs.adapter(dir.resolve("out"))).isEqualTo(expected);
        assertThat(metrics("out")).extracting(m -> m.path("step").asInt()).containsExactly(1, 2, 3, 4, 5, 6);
    }

    @Test
    void resumingFromElsewhereNeedsAnEmptyFolder() throws Exception {
        Runs.run(small("out").set(TrainOptions.SAVE_STEPS, 3));
        Settings.Builder copy = small("copy")
                .set(
                        TrainOptions.RESUME_FROM_CHECKPOINT,
                        dir.resolve("out/checkpoint-3").toString());
        Runs.run(copy);
        assertThat(Runs.adapter(dir.resolve("copy"))).isEqualTo(Runs.adapter(dir.resolve("out")));
        assertThatThrownBy(() -> Trainer.open(copy.build())).hasMessageContaining("is not empty");
    }

    @Test
    void resumeOfAnotherRunIsRefused() throws Exception {
        Runs.run(small("out"));
        Settings.Builder resumed = small("out").set(TrainOptions.RESUME_FROM_CHECKPOINT, "last");
        assertThatThrownBy(
                        () -> Runs.run(resumed.set(TrainOptions.LORA_ALPHA, 8.0).set(TrainOptions.SEED, 1L)))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("checkpoint-6: is from a run that differs")
                .hasMessageContaining("lora_alpha was 32.0, is 8.0")
                .hasMessageContaining("seed was 42, is 1");
        Files.writeString(data, Files.readString(data).replace("fox", "fix"));
        assertThatThrownBy(() -> Runs.run(small("out").set(TrainOptions.RESUME_FROM_CHECKPOINT, "last")))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("data: " + data + " has changed in line 1: sha256 was ");
        Runs.data(dir);
        assertThatThrownBy(() -> Runs.run(small("out")
                        .set(TrainOptions.RESUME_FROM_CHECKPOINT, "last")
                        .set(TrainOptions.MAX_STEPS, 5)))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("is of step 6, but the run is to have 5 steps only");
    }

    /** What was a step's schedule is kept; the steps that are left follow the new one. */
    @Test
    void aLongerRunHasTheNewSchedule() throws Exception {
        Runs.run(small("out").set(TrainOptions.SAVE_STEPS, 3));
        Runs.run(small("out").set(TrainOptions.MAX_STEPS, 9).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true"));
        List<JsonNode> metrics = metrics("out");
        for (int step = 1; step <= 9; step++) {
            Schedule schedule = new Schedule(Schedule.Type.LINEAR, 2e-3, 0, step <= 6 ? 6 : 9);
            assertThat(metrics.get(step - 1).path("learning_rate").asDouble()).isEqualTo(schedule.at(step));
        }
        assertThat(Verifier.open(dir.resolve("out"), Map.of()).replay(0, 9, step -> {}))
                .isEmpty();
    }

    @Test
    void aDryRunIsNotRun() throws Exception {
        Trainer trainer =
                Trainer.open(small("out").set(TrainOptions.DRY_RUN, true).build());
        assertThat(trainer.plan().previews()).hasSize(3);
        assertThatThrownBy(() -> trainer.run(TrainListener.NONE))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("option dry_run");
        assertThat(dir.resolve("out")).doesNotExist();
    }

    @Test
    void aTemplateOfItsOwnGoesWithTheAdapter() throws Exception {
        Files.writeString(
                data,
                "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yes\"}]}");
        String jinja = "{{ strftime_now('%d %B %Y') }}{% if quiet %}, quiet{% endif %}:"
                + "{% for m in messages %} {{ m.content }}.{% endfor %}";
        Path template = Files.writeString(dir.resolve("own.jinja"), jinja);
        TrainPlan plan = Trainer.open(templated("out", template).build()).plan();
        assertThat(plan.preview().stream().map(Dataset.Piece::text))
                .containsExactly("07 March 2026, quiet: Hi.", " Yes.");
        Runs.run(templated("out", template));
        Path out = dir.resolve("out");
        assertThat(out.resolve("chat_template.jinja")).hasContent(jinja);
        Chain chain = Chain.read(out.resolve("checkpoint-1"));
        assertThat(chain.identity().clock()).isEqualTo("2026-03-07T00:00Z");
        assertThat(chain.identity().files().get("template")).containsOnlyKeys("own.jinja");
        assertThat(Chain.read(out).files()).containsKey("chat_template.jinja");
        assertThat(Verifier.open(out, Map.of()).replay(0, 1, step -> {})).isEmpty();

        // The clock of a run that goes on is the one that it began with; its template must not be another one.
        Settings.Builder resumed = templated("out", template).set(TrainOptions.RESUME_FROM_CHECKPOINT, "last");
        assertThat(Trainer.open(resumed.build()).plan().clock()).isEqualTo("2026-03-07T00:00Z");
        assertThatThrownBy(() -> Trainer.open(resumed.set(ChatOptions.TEMPLATE_DATE, LocalDateTime.MIN.withYear(2027))
                        .build()))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("template_date was 2026-03-07T00:00, is 2027-01-01T00:00");
        Files.writeString(template, jinja + "\n\n");
        assertThatThrownBy(() -> Trainer.open(templated("out", template)
                        .set(TrainOptions.RESUME_FROM_CHECKPOINT, "last")
                        .build()))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("template: " + template + " has changed: sha256 was ");
    }

    private Settings.Builder templated(String output, Path template) {
        return small(output)
                .set(TrainOptions.MAX_STEPS, 1)
                .set(ChatOptions.CHAT_TEMPLATE_PATH, template)
                .set(ChatOptions.CHAT_TEMPLATE_KWARGS, Map.of("quiet", true))
                .set(ChatOptions.TEMPLATE_DATE, LocalDateTime.of(2026, 3, 7, 0, 0));
    }

    @Test
    void otherThanResultsMayChangeOnResume() throws Exception {
        Runs.run(small("out").set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT));
        TrainResult result = Runs.run(small("out")
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT)
                .set(TrainOptions.RESUME_FROM_CHECKPOINT, "last")
                .set(TrainOptions.MAX_STEPS, 8)
                .set(TrainOptions.LOGGING_STEPS, 5)
                .set(TrainOptions.THREADS, 1));
        assertThat(result.step()).isEqualTo(8);
        Runs.run(small("whole")
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT)
                .set(TrainOptions.MAX_STEPS, 8));
        assertThat(Runs.adapter(dir.resolve("out"))).isEqualTo(Runs.adapter(dir.resolve("whole")));
    }

    @Test
    void goesOnTrainingAnAdapter() throws Exception {
        Runs.run(small("first"));
        Settings.Builder more = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, Runs.TINY)
                .set(TrainOptions.ADAPTER_NAME_OR_PATH, dir.resolve("first"))
                .set(TrainOptions.TRAIN_FILE, data)
                .set(TrainOptions.OUTPUT_DIR, dir.resolve("second"))
                .set(TrainOptions.LOGGING_STEPS, 1)
                .set(TrainOptions.MAX_STEPS, 2);
        TrainPlan plan = Trainer.open(more.build()).plan();
        assertThat(plan.adapter().rank()).isEqualTo(4);
        assertThat(plan.adapter().loraDropout()).isEqualTo(0.1);
        assertThat(Trainer.open(more.set(TrainOptions.LORA_DROPOUT, 0.0).build())
                        .plan()
                        .adapter()
                        .loraDropout())
                .isZero();
        Runs.run(more);
        assertThat(metrics("second").getFirst().path("loss").asDouble())
                .isLessThan(metrics("first").getFirst().path("loss").asDouble());
    }

    @Test
    void outputDirectoryInUse() throws Exception {
        Files.createDirectories(dir.resolve("out"));
        Files.writeString(dir.resolve("out/notes.txt"), "mine");
        assertThatThrownBy(() -> Trainer.open(small("out").build()))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("is not empty, it has notes.txt")
                .hasMessageContaining("--resume_from_checkpoint")
                .hasMessageContaining("--overwrite_output_dir");
        Runs.run(small("out").set(TrainOptions.OVERWRITE_OUTPUT_DIR, true).set(TrainOptions.MAX_STEPS, 2));
        Runs.run(small("out").set(TrainOptions.OVERWRITE_OUTPUT_DIR, true).set(TrainOptions.MAX_STEPS, 1));
        assertThat(names(dir.resolve("out")))
                .contains("notes.txt", "checkpoint-1")
                .doesNotContain("checkpoint-2");
        assertThat(metrics("out")).hasSize(1);
        Files.writeString(dir.resolve("file"), "");
        assertThatThrownBy(() -> Trainer.open(small("file").build()))
                .hasMessageContaining("is a file; expected a folder");
    }

    @Test
    void resumeWithoutACheckpointBegins() throws Exception {
        Runs.run(small("plain").set(TrainOptions.MAX_STEPS, 2));
        Runs.run(small("resumed").set(TrainOptions.MAX_STEPS, 2).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true"));
        assertThat(Runs.adapter(dir.resolve("resumed"))).isEqualTo(Runs.adapter(dir.resolve("plain")));
        assertThatThrownBy(() -> Trainer.open(small("x")
                        .set(
                                TrainOptions.RESUME_FROM_CHECKPOINT,
                                dir.resolve("none").toString())
                        .build()))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("none: is not a checkpoint of lora4j");
    }

    @Test
    void nonFiniteLossStopsWithTheStepAndTheRows() throws Exception {
        Settings.Builder run = small("out")
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT)
                .set(TrainOptions.SAVE_STEPS, 1)
                .set(TrainOptions.LEARNING_RATE, 1e30)
                .set(TrainOptions.MAX_GRAD_NORM, 0.0)
                .set(TrainOptions.MAX_STEPS, 50);
        assertThatThrownBy(() -> Runs.run(run))
                .isInstanceOf(TrainException.class)
                .hasMessageMatching("(?s)step \\d+: .*with the rows of lines \\[.*nothing was updated.*");
        Map<Integer, Path> left = new CheckpointStore(dir.resolve("out"), 2).list();
        assertThat(left).isNotEmpty();
        for (Path checkpoint : left.values()) {
            CheckpointStore.read(checkpoint);
        }
        assertThat(names(dir.resolve("out"))).doesNotContain("adapter_model.safetensors");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "lora_target_modules | q_porj        | matches no module",
                "lora_target_modules | q_proj,o_porj | o_porj",
                "lora_target_modules | .*norm        | norm",
                "rank_pattern        | {\"x_proj\": 2} | rank_pattern key \"x_proj\"",
                "model               | /nowhere      | no folder /nowhere; check the path",
                "data                | /nowhere.jsonl| /nowhere.jsonl: no such file",
                "eval_file           | /nowhere.jsonl| /nowhere.jsonl: no such file",
                "adapter             | /nowhere      | /nowhere",
            })
    void badInputIsNamedBeforeAnythingIsWritten(String option, String value, String expected) {
        Settings.Builder run = TrainOptions.builder()
                .put("model", Runs.TINY.toString())
                .put("data", data.toString())
                .put("output_dir", dir.resolve("out").toString())
                .put(option, value);
        assertThatThrownBy(() -> Trainer.open(run.build()))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(expected);
        assertThat(Files.exists(dir.resolve("out"))).isFalse();
    }

    @Test
    void fullDiskStopsAndKeepsTheLastCheckpoint() throws Exception {
        Path mount = Files.createDirectory(dir.resolve("mount"));
        Assumptions.assumeTrue(command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount), "mounting needs root");
        try {
            Settings.Builder run =
                    small("mount/out").set(TrainOptions.SAVE_STEPS, 1).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true");
            assertThatThrownBy(() -> Runs.run(run))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("no space left on its file system");
            assertThat(names(mount.resolve("out"))).containsExactly("checkpoint-1", "metrics.jsonl");
            assertThat(command("mount", "-o", "remount,size=64m", mount)).isTrue();
            Runs.run(run);
            Runs.run(small("whole"));
            assertThat(Runs.adapter(mount.resolve("out"))).isEqualTo(Runs.adapter(dir.resolve("whole")));
        } finally {
            assertThat(command("umount", mount)).isTrue();
        }
    }

    private static boolean command(Object... words) throws Exception {
        try {
            return new ProcessBuilder(Stream.of(words).map(Object::toString).toList())
                            .start()
                            .waitFor()
                    == 0;
        } catch (IOException e) {
            return false; // There is no such command.
        }
    }
}
