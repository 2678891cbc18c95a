package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** The whole way from JSONL to metrics on a real model, against transformers + PEFT. */
class SmolLm2TrainerTest {
    @TempDir
    Path dir;

    @Test
    void tenStepsEqualPeft() throws Exception {
        String model = System.getenv("LORA4J_SMOLLM2");
        String golden = System.getenv("LORA4J_SMOLLM2_GOLDEN");
        Assumptions.assumeTrue(model != null && golden != null, "LORA4J_SMOLLM2 and LORA4J_SMOLLM2_GOLDEN are not set");
        Assumptions.assumeTrue(Files.exists(Path.of(model, "model.safetensors")), "LORA4J_SMOLLM2 has no weights");
        Settings settings = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, Path.of(model))
                .set(TrainOptions.ADAPTER_NAME_OR_PATH, Path.of(golden, "adapter_init"))
                .set(TrainOptions.TRAIN_FILE, Path.of(golden, "data.jsonl"))
                .set(TrainOptions.OUTPUT_DIR, dir.resolve("out"))
                .set(TrainOptions.LEARNING_RATE, 2e-3)
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.CONSTANT)
                .set(TrainOptions.WEIGHT_DECAY, 0.01)
                .set(TrainOptions.MAX_GRAD_NORM, 0.0)
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 6)
                .set(TrainOptions.MAX_STEPS, 10)
                .set(TrainOptions.LOGGING_STEPS, 1)
                .build();
        Trainer.open(settings).run(TrainListener.NONE);

        JsonMapper mapper = new JsonMapper();
        JsonNode reference = mapper.readTree(Files.readAllBytes(Path.of(golden, "reference.json")));
        List<JsonNode> metrics = Files.readAllLines(dir.resolve("out/metrics.jsonl")).stream()
                .map(mapper::readTree)
                .toList();
        assertThat(metrics).hasSize(10);
        for (int i = 0; i < 10; i++) {
            double loss = reference.path("loss").path(i).asDouble();
            assertThat(metrics.get(i).path("loss").asDouble())
                    .as("loss of step %d", i + 1)
                    .isCloseTo(loss, within(1e-4 * loss));
            double norm = reference.path("grad_norm").path(i).asDouble();
            assertThat(metrics.get(i).path("grad_norm").asDouble())
                    .as("gradient norm of step %d", i + 1)
                    .isCloseTo(norm, within(1e-3 * norm));
        }
    }
}
