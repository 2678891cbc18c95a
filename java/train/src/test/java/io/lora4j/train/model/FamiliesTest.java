package io.lora4j.train.model;

import io.lora4j.formats.Checkpoint;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Small random models of each family and variant against transformers + PEFT: logits, gradients of the first step, losses and norms of
 * five AdamW steps, final adapter. {@code families/make.py} wrote the numbers.
 */
class FamiliesTest {
    private static final double TOLERANCE = 1e-4;

    @ParameterizedTest
    @ValueSource(strings = {"llama", "llama3", "mistral", "qwen2", "qwen3"})
    void trainsAsPeftDoes(String family) throws IOException {
        Path dir = Path.of(
                System.getProperty("lora4j.root"),
                "java/train/src/test/resources/io/lora4j/train/model/families",
                family);
        JsonNode numbers = JsonMapper.shared().readTree(Files.readString(dir.resolve("expected.json")));
        List<Batch.Sequence> sequences = new ArrayList<>();
        for (int i = 0; i < numbers.get("rows").size(); i++) {
            sequences.add(new Batch.Sequence(
                    ints(numbers.get("rows").get(i)), ints(numbers.get("labels").get(i)), 0));
        }
        Batch batch = Batch.of(sequences);
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 2);
                Adapter adapter = Adapter.load(open.model(), dir.resolve("adapter"), true);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(open.model(), adapter, 5e-3, 0.01);
                Checkpoint expected = Checkpoint.open(dir.resolve("expected.safetensors"));
                Arena arena = Arena.ofConfined()) {
            int[] every = new int[batch.tokens()];
            Arrays.setAll(every, i -> i);
            Tensor logits = open.model().logits(batch, adapter, every, arena);
            for (int b = 0; b < batch.sequences(); b++) {
                Tensor rows = logits.rows(batch.offsets()[b], batch.offsets()[b + 1]);
                String name = "logits." + rows.size(0);
                GoldenAssert.close(name, rows.toDoubleArray(), values(expected, name), TOLERANCE);
            }
            for (int step = 0; step < numbers.get("losses").size(); step++) {
                BatchLoss loss =
                        open.model().lossAndGradients(batch, adapter, TestModels.meanOver(batch.targetTokens()));
                GoldenAssert.close(
                        "loss " + step,
                        loss.meanLoss(),
                        numbers.get("losses").get(step).doubleValue(),
                        TOLERANCE);
                if (step == 0) {
                    for (LoraLinear.Parameter p : adapter.parameterList()) {
                        double[] gradient = p.gradient().toDoubleArray();
                        GoldenAssert.close(p.name(), gradient, values(expected, "grad." + p.name()), TOLERANCE);
                    }
                }
                double norm = optimizer.step();
                GoldenAssert.close(
                        "norm " + step, norm, numbers.get("norms").get(step).doubleValue(), TOLERANCE);
            }
            for (LoraLinear.Parameter p : adapter.parameterList()) {
                GoldenAssert.close(p.name(), p.value().toDoubleArray(), values(expected, "final." + p.name()), 1e-3);
            }
        }
    }

    private static double[] values(Checkpoint checkpoint, String name) throws IOException {
        var info = checkpoint.tensor(name);
        return Tensor.of(checkpoint.data(name), info.dtype(), info.dims()).toDoubleArray();
    }

    private static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        Arrays.setAll(values, i -> array.get(i).intValue());
        return values;
    }
}
