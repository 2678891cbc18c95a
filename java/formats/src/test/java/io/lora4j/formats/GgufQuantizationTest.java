package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Values that a type of GGUF files cannot hold. What it holds, the tests of the conversions say. */
class GgufQuantizationTest {
    @ParameterizedTest
    @EnumSource(names = {"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "F16"})
    void namesWhatCannotBeStored(GgmlType type) {
        refused(
                type,
                Float.NaN,
                type == GgmlType.F16 ? "holds NaN, which is beyond F16" : "value [2, 300] is NaN or Inf");
        refused(
                type,
                Float.NEGATIVE_INFINITY,
                type == GgmlType.F16 ? "holds -Infinity" : "value [2, 300] is NaN or Inf");
        long block = type == GgmlType.Q4_K || type == GgmlType.Q6_K ? 256 : 288;
        refused(
                type,
                -1e12f,
                type == GgmlType.F16
                        ? "holds -1.0E12, which is beyond F16"
                        : "the block at [2, " + block + "] needs a scale beyond fp16");
    }

    private static void refused(GgmlType type, float value, String message) {
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device);
                Arena arena = Arena.ofShared()) {
            Tensor rows = Tensor.allocate(arena, DType.F32, 4, 512);
            rows.setFloat(value, 2, 300);
            assertThatThrownBy(() -> GgufQuantization.encode(queue, type, rows, arena, "some.weight"))
                    .isInstanceOf(FormatException.class)
                    .hasMessageStartingWith("tensor some.weight ")
                    .hasMessageContaining(message)
                    .hasMessageEndingWith(
                            type == GgmlType.F16 ? "; choose BF16 or F32" : "; BF16 and F32 hold every finite value");
        }
    }
}
