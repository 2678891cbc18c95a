package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Rope, swiglu, embedding, axpby and dequantize. */
class ElementwiseOpsTest {
    private static final int M = 5;
    private static final int N = 35;

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void rope(Isa isa) {
        int heads = 3;
        int d = 12;
        int half = 4; // 8 of 12 elements are rotated
        int positions = 7;
        try (Fixture f = new Fixture(isa)) {
            for (boolean interleaved : new boolean[] {false, true}) {
                Tensor cosine = f.zeros(positions, half);
                Tensor sine = f.zeros(positions, half);
                for (int p = 0; p < positions; p++) {
                    for (int i = 0; i < half; i++) {
                        double angle = p * Math.pow(10000, -i / (double) half);
                        cosine.setFloat(Math.cos(angle), p, i);
                        sine.setFloat(Math.sin(angle), p, i);
                    }
                }
                Tensor src = f.random(M, heads, d);
                Tensor dst = f.poisoned(M, heads, d);
                Tensor where = Tensor.ofInts(f.memory, 0, 1, 2, 3, 4);
                Rope turn = Rope.builder(f.arena)
                        .interleaved(interleaved)
                        .src(src)
                        .dst(dst)
                        .cosine(cosine)
                        .sine(sine)
                        .positions(where)
                        .build();
                Rope back = Rope.builder(f.arena)
                        .interleaved(interleaved)
                        .src(dst)
                        .dst(dst)
                        .cosine(cosine)
                        .sine(sine)
                        .positions(where)
                        .build();
                for (int step = 0; step < 3; step++) {
                    where.copyFrom(new int[] {step, 6 - step, 0, 3, 5});
                    RopeOps.forward(f.queue, turn);
                    double[] expected = src.toDoubleArray();
                    for (int m = 0; m < M; m++) {
                        for (int h = 0; h < heads; h++) {
                            for (int i = 0; i < half; i++) {
                                int first = (m * heads + h) * d + (interleaved ? 2 * i : i);
                                int second = first + (interleaved ? 1 : half);
                                double cos = cosine.getDouble(where.getInt(m), i);
                                double sin = sine.getDouble(where.getInt(m), i);
                                double a = expected[first];
                                double b = expected[second];
                                expected[first] = a * cos - b * sin;
                                expected[second] = b * cos + a * sin;
                            }
                        }
                    }
                    f.assertClose(dst, expected);
                    RopeOps.backward(f.queue, back);
                    f.assertClose(dst, src.toDoubleArray());
                }
                where.setInt(positions, 2);
                assertThatThrownBy(() -> f.complete(() -> RopeOps.forward(f.queue, turn)))
                        .isInstanceOfSatisfying(
                                Lora4jException.class,
                                e -> assertThat(e.status()).isEqualTo(Status.EINVAL));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void swiglu(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor gate = f.random(M, N);
            Tensor up = f.random(M, N);
            Tensor out = f.poisoned(M, N);
            Tensor dout = f.random(M, N);
            Tensor dgate = f.poisoned(M, N);
            Tensor dup = f.poisoned(M, N);
            Swiglu arguments = Swiglu.builder(f.arena)
                    .gate(gate)
                    .up(up)
                    .out(out)
                    .dout(dout)
                    .dgate(dgate)
                    .dup(dup)
                    .build();
            for (int step = 0; step < 3; step++) {
                gate.copyFrom(f.random(M, N));
                SwigluOps.forward(f.queue, arguments);
                SwigluOps.backward(f.queue, arguments);
                double[] g = gate.toDoubleArray();
                double[] u = up.toDoubleArray();
                double[] d = dout.toDoubleArray();
                double[][] expected = new double[3][M * N];
                for (int i = 0; i < M * N; i++) {
                    double s = 1 / (1 + Math.exp(-g[i]));
                    expected[0][i] = g[i] * s * u[i];
                    expected[1][i] = d[i] * u[i] * s * (1 + g[i] * (1 - s));
                    expected[2][i] = d[i] * g[i] * s;
                }
                f.assertClose(out, expected[0]);
                f.assertClose(dgate, expected[1]);
                f.assertClose(dup, expected[2]);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void embedding(Isa isa) {
        int vocabulary = 11;
        try (Fixture f = new Fixture(isa)) {
            Tensor table = f.random(DType.F16, vocabulary, N);
            Tensor ids = Tensor.ofInts(f.memory, 0, 10, 3, 3, 7);
            Tensor out = f.poisoned(M, N);
            Tensor dout = f.random(M, N);
            Tensor dweight = f.zeros(vocabulary, N);
            Embedding arguments = Embedding.builder(f.arena)
                    .weight(f.borrow(table))
                    .ids(ids)
                    .out(out)
                    .dout(dout)
                    .dweight(dweight)
                    .build();
            double[] expected = new double[vocabulary * N];
            for (int step = 0; step < 3; step++) {
                ids.setInt(step, 4);
                EmbeddingOps.forward(f.queue, arguments);
                EmbeddingOps.backward(f.queue, arguments);
                for (int m = 0; m < M; m++) {
                    assertThat(out.select(m).toDoubleArray())
                            .isEqualTo(table.select(ids.getInt(m)).toDoubleArray());
                    for (int n = 0; n < N; n++) {
                        expected[ids.getInt(m) * N + n] += dout.getDouble(m, n);
                    }
                }
                f.assertClose(dweight, expected);
            }
            out.fill(7);
            for (int wrong : new int[] {-1, vocabulary}) {
                ids.setInt(wrong, 1);
                assertThatThrownBy(() -> f.complete(() -> EmbeddingOps.forward(f.queue, arguments)))
                        .isInstanceOf(Lora4jException.class)
                        .hasMessageContaining(String.valueOf(wrong));
                assertThatThrownBy(() -> f.complete(() -> EmbeddingOps.backward(f.queue, arguments)))
                        .isInstanceOf(Lora4jException.class);
            }
            if (f.refusesBeforeWriting) {
                assertThat(out.toFloatArray()).containsOnly(7f);
                f.assertClose(dweight, expected);
            }
            ids.setInt(10, 1);
            f.complete(() -> EmbeddingOps.forward(f.queue, arguments)); // the wrong id is reported once
            for (int m = 0; m < M; m++) {
                assertThat(out.select(m).toDoubleArray())
                        .isEqualTo(table.select(ids.getInt(m)).toDoubleArray());
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void axpby(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor alpha = Tensor.ofFloats(f.memory, 0.5f);
            Tensor beta = Tensor.ofFloats(f.memory, 0f);
            Tensor x = f.random(M, N);
            Tensor y = f.poisoned(M, N); // not read while beta is 0
            Axpby arguments =
                    Axpby.builder(f.arena).alpha(alpha).beta(beta).x(x).y(y).build();
            double[] expected = new double[M * N];
            for (int step = 0; step < 3; step++) {
                AxpbyOps.forward(f.queue, arguments);
                expected = Reference.add(
                        Reference.scale(x.toDoubleArray(), alpha.getFloat(0)),
                        Reference.scale(expected, beta.getFloat(0)));
                f.assertClose(y, expected);
                alpha.setFloat(2, 0);
                beta.setFloat(-0.25, 0);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void dequantize(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            for (DType type : new DType[] {DType.F32, DType.F16, DType.BF16}) {
                Tensor values = f.random(type, 19, N);
                Weight weight = type == DType.F16 ? f.borrow(values) : f.pack(values);
                Tensor out = f.poisoned(4, N);
                Dequantize arguments = Dequantize.builder(f.arena)
                        .weight(weight)
                        .rowBegin(15)
                        .out(out)
                        .build();
                DequantizeOps.forward(f.queue, arguments);
                assertThat(out.toDoubleArray()).isEqualTo(values.rows(15, 19).toDoubleArray());
                assertThatThrownBy(() -> Dequantize.builder(f.arena)
                                .weight(weight)
                                .rowBegin(16)
                                .out(out)
                                .build())
                        .hasMessageContaining("rows [16, 20)");
            }
        }
    }
}
