package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every gradient of a whole model against central differences, in fp64. */
class GradientTest {
    private static final double STEP = 1e-5;
    private static final double TOLERANCE = 1e-6;

    @TempDir
    Path dir;

    @ParameterizedTest
    @CsvSource({
        "all-linear, 0, false",
        "all-linear, 0.3, false",
        "all-linear, 0.3, true",
        "q_proj, 0.3, false",
        "model.layers.1.mlp.up_proj, 0, false",
        "model.layers.1.mlp.down_proj, 0.3, true",
        "model.layers.1.self_attn.o_proj, 0, false",
        "model.layers.1.self_attn.v_proj, 0.3, true",
        "model.layers.0.mlp.gate_proj, 0, true",
    })
    void gradientsAreTheDerivativesOfTheLoss(String target, double dropout, boolean checkpointing) {
        TestModels.randomModel(dir, DType.F32);
        Batch batch = Batch.of(TestModels.randomSequences(61, 9, 4, 1, 13));
        GradientOptions options = new GradientOptions(1, checkpointing, 99, 3);
        try (TestModels.Open open = TestModels.open(dir, Isa.REF64, 2);
                Adapter adapter = TestModels.randomAdapter(open.model(), config(target, dropout))) {
            open.model().lossAndGradients(batch, adapter, options);
            List<double[]> gradients = adapter.parameterList().stream()
                    .map(p -> p.gradient().toDoubleArray())
                    .toList();
            SplittableRandom random = new SplittableRandom(17);
            for (int which = 0; which < gradients.size(); which++) {
                LoraLinear.Parameter p = adapter.parameterList().get(which);
                double[] start = p.value().toDoubleArray();
                double[] gradient = gradients.get(which);
                double[] direction = random.doubles(start.length, -1, 1).toArray();
                double expected = 0;
                for (int i = 0; i < direction.length; i++) {
                    expected += direction[i] * gradient[i];
                }
                move(p.value(), start, direction, STEP);
                double above =
                        open.model().lossAndGradients(batch, adapter, options).lossSum();
                move(p.value(), start, direction, -STEP);
                double below =
                        open.model().lossAndGradients(batch, adapter, options).lossSum();
                move(p.value(), start, direction, 0);
                assertThat((above - below) / (2 * STEP))
                        .as("derivative along %s", p.name())
                        .isCloseTo(
                                expected,
                                org.assertj.core.data.Offset.offset(TOLERANCE * Math.max(1, Math.abs(expected))));
                assertThat(expected).as("derivative along %s", p.name()).isNotZero();
            }
        }
    }

    private static AdapterConfig config(String target, double dropout) {
        if (target.equals("all-linear")) {
            return TestModels.allLinear(3, dropout);
        }
        ModuleFilter filter = new ModuleFilter.Names(List.of(target));
        return new AdapterConfig(
                3, 6, dropout, filter, null, Map.of(), Map.of(), false, null, null, null, null, "CAUSAL_LM");
    }

    private static void move(Tensor value, double[] start, double[] direction, double step) {
        long columns = value.size(1);
        for (int i = 0; i < start.length; i++) {
            value.setFloat(start[i] + step * direction[i], i / columns, i % columns);
        }
    }
}
