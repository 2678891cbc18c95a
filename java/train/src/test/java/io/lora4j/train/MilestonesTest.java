package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntPredicate;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** The plan of a run against what transformers' Trainer did with the same options. */
class MilestonesTest {
    @TempDir
    Path dir;

    static Stream<JsonNode> cases() throws IOException {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data/train/milestones.json");
        return new JsonMapper().readTree(Files.readAllBytes(file)).path("cases").values().stream();
    }

    private TrainPlan plan(JsonNode golden) throws IOException {
        List<String> rows = new ArrayList<>();
        for (int i = 0; i < golden.path("rows").asInt(); i++) {
            rows.add("{\"text\": \"one day a cat sat\"}");
        }
        Path folder = Files.createDirectory(dir.resolve("data"));
        Files.write(folder.resolve("train.jsonl"), rows);
        Files.write(folder.resolve("valid.jsonl"), rows);
        Settings.Builder settings = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, Runs.TINY)
                .set(TrainOptions.TRAIN_FILE, folder)
                .set(TrainOptions.OUTPUT_DIR, dir.resolve("out"))
                .put("eval_strategy", "no"); // TRL's default
        for (String name : List.of("per_device_train_batch_size", "gradient_accumulation_steps")) {
            settings.put(name, golden.path(name).asString());
        }
        golden.path("options")
                .properties()
                .forEach(e -> settings.put(e.getKey(), e.getValue().asString()));
        return Trainer.open(settings.build()).plan();
    }

    private static List<Integer> steps(int total, IntPredicate due) {
        return IntStream.rangeClosed(1, total).filter(due).boxed().toList();
    }

    private static List<Integer> ints(JsonNode list) {
        return list.values().stream().map(JsonNode::asInt).toList();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void equalsTransformers(JsonNode golden) throws IOException {
        TrainPlan plan = plan(golden);
        Milestones milestones = plan.milestones();
        int total = golden.path("total_steps").asInt();
        assertThat(plan.totalSteps()).isEqualTo(total);
        assertThat(plan.schedule().warmupSteps())
                .isEqualTo(golden.path("warmup_steps").asInt());
        assertThat(steps(total, milestones::evaluates)).isEqualTo(ints(golden.path("evals")));
        assertThat(steps(total, step -> milestones.saves(step, false))).isEqualTo(ints(golden.path("saves")));

        List<Integer> logged = new ArrayList<>();
        for (JsonNode log : golden.path("logs").values()) {
            logged.add(log.get(0).asInt());
            assertThat(plan.batches().epochAfter(log.get(0).asInt()))
                    .isEqualTo(log.get(1).asDouble());
        }
        if (!logged.contains(total)) {
            logged.add(total); // There is always a line for the last step.
        }
        assertThat(steps(total, milestones::logs)).isEqualTo(logged);
    }
}
