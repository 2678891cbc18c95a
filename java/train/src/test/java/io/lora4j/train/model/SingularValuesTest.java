package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.concurrent.ForkJoinPool;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Singular values and vectors of matrices that are known, and of random ones by what they must fulfil. */
class SingularValuesTest {
    private final Arena arena = Arena.ofShared();

    @AfterEach
    void close() {
        arena.close();
    }

    private Tensor random(int rows, int columns, long seed) {
        Tensor w = Tensor.allocate(arena, DType.F32, rows, columns);
        SplittableRandom random = new SplittableRandom(seed);
        float[] values = new float[rows * columns];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        w.copyFrom(values);
        return w;
    }

    /** Wv = σu, Wᵀu = σv, orthonormal, and no direction is longer: ‖W‖² less Σσ² is what deflation leaves. */
    private static void requireSingular(Tensor w, SingularValues svd, double tolerance) {
        DenseMatrix map = new DenseMatrix(w);
        double[] u = new double[map.rows()];
        double[] v = new double[map.columns()];
        for (int i = 0; i < svd.values().length; i++) {
            map.times(svd.right()[i], u);
            map.transposedTimes(svd.left()[i], v);
            for (int j = 0; j <= i; j++) {
                double one = i == j ? 1 : 0;
                assertThat(Orthogonal.dot(svd.left()[i], svd.left()[j])).isCloseTo(one, within(tolerance));
                assertThat(Orthogonal.dot(svd.right()[i], svd.right()[j])).isCloseTo(one, within(tolerance));
            }
            double scale = tolerance * svd.values()[0];
            for (int n = 0; n < u.length; n++) {
                assertThat(u[n]).isCloseTo(svd.values()[i] * svd.left()[i][n], within(scale));
            }
            for (int k = 0; k < v.length; k++) {
                assertThat(v[k]).isCloseTo(svd.values()[i] * svd.right()[i][k], within(scale));
            }
            assertThat(i == 0 || svd.values()[i] <= svd.values()[i - 1]).isTrue();
            assertThat(Arrays.stream(svd.left()[i]).max().orElseThrow())
                    .isGreaterThanOrEqualTo(-Arrays.stream(svd.left()[i]).min().orElseThrow());
        }
    }

    @ParameterizedTest
    @CsvSource({"40, 70, 5", "70, 40, 40", "200, 120, 16", "1, 9, 1", "9, 1, 1", "33, 33, 33", "130, 300, 8"})
    void fulfilWhatDefinesThem(int rows, int columns, int rank) {
        Tensor w = random(rows, columns, 7);
        SingularValues svd = SingularValues.of(new DenseMatrix(w), rank, "w");
        requireSingular(w, svd, 1e-8);
        // They are the largest: the whole decomposition begins with them, and has the sum of all squares.
        SingularValues all = SingularValues.of(new DenseMatrix(w), Math.min(rows, columns), "another start");
        double squares = 0;
        for (double value : w.toDoubleArray()) {
            squares += value * value;
        }
        assertThat(Arrays.stream(all.values()).map(s -> s * s).sum()).isCloseTo(squares, within(1e-9 * squares));
        for (int i = 0; i < rank; i++) {
            assertThat(svd.values()[i]).isCloseTo(all.values()[i], within(1e-9 * all.values()[0]));
        }
    }

    @Test
    void ofKnownMatrices() {
        Tensor diagonal = Tensor.allocate(arena, DType.F32, 5, 6);
        for (int i = 0; i < 5; i++) {
            diagonal.setFloat(i == 3 ? -7 : i, i, i);
        }
        SingularValues svd = SingularValues.of(new DenseMatrix(diagonal), 5, "w");
        requireSingular(
                diagonal,
                new SingularValues(
                        Arrays.copyOf(svd.values(), 4), Arrays.copyOf(svd.left(), 4), Arrays.copyOf(svd.right(), 4)),
                1e-12);
        assertThat(svd.values()).containsExactly(new double[] {7, 4, 2, 1, 0}, within(1e-12));
        assertThat(svd.left()[0][3]).isCloseTo(1, within(1e-12));
        assertThat(svd.right()[0][3]).isCloseTo(-1, within(1e-12));
        assertThat(svd.left()[4]).containsOnly(0.0);

        Tensor zero = Tensor.allocate(arena, DType.F32, 4, 6);
        SingularValues none = SingularValues.of(new DenseMatrix(zero), 3, "w");
        assertThat(none.values()).containsOnly(0.0);
        assertThat(none.right()[2]).containsOnly(0.0);

        // Equal values: a matrix that gives Lanczos nothing new after one step.
        Tensor same = Tensor.allocate(arena, DType.F32, 60, 60);
        for (int i = 0; i < 60; i++) {
            same.setFloat(3, i, i);
        }
        SingularValues equal = SingularValues.of(new DenseMatrix(same), 4, "w");
        requireSingular(same, equal, 1e-9);
        assertThat(equal.values()).containsExactly(new double[] {3, 3, 3, 3}, within(1e-9));
    }

    /** A product of thin factors: there is nothing beyond its rank. */
    @Test
    void ofLowRank() {
        float[] a = random(3, 50, 1).toFloatArray();
        float[] b = random(80, 3, 2).toFloatArray();
        Tensor w = Tensor.allocate(arena, DType.F32, 80, 50);
        for (int n = 0; n < 80; n++) {
            for (int k = 0; k < 50; k++) {
                w.setFloat(b[3 * n] * a[k] + b[3 * n + 1] * a[50 + k] + b[3 * n + 2] * a[100 + k], n, k);
            }
        }
        SingularValues svd = SingularValues.of(new DenseMatrix(w), 6, "w");
        assertThat(svd.values()[2]).isGreaterThan(1);
        assertThat(svd.values()[3]).isLessThan(1e-5 * svd.values()[0]);
    }

    @Test
    void roughlyComesNearWithMoreRounds() {
        Tensor w = random(90, 140, 5);
        // A spectrum that falls, as that of weights does.
        for (int n = 0; n < 90; n++) {
            for (int k = 0; k < 140; k++) {
                w.setFloat(w.getFloat(n, k) / (1 + n), n, k);
            }
        }
        SingularValues exact = SingularValues.of(new DenseMatrix(w), 6, "w");
        double few = off(exact, SingularValues.roughly(new DenseMatrix(w), 6, 0, "w"));
        double many = off(exact, SingularValues.roughly(new DenseMatrix(w), 6, 16, "w"));
        assertThat(few).isBetween(1e-3, 0.8);
        assertThat(many).isLessThan(few / 20);
        SingularValues converged = SingularValues.roughly(new DenseMatrix(w), 6, 400, "w");
        assertThat(off(exact, converged)).isLessThan(1e-6);
    }

    private static double off(SingularValues exact, SingularValues rough) {
        double most = 0;
        for (int i = 0; i < exact.values().length; i++) {
            assertThat(rough.values()[i]).isLessThanOrEqualTo(exact.values()[i] * (1 + 1e-9));
            most = Math.max(most, 1 - rough.values()[i] / exact.values()[i]);
        }
        return most;
    }

    @Test
    void bitsDependOnNoThreads() {
        Tensor w = random(700, 900, 3);
        SingularValues alone = SingularValues.of(new DenseMatrix(w), 3, "w");
        try (ForkJoinPool pool = new ForkJoinPool(3)) {
            SingularValues shared = pool.submit(() -> SingularValues.of(new DenseMatrix(w), 3, "w"))
                    .join();
            assertThat(shared.values()).isEqualTo(alone.values());
            assertThat(shared.left()).isDeepEqualTo(alone.left());
            assertThat(shared.right()).isDeepEqualTo(alone.right());
        }
    }

    @Test
    void aRankThatIsNotThereIsRefused() {
        DenseMatrix w = new DenseMatrix(random(4, 9, 1));
        assertThatThrownBy(() -> SingularValues.of(w, 5, "w"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("rank 5 of a matrix of 4 by 9");
    }
}
