package io.lora4j.kernels;

import static io.lora4j.kernels.Reference.add;
import static io.lora4j.kernels.Reference.multiply;
import static io.lora4j.kernels.Reference.scale;
import static io.lora4j.kernels.Reference.times;
import static io.lora4j.kernels.Reference.transpose;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class LoraOpsTest {
    private static final int M = 5;
    private static final int K = 37;
    private static final int R = 3;
    private static final int[] N = {18, 7, 33};
    private static final boolean[] ADAPTED = {true, false, true};
    private static final double DROPOUT = 0.5; // 1 / (1 − p) is exact in fp32
    private static final long SEED = 0x0123456789abcdefL;

    /** Three projections that share x: one with bias and adapter, one without adapter, one with. */
    private static final class Group {
        final Fixture f;
        final Tensor x;
        final Tensor dx;
        final List<Tensor> w = new ArrayList<>();
        final List<Tensor> a = new ArrayList<>();
        final List<Tensor> b = new ArrayList<>();
        final List<Tensor> y = new ArrayList<>();
        final List<Tensor> s = new ArrayList<>();
        final List<Tensor> dy = new ArrayList<>();
        final List<Tensor> da = new ArrayList<>();
        final List<Tensor> db = new ArrayList<>();
        final Tensor bias;
        final Tensor scaling;
        final Tensor seed;
        final Tensor step;
        final Tensor tokens;
        final Lora arguments;

        Group(Fixture f, double dropout) {
            this.f = f;
            x = f.random(M, K);
            dx = f.poisoned(M, K);
            bias = f.random(DType.F32, N[0]);
            scaling = Tensor.ofFloats(f.memory, 2, 1, 0.5f);
            seed = Tensor.ofLongs(f.memory, SEED);
            step = Tensor.ofLongs(f.memory, 0);
            tokens = Tensor.ofInts(f.memory, 4, 0, 17, -1, 3);
            Lora.Builder builder =
                    Lora.builder(f.arena).x(x).dx(dx).scaling(scaling).accumulateGrads(true);
            if (dropout > 0) {
                builder.dropout(dropout, seed, step, tokens, 9);
            }
            for (int g = 0; g < N.length; g++) {
                w.add(f.random(g == 2 ? DType.BF16 : DType.F32, N[g], K));
                y.add(f.poisoned(M, N[g]));
                dy.add(f.random(M, N[g]));
                a.add(f.random(R, K));
                b.add(f.random(N[g], R));
                s.add(f.poisoned(M, R));
                da.add(f.zeros(R, K));
                db.add(f.zeros(N[g], R));
                builder.projection(g == 1 ? f.borrow(w.get(g)) : f.pack(w.get(g)))
                        .bias(g == 0 ? bias : null)
                        .y(y.get(g))
                        .dy(dy.get(g));
                if (ADAPTED[g]) {
                    builder.adapter(a.get(g), b.get(g), 100 + g).s(s.get(g)).gradients(da.get(g), db.get(g));
                }
            }
            arguments = builder.build();
        }

        double[] mask(int g, double dropout) {
            double[] mask = new double[M * K];
            for (int m = 0; m < M; m++) {
                int[] bits = LoraOps.dropoutBits(SEED, step.getLong(0), tokens.getInt(m), 100 + g, 9, K);
                for (int k = 0; k < K; k++) {
                    mask[m * K + k] = bits[k] >= Math.round(65536 * dropout) ? 1 : 0;
                }
            }
            return mask;
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void threeStepsWithTheSameArguments(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Group group = new Group(f, DROPOUT);
            double[][] da = new double[N.length][R * K];
            double[][] db = new double[N.length][];
            for (int step = 1; step <= 3; step++) {
                group.step.setLong(step, 0);
                group.scaling.setFloat(2 * step, 0);
                group.dx.fill(Double.NaN);
                LoraOps.forward(f.queue, group.arguments);
                LoraOps.backward(f.queue, group.arguments);

                double[] x = group.x.toDoubleArray();
                double[] dx = new double[M * K];
                for (int g = 0; g < N.length; g++) {
                    double[] w = group.w.get(g).toDoubleArray();
                    double[] dy = group.dy.get(g).toDoubleArray();
                    double[] y = multiply(x, transpose(w, N[g], K), M, K, N[g]);
                    if (g == 0) {
                        double[] bias = group.bias.toDoubleArray();
                        for (int i = 0; i < y.length; i++) {
                            y[i] += bias[i % N[g]];
                        }
                    }
                    dx = add(dx, multiply(dy, w, M, N[g], K));
                    if (ADAPTED[g]) {
                        double c = group.scaling.getFloat(g) / (1 - DROPOUT);
                        double[] mask = group.mask(g, DROPOUT);
                        double[] kept = times(x, mask);
                        double[] a = group.a.get(g).toDoubleArray();
                        double[] b = group.b.get(g).toDoubleArray();
                        double[] s = scale(multiply(kept, transpose(a, R, K), M, K, R), c);
                        double[] ds = scale(multiply(dy, b, M, N[g], R), c);
                        y = add(y, multiply(s, transpose(b, N[g], R), M, R, N[g]));
                        dx = add(dx, times(multiply(ds, a, M, R, K), mask));
                        da[g] = add(da[g], multiply(transpose(ds, M, R), kept, R, M, K));
                        double[] oneStep = multiply(transpose(dy, M, N[g]), s, N[g], M, R);
                        db[g] = step == 1 ? oneStep : add(db[g], oneStep);
                        f.assertClose(group.s.get(g), s);
                        f.assertClose(group.da.get(g), da[g]);
                        f.assertClose(group.db.get(g), db[g]);
                    }
                    f.assertClose(group.y.get(g), y);
                }
                f.assertClose(group.dx, dx);
            }
        }
    }

    @Test
    void everyTierAndThreadCountGivesTheSameBits() {
        List<float[]> expected = null;
        for (Isa isa : Fixture.fp32Tiers()) {
            for (int threads = 1; threads <= 3; threads++) {
                try (Fixture f = new Fixture(isa, threads)) {
                    Group group = new Group(f, 0.1);
                    LoraOps.forward(f.queue, group.arguments);
                    LoraOps.backward(f.queue, group.arguments);
                    List<float[]> found = new ArrayList<>();
                    found.add(group.dx.toFloatArray());
                    for (List<Tensor> tensors : List.of(group.y, group.da, group.db)) {
                        tensors.forEach(t -> found.add(t.toFloatArray()));
                    }
                    expected = expected == null ? found : expected;
                    for (int i = 0; i < found.size(); i++) {
                        assertThat(found.get(i))
                                .as("%s, %d threads", isa, threads)
                                .isEqualTo(expected.get(i));
                    }
                }
            }
        }
    }

    /** Two adapters and rows without one in a batch: each has the bits that its rows alone would have. */
    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void adaptersInOneBatchAreIndependent(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, K);
            Tensor dy = f.random(M, 8);
            Weight w = f.pack(f.random(DType.F32, 8, K));
            int[] ranks = {2, 5};
            int[][] rows = {{0, 2}, {3, 5}}; // row 2 has none
            Tensor together = f.zeros(M, 8);
            Tensor dx = f.poisoned(M, K);
            Tensor scaling = Tensor.ofFloats(f.memory, 2, 0.5f);
            Tensor seed = Tensor.ofLongs(f.memory, SEED);
            Tensor step = Tensor.ofLongs(f.memory, 3);
            Tensor tokens = Tensor.ofInts(f.memory, 4, 0, 17, -1, 3);
            Lora.Builder batch = Lora.builder(f.arena)
                    .x(x)
                    .dx(dx)
                    .scaling(scaling)
                    .dropout(DROPOUT, seed, step, tokens, 7, 9)
                    .segments(
                            Tensor.ofInts(f.memory, 3),
                            Tensor.ofInts(f.memory, 0, 2, 3, 5, -1),
                            Tensor.ofInts(f.memory, 0, -1, 1, -1))
                    .projection(w)
                    .y(together)
                    .s(f.poisoned(M, 5))
                    .dy(dy);
            List<Tensor> gradients = new ArrayList<>();
            List<Tensor> expected = new ArrayList<>();
            for (int i = 0; i < 2; i++) {
                Tensor a = f.random(ranks[i], K);
                Tensor b = f.random(8, ranks[i]);
                Tensor da = f.poisoned(ranks[i], K);
                Tensor db = f.poisoned(8, ranks[i]);
                batch.adapter(i, a, b, 100).gradients(i, da, db);
                gradients.addAll(List.of(da, db));
                int from = rows[i][0];
                int to = rows[i][1];
                Tensor y = f.poisoned(to - from, 8);
                Tensor oneDx = f.poisoned(to - from, K);
                Tensor oneDa = f.poisoned(ranks[i], K);
                Tensor oneDb = f.poisoned(8, ranks[i]);
                Lora alone = Lora.builder(f.arena)
                        .x(x.rows(from, to))
                        .dx(oneDx)
                        .scaling(Tensor.ofFloats(f.memory, scaling.getFloat(i)))
                        .dropout(DROPOUT, seed, step, Tensor.ofInts(f.memory, ints(tokens, from, to)), 7 + 2 * i)
                        .projection(w)
                        .adapter(a, b, 100)
                        .y(y)
                        .s(f.poisoned(to - from, ranks[i]))
                        .dy(dy.rows(from, to))
                        .gradients(oneDa, oneDb)
                        .build();
                LoraOps.forward(f.queue, alone);
                LoraOps.backward(f.queue, alone);
                expected.addAll(List.of(oneDa, oneDb, y, oneDx));
            }
            Lora arguments = batch.build();
            LoraOps.forward(f.queue, arguments);
            LoraOps.backward(f.queue, arguments);
            for (int i = 0; i < 2; i++) {
                int from = rows[i][0];
                int to = rows[i][1];
                List<Tensor> found = List.of(
                        gradients.get(2 * i), gradients.get(2 * i + 1), together.rows(from, to), dx.rows(from, to));
                for (int j = 0; j < found.size(); j++) {
                    assertThat(found.get(j).toDoubleArray())
                            .as("adapter %d, output %d", i, j)
                            .isEqualTo(expected.get(4 * i + j).toDoubleArray());
                }
            }
        }
    }

    private static int[] ints(Tensor tensor, int from, int to) {
        int[] values = new int[to - from];
        for (int i = from; i < to; i++) {
            values[i - from] = tensor.getInt(i);
        }
        return values;
    }

    @Test
    void refusesSeveralAdaptersThatDoNotFit() {
        try (Fixture f = new Fixture(Isa.REF)) {
            Weight w = f.pack(f.random(DType.F32, 8, K));
            Lora.Builder two = Lora.builder(f.arena)
                    .x(f.random(M, K))
                    .scaling(Tensor.ofFloats(f.memory, 1, 1))
                    .projection(w)
                    .adapter(0, f.random(2, K), f.random(8, 2), 0)
                    .adapter(1, f.random(3, K), f.random(8, 3), 0)
                    .y(f.zeros(M, 8))
                    .s(f.zeros(M, 3));
            assertInvalid(two, "lora.segments: are missing; 2 adapters need them");
            Tensor one = Tensor.ofInts(f.memory, 1);
            assertInvalid(
                    two.segments(one, Tensor.ofInts(f.memory, 0), one), "lora.segment offsets: expected contiguous");
            Tensor none = Tensor.ofInts(f.memory, -1);
            two.segments(one, Tensor.ofInts(f.memory, 0, M), none).build();
            assertInvalid(two.s(f.zeros(M, 2)), "lora.s[0]: expected the shape [5, 3]");
            assertInvalid(
                    two.s(f.zeros(M, 3)).scaling(Tensor.ofFloats(f.memory, 1)), "lora.scaling: expected contiguous");
            Lora wrong = two.scaling(Tensor.ofFloats(f.memory, 1, 1))
                    .segments(one, Tensor.ofInts(f.memory, 0, M - 1), none)
                    .build();
            assertThatThrownBy(() -> LoraOps.forward(f.queue, wrong))
                    .isInstanceOf(Lora4jException.class)
                    .hasMessageContaining("the segments end at row 4, but x has 5 rows");
        }
    }

    @Test
    void plainProductWithStridedInput() {
        try (Fixture f = new Fixture(Isa.AUTO)) {
            Tensor x = f.random(M, 2 * K).columns(K, 2 * K);
            Tensor w = f.random(DType.F16, 8, K);
            Tensor y = f.poisoned(M, 20).columns(3, 11);
            LoraOps.forward(
                    f.queue,
                    Lora.builder(f.arena).x(x).projection(f.borrow(w)).y(y).build());
            f.assertClose(y, multiply(x.toDoubleArray(), transpose(w.toDoubleArray(), 8, K), M, K, 8));
        }
    }

    @Test
    void dropoutBitsAreThoseOfTheDefinition() {
        int[] bits = LoraOps.dropoutBits(SEED, 5, 7, 3, 1, 100);
        for (int k = 0; k < bits.length; k++) {
            assertThat(bits[k]).as("column %d", k).isEqualTo(Reference.dropoutBits(SEED, 5, 7, 3, 1, k));
        }
    }

    @Test
    void refusesWhatDoesNotFit() {
        try (Fixture f = new Fixture(Isa.REF)) {
            Tensor x = f.random(M, K);
            Weight w = f.pack(f.random(DType.F32, 8, K));
            assertInvalid(Lora.builder(f.arena).projection(w).y(f.zeros(M, 8)), "lora.x is missing");
            assertInvalid(Lora.builder(f.arena).x(x), "1 to 16 projections, found 0");
            assertInvalid(
                    Lora.builder(f.arena).x(x).projection(w).y(f.zeros(M, 9)),
                    "lora.y[0]: expected the shape [5, 8], found F32[5, 9]");
            assertInvalid(
                    Lora.builder(f.arena).x(f.random(M, K + 1)).projection(w).y(f.zeros(M, 8)),
                    "expected K = 38 columns");
            Lora.Builder adapted = Lora.builder(f.arena)
                    .x(x)
                    .projection(w)
                    .adapter(f.random(R, K), f.random(8, R), 0)
                    .y(f.zeros(M, 8))
                    .s(f.zeros(M, R));
            assertInvalid(adapted, "lora.scaling is missing");
            adapted.scaling(Tensor.ofFloats(f.memory, 1, 1));
            assertInvalid(adapted, "lora.scaling: expected contiguous F32[1], found F32[2]");
            adapted.scaling(Tensor.ofFloats(f.memory, 1));
            Tensor one = Tensor.ofLongs(f.memory, 1);
            adapted.dropout(0.5, one, one, Tensor.ofInts(f.memory, 1, 2, 3, 4), 0);
            assertInvalid(adapted, "lora.token index: expected contiguous I32[5], found I32[4]");
            assertThatThrownBy(() -> Lora.builder(f.arena).x(x).y(x)).isInstanceOf(IllegalStateException.class);
        }
    }

    private static void assertInvalid(Lora.Builder builder, String message) {
        assertThatThrownBy(builder::build)
                .isInstanceOfSatisfying(
                        Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.EINVAL))
                .hasMessageContaining(message);
    }
}
