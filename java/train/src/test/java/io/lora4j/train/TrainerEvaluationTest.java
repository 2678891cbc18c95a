package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.lora4j.formats.AtomicDirectory;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.data.MicroBatch;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.WeightMode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** When a run evaluates and saves, what it ends with, and the metrics that it writes. */
class TrainerEvaluationTest {
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

    private Path evalData() throws IOException {
        return Files.writeString(
                dir.resolve("eval.jsonl"), "{\"prompt\": \"The owl\", \"completion\": \" ran home and slept.\"}\n");
    }

    /** A run that is best early and then is driven off by a learning rate that is far too high. */
    private Settings.Builder overfitted(String output) throws IOException {
        return small(output)
                .set(TrainOptions.EVAL_FILE, evalData())
                .set(TrainOptions.LEARNING_RATE, 0.05)
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT)
                .put("eval_strategy", "steps")
                .put("eval_steps", "1")
                .set(TrainOptions.MAX_STEPS, 8)
                .set(TrainOptions.SAVE_STEPS, 4)
                .set(TrainOptions.SAVE_TOTAL_LIMIT, 1)
                .set(TrainOptions.LOAD_BEST_MODEL_AT_END, true);
    }

    private int bestStep(String output) throws IOException {
        return metrics(output).stream()
                .filter(line -> line.has("eval_loss"))
                .min(Comparator.comparingDouble(line -> line.path("eval_loss").asDouble()))
                .orElseThrow()
                .path("step")
                .asInt();
    }

    @Test
    void endsWithTheBestModelAndKeepsItsCheckpoint() throws IOException {
        Runs.run(overfitted("out"));
        int best = bestStep("out");
        assertThat(best).as("the best step").isLessThan(8);
        assertThat(new CheckpointStore(dir.resolve("out"), 1).list().keySet()).containsExactly(best, 8);
        assertThat(Runs.adapter(dir.resolve("out")))
                .isEqualTo(Runs.adapter(dir.resolve("out/checkpoint-" + best)))
                .isNotEqualTo(Runs.adapter(dir.resolve("out/checkpoint-8")));

        Runs.run(overfitted("accuracy").put("metric_for_best_model", "mean_token_accuracy"));
        int mostRight = new CheckpointStore(dir.resolve("accuracy"), 1).list().firstKey();
        List<Double> accuracies = metrics("accuracy").stream()
                .filter(line -> line.has("eval_loss"))
                .map(line -> line.path("eval_mean_token_accuracy").asDouble())
                .toList();
        assertThat(accuracies.get(mostRight - 1)).isEqualTo(Collections.max(accuracies));
        assertThat(accuracies.subList(0, mostRight - 1)).doesNotContain(Collections.max(accuracies));
    }

    @Test
    void theBestModelOutlivesAnInterruption() throws IOException {
        Runs.run(overfitted("whole"));
        Settings.Builder parts = overfitted("parts").set(TrainOptions.RESUME_FROM_CHECKPOINT, "true");
        Runs.run(parts.set(TrainOptions.MAX_STEPS, 5));
        Runs.run(parts.set(TrainOptions.MAX_STEPS, 8));
        assertThat(Runs.adapter(dir.resolve("parts"))).isEqualTo(Runs.adapter(dir.resolve("whole")));

        int best = bestStep("parts");
        AtomicDirectory.delete(dir.resolve("parts/checkpoint-" + best));
        assertThatThrownBy(() -> Runs.run(parts.set(TrainOptions.MAX_STEPS, 9)))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("the best evaluation so far is of step " + best + ", but ")
                .hasMessageContaining("has no checkpoint-" + best);
    }

    @Test
    void savesWhenItIsToldTo() throws IOException {
        CheckpointStore none = new CheckpointStore(dir.resolve("none"), 0);
        TrainResult result = Runs.run(small("none").put("save_strategy", "no"));
        assertThat(none.list()).isEmpty();
        assertThat(result.checkpoint()).isEqualTo(dir.resolve("none"));
        assertThat(Runs.adapter(dir.resolve("none"))).isNotEmpty();

        Runs.run(small("epochs")
                .put("save_strategy", "epoch")
                .set(TrainOptions.MAX_STEPS, 9)
                .put("save_total_limit", "0"));
        assertThat(new CheckpointStore(dir.resolve("epochs"), 0).list().keySet())
                .containsExactly(4, 8, 9);

        Runs.run(overfitted("best")
                .set(TrainOptions.LOAD_BEST_MODEL_AT_END, false)
                .put("save_strategy", "best"));
        assertThat(new CheckpointStore(dir.resolve("best"), 0).list().keySet()).containsExactly(bestStep("best"));
    }

    @Test
    void evaluationsNeedSomethingToEvaluate() throws IOException {
        for (String option :
                List.of("eval_strategy=steps", "eval_steps=2", "load_best_model_at_end=true", "save_strategy=best")) {
            String[] pair = option.split("=");
            assertThatThrownBy(() ->
                            Trainer.open(small("out").put(pair[0], pair[1]).build()))
                    .isInstanceOf(OptionException.class)
                    .hasMessageContaining("option " + pair[0] + ": found " + pair[1])
                    .hasMessageContaining("there is nothing to evaluate; give an eval_file");
        }
        TrainPlan never = Trainer.open(small("out")
                        .set(TrainOptions.EVAL_FILE, evalData())
                        .put("eval_strategy", "no")
                        .build())
                .plan();
        assertThat(never.evalData()).isEmpty();
    }

    /** Two micro-batches of different sizes in each step: TRL averages their accuracies, and adds up the tokens. */
    @Test
    void metricsAreTrls() throws IOException {
        Settings.Builder one = small("one").set(TrainOptions.LORA_DROPOUT, 0.0).set(TrainOptions.MAX_STEPS, 4);
        Runs.run(one);
        List<JsonNode> micro = metrics("one");
        Settings.Builder two = small("two")
                .set(TrainOptions.LORA_DROPOUT, 0.0)
                .set(TrainOptions.GRADIENT_ACCUMULATION_STEPS, 4)
                .set(TrainOptions.EVAL_FILE, evalData())
                .set(TrainOptions.MAX_STEPS, 1);
        Runs.run(two);
        List<JsonNode> whole = metrics("two");
        TrainPlan plan = Trainer.open(
                        one.set(TrainOptions.OVERWRITE_OUTPUT_DIR, true).build())
                .plan();
        long tokens = plan.data().tokens();
        assertThat(micro.getLast().path("num_tokens").asLong()).isEqualTo(tokens);
        assertThat(whole.getFirst().path("num_tokens").asLong()).isEqualTo(tokens);
        assertThat(whole.getFirst().path("epoch").asDouble()).isEqualTo(1.0);
        assertThat(whole.getLast().path("eval_num_tokens").asLong()).isEqualTo(tokens);

        double mean = 0;
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, 2);
                LlamaModel model = LlamaModel.open(Runs.TINY, queue, WeightMode.BORROW)) {
            for (MicroBatch batch : Trainer.open(
                            two.set(TrainOptions.OVERWRITE_OUTPUT_DIR, true).build())
                    .plan()
                    .batches()
                    .epoch(0)
                    .step(0)) {
                mean += model.loss(batch.batch(), null).accuracy() / 4; // A new adapter changes nothing yet.
            }
        }
        assertThat(whole.getFirst().path("mean_token_accuracy").asDouble()).isCloseTo(mean, within(1e-12));
    }

    @Test
    void aDataFolderHasItsEvaluationFile() throws IOException {
        Path folder = Files.createDirectory(dir.resolve("data"));
        Files.copy(data, folder.resolve("train.jsonl"));
        Files.move(evalData(), folder.resolve("validation.jsonl"));
        TrainPlan plan =
                Trainer.open(Runs.small(folder, dir.resolve("out")).build()).plan();
        assertThat(plan.data().file()).isEqualTo(folder.resolve("train.jsonl"));
        assertThat(plan.evalData().orElseThrow().file()).isEqualTo(folder.resolve("validation.jsonl"));
        assertThat(plan.milestones().evalStrategy()).isEqualTo(Milestones.EvalStrategy.EPOCH);
        TrainPlan other = Trainer.open(Runs.small(folder, dir.resolve("out"))
                        .set(TrainOptions.EVAL_FILE, data)
                        .build())
                .plan();
        assertThat(other.evalData().orElseThrow().file()).isEqualTo(data);
    }
}
