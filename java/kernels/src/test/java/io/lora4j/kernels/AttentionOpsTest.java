package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Arrays;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class AttentionOpsTest {
    private static final int HQ = 4;
    private static final int HKV = 2;
    private static final int D = 8;
    private static final double SCALE = 0.25;

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void packedSequencesForwardAndBackward(Isa isa) {
        forwardAndBackward(isa, 0);
        forwardAndBackward(isa, 3);
    }

    private static void forwardAndBackward(Isa isa, int window) {
        int rows = 12;
        try (Fixture f = new Fixture(isa)) {
            Tensor offsets = Tensor.ofInts(f.memory, 0, 4, 5, 11);
            Tensor starts = Tensor.ofInts(f.memory, 0, 4, 5);
            Tensor lengths = Tensor.ofInts(f.memory, 4, 1, 6);
            Tensor q = f.random(rows, HQ, D);
            Tensor k = f.random(rows, HKV, D);
            Tensor v = f.random(rows, HKV, D);
            Tensor o = f.poisoned(rows, HQ, D);
            Tensor lse = f.poisoned(rows, HQ);
            Tensor dO = f.random(rows, HQ, D);
            Tensor dq = f.poisoned(rows, HQ, D);
            Tensor dk = f.poisoned(rows, HKV, D);
            Tensor dv = f.poisoned(rows, HKV, D);
            Attention arguments = Attention.builder(f.arena)
                    .window(window)
                    .scale(SCALE)
                    .maxQLength(6)
                    .maxKvLength(6)
                    .qOffsets(offsets)
                    .kvStarts(starts)
                    .kvLengths(lengths)
                    .q(q)
                    .k(k)
                    .v(v)
                    .o(o)
                    .lse(lse)
                    .dO(dO)
                    .dq(dq)
                    .dk(dk)
                    .dv(dv)
                    .build();
            int[][] packings = {{0, 4, 5, 11}, {0, 6, 9, 12}, {0, 1, 2, 5}};
            for (int[] packing : packings) {
                offsets.copyFrom(packing);
                starts.copyFrom(Arrays.copyOf(packing, 3));
                for (int b = 0; b < 3; b++) {
                    lengths.setInt(packing[b + 1] - packing[b], b);
                }
                AttentionOps.forward(f.queue, arguments);
                AttentionOps.backward(f.queue, arguments);
                for (int b = 0; b < 3; b++) {
                    check(f, window, packing[b], packing[b + 1], q, k, v, o, dO, dq, dk, dv);
                }
            }
            lengths.setInt(7, 0);
            assertThatThrownBy(() -> f.complete(() -> AttentionOps.forward(f.queue, arguments)))
                    .isInstanceOf(Lora4jException.class);
        }
    }

    private static void check(Fixture f, int window, int from, int to, Tensor... t) {
        int n = to - from;
        double[] dk = new double[n * HKV * D];
        double[] dv = new double[n * HKV * D];
        for (int h = 0; h < HQ; h++) {
            int g = h / (HQ / HKV);
            double[][] q = head(t[0], from, to, h);
            double[][] k = head(t[1], from, to, g);
            double[][] v = head(t[2], from, to, g);
            double[][] grad = head(t[4], from, to, h);
            double[][] result = Reference.attention(q, k, v, SCALE, window);
            double[] p = result[1];
            double[] dq = new double[n * D];
            for (int i = 0; i < n; i++) {
                double delta = 0;
                for (int e = 0; e < D; e++) {
                    delta += grad[i][e] * result[0][i * D + e];
                }
                for (int j = 0; j <= i; j++) {
                    double dp = 0;
                    for (int e = 0; e < D; e++) {
                        dp += grad[i][e] * v[j][e];
                    }
                    double ds = SCALE * p[i * n + j] * (dp - delta);
                    for (int e = 0; e < D; e++) {
                        dq[i * D + e] += ds * k[j][e];
                        dk[(j * HKV + g) * D + e] += ds * q[i][e];
                        dv[(j * HKV + g) * D + e] += p[i * n + j] * grad[i][e];
                    }
                }
            }
            f.assertClose(t[3].rows(from, to).narrow(1, h, h + 1), result[0]);
            f.assertClose(t[5].rows(from, to).narrow(1, h, h + 1), dq);
        }
        f.assertClose(t[6].rows(from, to), dk);
        f.assertClose(t[7].rows(from, to), dv);
    }

    private static double[][] head(Tensor t, int from, int to, int h) {
        double[][] rows = new double[to - from][];
        for (int i = from; i < to; i++) {
            rows[i - from] = t.select(i).select(h).toDoubleArray();
        }
        return rows;
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void refusesMaximaWhoseWorkspaceWouldOverflow(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(4, HKV, D);
            Attention arguments = Attention.builder(f.arena)
                    .scale(SCALE)
                    .maxQLength(4)
                    .maxKvLength(1L << 61)
                    .qOffsets(Tensor.ofInts(f.memory, 0, 4))
                    .kvStarts(Tensor.ofInts(f.memory, 0))
                    .kvLengths(Tensor.ofInts(f.memory, 4))
                    .q(x)
                    .k(x)
                    .v(x)
                    .o(f.poisoned(4, HKV, D))
                    .build();
            assertThatThrownBy(() -> f.complete(() -> AttentionOps.forward(f.queue, arguments)))
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.EINVAL));
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void decodesWithACacheAsIfAllTokensCameAtOnce(Isa isa) {
        decodes(isa, 0);
        decodes(isa, 4);
    }

    private static void decodes(Isa isa, int window) {
        int steps = 6;
        int capacity = 8;
        try (Fixture f = new Fixture(isa)) {
            Tensor keys = f.random(2L * capacity, HKV, D); // two sequences, each in its half of the cache
            Tensor values = f.random(2L * capacity, HKV, D);
            Tensor queries = f.random(2L * capacity, HQ, D);
            Tensor q = f.zeros(2, HQ, D);
            Tensor o = f.poisoned(2, HQ, D);
            Tensor lengths = Tensor.ofInts(f.memory, 0, 0);
            Attention arguments = Attention.builder(f.arena)
                    .window(window)
                    .scale(SCALE)
                    .maxQLength(1)
                    .maxKvLength(capacity)
                    .qOffsets(Tensor.ofInts(f.memory, 0, 1, 2))
                    .kvStarts(Tensor.ofInts(f.memory, 0, capacity))
                    .kvLengths(lengths)
                    .q(q)
                    .k(keys)
                    .v(values)
                    .o(o)
                    .build();
            for (int i = 0; i < steps; i++) {
                for (int b = 0; b < 2; b++) {
                    lengths.setInt(i + 1, b);
                    q.select(b).copyFrom(queries.select(b * capacity + i));
                }
                AttentionOps.forward(f.queue, arguments);
                for (int b = 0; b < 2; b++) {
                    int from = b * capacity;
                    for (int h = 0; h < HQ; h++) {
                        double[][] all = Reference.attention(
                                head(queries, from, from + i + 1, h),
                                head(keys, from, from + i + 1, h / 2),
                                head(values, from, from + i + 1, h / 2),
                                SCALE,
                                window);
                        f.assertClose(o.select(b).select(h), Arrays.copyOfRange(all[0], i * D, (i + 1) * D));
                    }
                }
            }
            lengths.setInt(0, 0);
            assertThatThrownBy(() -> f.complete(() -> AttentionOps.forward(f.queue, arguments)))
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.EINVAL));
        }
    }
}
