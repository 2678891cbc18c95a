package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * QLoRA on a quantized GGUF file of SmolLM2-135M against PEFT on the same model dequantized by transformers: the logits, and 50 steps of
 * training. Runs where {@code LORA4J_SMOLLM2_GGUF} names the file and {@code LORA4J_SMOLLM2_QLORA_GOLDEN} the folder that
 * {@code test-data/golden/smollm2/make_golden.py} wrote of it.
 */
class SmolLm2QloraTest {
    private static final double LOGITS = 1e-4;
    private static final double LOSS = 1e-3;

    @Test
    void fiftyStepsEqualPeftOnTheDequantizedModel() throws Exception {
        Path model = TestModels.fromEnvironment("LORA4J_SMOLLM2_GGUF");
        Path golden = TestModels.fromEnvironment("LORA4J_SMOLLM2_QLORA_GOLDEN");
        JsonNode numbers = JsonMapper.shared().readTree(Files.readString(golden.resolve("reference.json")));
        assertThat(String.valueOf(model.getFileName()))
                .isEqualTo(numbers.get("model").stringValue());
        byte[] hash = sha256(model);
        try (TestModels.Open open = TestModels.open(model, Isa.AUTO, 0, WeightMode.PACK);
                Adapter adapter = Adapter.load(open.model(), golden.resolve("adapter_init"), true)) {
            logits(open.model(), adapter, numbers);
            training(open.model(), adapter, numbers);
        }
        assertThat(sha256(model)).isEqualTo(hash);
    }

    private static void logits(LlamaModel model, Adapter adapter, JsonNode numbers) {
        Batch first = Batch.ofIds(List.of(ints(numbers.get("rows").get(0).get("input_ids"))));
        try (Arena arena = Arena.ofConfined()) {
            Tensor logits = model.logits(first, adapter, first.lastRows(), arena);
            GoldenAssert.close("logits", logits.select(0).toDoubleArray(), doubles(numbers.get("logits")), LOGITS);
        }
    }

    private static void training(LlamaModel model, Adapter adapter, JsonNode numbers) {
        List<Batch.Sequence> rows = new ArrayList<>();
        for (JsonNode row : numbers.get("rows").values()) {
            rows.add(new Batch.Sequence(ints(row.get("input_ids")), ints(row.get("labels")), rows.size()));
        }
        Batch batch = Batch.of(rows);
        assertThat(batch.targetTokens()).isEqualTo(numbers.get("target_tokens").intValue());
        JsonNode settings = numbers.get("optimizer");
        double worst = 0;
        double worstNorm = 0;
        try (TestModels.Optimizer optimizer = new TestModels.Optimizer(
                model,
                adapter,
                settings.get("learning_rate").doubleValue(),
                settings.get("weight_decay").doubleValue())) {
            double[] expected = doubles(numbers.get("loss"));
            double[] norms = doubles(numbers.get("grad_norm"));
            assertThat(expected).hasSize(50);
            for (int step = 0; step < expected.length; step++) {
                double loss = model.lossAndGradients(batch, adapter, TestModels.meanOver(batch.targetTokens()))
                        .meanLoss();
                worst = Math.max(worst, Math.abs(loss - expected[step]) / expected[step]);
                worstNorm = Math.max(worstNorm, Math.abs(optimizer.step() - norms[step]) / norms[step]);
            }
        }
        System.out.printf("50 losses differ by at most %.1e, gradient norms by %.1e%n", worst, worstNorm);
        assertThat(worst).isLessThanOrEqualTo(LOSS);
    }

    private static byte[] sha256(Path file) throws Exception {
        return MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file));
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }

    private static double[] doubles(JsonNode array) {
        return array.values().stream().mapToDouble(JsonNode::doubleValue).toArray();
    }
}
