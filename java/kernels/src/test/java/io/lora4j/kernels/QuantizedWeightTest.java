package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.offset;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Weights of several parts: quantized on the CPU, opened on a CPU or a GPU, decoded, multiplied. What the bits are, the native tests and
 * their owners' values say.
 */
class QuantizedWeightTest {
    private static final int N = 6;
    private static final int K = 256;
    private static final int BLOCK = 64;

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#weightDevices")
    void ggufBlocks(Isa isa) {
        try (Fixture f = new Fixture(isa);
                Fixture cpu = new Fixture(Isa.AUTO)) {
            Tensor x = cpu.random(N, K);
            Tensor blocks = q8Blocks(cpu, x);
            Weight.Builder parts = Weight.builder(Scheme.GGUF_Q8_0, N, K).part(Part.VALUES, blocks);
            try (Weight borrowed = parts.borrow(cpu.device);
                    Weight packed = parts.pack(f.queue)) {
                assertThat(borrowed.bytesHeld()).isZero();
                // Rows lie side by side, in sixteens; and some bytes behind, which a vector may read.
                assertThat(packed.bytesHeld()).isBetween(blocks.bytes(), blocks.bytes() / N * 16 + 128);
                assertThat(packed.scheme()).isEqualTo(Scheme.GGUF_Q8_0);
                assertThat(packed).hasToString("weight GGUF_Q8_0[6, 256]");
                float[] values = decode(cpu, borrowed);
                assertThat(decode(f, packed)).isEqualTo(values);
                float[] source = x.toFloatArray();
                for (int i = 0; i < values.length; i++) {
                    // Half a step of 1/127 of the largest of 32 normal values.
                    assertThat(values[i]).isCloseTo(source[i], offset(0.02f));
                }
                assertThat(values).isNotEqualTo(source);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#fp32Tiers")
    void productsInBytes(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor blocks = Tensor.allocate(f.arena, DType.U8, N, K / 32 * 34);
            QuantizeOps.forward(
                    f.queue,
                    Quantize.builder(f.arena)
                            .scheme(Scheme.GGUF_Q8_0)
                            .x(f.random(N, K))
                            .part(Part.VALUES, blocks)
                            .build());
            Tensor x = f.random(3, K);
            try (Weight weight = Weight.builder(Scheme.GGUF_Q8_0, N, K)
                    .part(Part.VALUES, blocks)
                    .pack(f.queue)) {
                float[] exact = product(f, weight, x, Compute.F32);
                float[] got = product(f, weight, x, Compute.INT8);
                assertThat(got).isNotEqualTo(exact);
                for (int i = 0; i < got.length; i++) {
                    // Sums of 256 products of normal values, each rounded to some 1/127.
                    assertThat(got[i]).isCloseTo(exact[i], offset(0.7f));
                }
                Lora backward = Lora.builder(f.arena)
                        .x(x)
                        .dx(f.poisoned(3, K))
                        .projection(weight)
                        .y(f.poisoned(3, N))
                        .dy(f.random(3, N))
                        .compute(Compute.INT8)
                        .build();
                assertThatThrownBy(() -> LoraOps.backward(f.queue, backward))
                        .isInstanceOfSatisfying(
                                Lora4jException.class,
                                e -> assertThat(e.status()).isEqualTo(Status.ENOTSUP))
                        .hasMessageContaining("L4J_COMPUTE_INT8, which is for inference");
            }
        }
    }

    private static float[] product(Fixture f, Weight weight, Tensor x, Compute compute) {
        Tensor y = f.poisoned(x.shape()[0], weight.rows());
        Lora.Builder call = Lora.builder(f.arena).x(x).compute(compute);
        LoraOps.forward(f.queue, call.projection(weight).y(y).build());
        return y.toFloatArray();
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#weightDevices")
    void doublyQuantizedNf4(Isa isa) {
        try (Fixture f = new Fixture(isa);
                Fixture cpu = new Fixture(Isa.AUTO)) {
            int blocks = N * K / BLOCK;
            Tensor x = cpu.random(N, K);
            Tensor codes = Tensor.allocate(f.arena, DType.U8, N * K / 2);
            Tensor scales = Tensor.allocate(f.arena, DType.U8, blocks);
            Tensor size = Tensor.ofLongs(f.arena, BLOCK);
            Tensor map = Tensor.allocate(f.arena, DType.F32, 16);
            Tensor nestedScales = Tensor.allocate(f.arena, DType.F32, 1);
            Tensor nestedMap = Tensor.allocate(f.arena, DType.F32, 256);
            Tensor offset = Tensor.allocate(f.arena, DType.F32, 1);
            Tensor nestedSize = Tensor.ofLongs(f.arena, 256);
            Quantize.Builder quantize = Quantize.builder(f.arena)
                    .scheme(Scheme.NF4)
                    .x(x)
                    .part(Part.VALUES, codes)
                    .part(Part.SCALES, scales)
                    .part(Part.BLOCK_SIZE, size)
                    .part(Part.QUANT_MAP, map)
                    .part(Part.NESTED_SCALES, nestedScales)
                    .part(Part.NESTED_QUANT_MAP, nestedMap)
                    .part(Part.NESTED_OFFSET, offset)
                    .part(Part.NESTED_BLOCK_SIZE, nestedSize);
            QuantizeOps.forward(cpu.queue, quantize.build());
            float mean = offset.getFloat(0);
            assertThat(mean).isBetween(1f, 4f); // The largest of 64 normal values.
            assertThat(map.getFloat(0)).isEqualTo(-1f);

            Weight.Builder parts = Weight.builder(Scheme.NF4, N, K)
                    .part(Part.VALUES, codes)
                    .part(Part.SCALES, scales)
                    .part(Part.BLOCK_SIZE, size)
                    .part(Part.QUANT_MAP, map)
                    .part(Part.NESTED_SCALES, nestedScales)
                    .part(Part.NESTED_QUANT_MAP, nestedMap)
                    .part(Part.NESTED_OFFSET, offset)
                    .part(Part.NESTED_BLOCK_SIZE, nestedSize);
            try (Weight weight = parts.pack(f.queue)) {
                float[] values = decode(f, weight);
                for (int i = 0; i < values.length; i++) {
                    float absmax =
                            nestedMap.getFloat(Byte.toUnsignedInt(byteAt(scales, i / BLOCK))) * nestedScales.getFloat(0)
                                    + mean;
                    int pair = Byte.toUnsignedInt(byteAt(codes, i / 2));
                    assertThat(values[i]).isEqualTo(map.getFloat(i % 2 == 0 ? pair >> 4 : pair & 15) * absmax);
                }
            }
            offset.setFloat(mean / 2, 0);
            QuantizeOps.forward(cpu.queue, quantize.givenOffset().build());
            assertThat(offset.getFloat(0)).isEqualTo(mean / 2);
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#fp32Tiers")
    void misfits(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor blocks = Tensor.allocate(f.arena, DType.U8, N, K / 32 * 34);
            assertThatThrownBy(() -> Weight.builder(Scheme.GGUF_Q8_0, N, K).borrow(f.device))
                    .isInstanceOf(Lora4jException.class)
                    .hasMessage("weight.VALUES is missing");
            assertThatThrownBy(() -> Weight.builder(Scheme.GGUF_Q4_0, N, K)
                            .part(Part.VALUES, blocks)
                            .borrow(f.device))
                    .isInstanceOf(Lora4jException.class);
            assertThatThrownBy(() -> Weight.builder(Scheme.GGUF_Q8_0, N, K)
                            .part(Part.VALUES, blocks)
                            .part(Part.ZEROS, blocks)
                            .pack(f.queue))
                    .isInstanceOf(Lora4jException.class);
            Quantize.Builder quantize = Quantize.builder(f.arena).part(Part.VALUES, blocks);
            assertThatThrownBy(quantize::build).hasMessage("quantize.x is missing");
            assertThatThrownBy(quantize.x(f.random(N, K))::build).hasMessage("quantize.scheme is missing");
            Quantize other = quantize.scheme(Scheme.GGUF_Q5_1).build();
            assertThatThrownBy(() -> QuantizeOps.forward(f.queue, other))
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.ENOTSUP));
            Tensor fixed = Tensor.of(blocks.data().asReadOnly(), DType.U8, blocks.shape());
            assertThatThrownBy(quantize.scheme(Scheme.GGUF_Q8_0).part(Part.VALUES, fixed)::build)
                    .hasMessageContaining("read-only");
            Tensor spoilt = f.random(N, K);
            spoilt.setFloat(Float.NaN, 3, 200);
            Quantize bad = quantize.part(Part.VALUES, blocks).x(spoilt).build();
            assertThatThrownBy(() -> QuantizeOps.forward(f.queue, bad))
                    .isInstanceOf(NumericException.class)
                    .hasMessageContaining("3")
                    .hasMessageContaining("200");
        }
    }

    /** The same bits as from the decoded weight, forward and backward, with one exception that NUMERICS.md names: few rows in BF16. */
    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#weightDevices")
    void products(Isa isa) {
        try (Fixture f = new Fixture(isa);
                Fixture cpu = new Fixture(Isa.AUTO)) {
            Tensor blocks = q8Blocks(cpu, cpu.random(N, K));
            Weight packed = Weight.builder(Scheme.GGUF_Q8_0, N, K)
                    .part(Part.VALUES, blocks)
                    .pack(f.queue);
            Tensor values = f.poisoned(N, K);
            DequantizeOps.forward(
                    f.queue,
                    Dequantize.builder(f.arena).weight(packed).out(values).build());
            Weight dense = f.pack(values);
            for (DType type : isa == Isa.CUDA ? new DType[] {DType.F32, DType.BF16} : new DType[] {DType.F32}) {
                for (int rows : new int[] {type == DType.BF16 ? 65 : 5, 70}) {
                    Tensor x = f.random(type, rows, K);
                    Tensor dy = f.random(type, rows, N);
                    float[][] expected = product(f, dense, type, x, dy);
                    float[][] found = product(f, packed, type, x, dy);
                    assertThat(found[0]).isEqualTo(expected[0]);
                    assertThat(found[1]).isEqualTo(expected[1]);
                }
            }
            packed.close();
        }
    }

    @Test
    void aGpuCopiesTheParts() {
        assumeTrue(Fixture.GPU_MISSING == null, Fixture.GPU_MISSING);
        try (Fixture f = new Fixture(Isa.CUDA);
                Fixture cpu = new Fixture(Isa.AUTO)) {
            Weight.Builder parts =
                    Weight.builder(Scheme.GGUF_Q8_0, N, K).part(Part.VALUES, q8Blocks(cpu, cpu.random(N, K)));
            assertThatThrownBy(() -> parts.borrow(f.device))
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.ENOTSUP))
                    .hasMessageContaining("expected L4J_WEIGHT_PACK");
        }
    }

    /** y and dx. */
    private static float[][] product(Fixture f, Weight weight, DType type, Tensor x, Tensor dy) {
        Tensor y = Tensor.allocate(f.memory, type, x.size(0), N);
        Tensor dx = Tensor.allocate(f.memory, type, x.size(0), K);
        y.fill(Double.NaN);
        dx.fill(Double.NaN);
        LoraOps.forward(
                f.queue, Lora.builder(f.arena).x(x).projection(weight).y(y).build());
        LoraOps.backward(
                f.queue,
                Lora.builder(f.arena).x(x).projection(weight).dy(dy).dx(dx).build());
        return new float[][] {y.toFloatArray(), dx.toFloatArray()};
    }

    private static Tensor q8Blocks(Fixture cpu, Tensor x) {
        Tensor blocks = Tensor.allocate(cpu.arena, DType.U8, N, K / 32 * 34);
        QuantizeOps.forward(
                cpu.queue,
                Quantize.builder(cpu.arena)
                        .scheme(Scheme.GGUF_Q8_0)
                        .x(x)
                        .part(Part.VALUES, blocks)
                        .build());
        return blocks;
    }

    private static byte byteAt(Tensor bytes, long at) {
        MemorySegment data = bytes.data();
        return data.get(ValueLayout.JAVA_BYTE, at);
    }

    private static float[] decode(Fixture f, Weight weight) {
        Tensor out = f.poisoned(weight.rows(), weight.cols());
        DequantizeOps.forward(
                f.queue, Dequantize.builder(f.arena).weight(weight).out(out).build());
        return out.toFloatArray();
    }
}
