package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class RmsNormOpsTest {
    private static final int M = 4;
    private static final int N = 37;
    private static final double EPS = 1e-5;

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void threeStepsWithTheSameArguments(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, N);
            Tensor residual = f.random(M, N);
            Tensor weight = f.random(DType.BF16, N);
            Tensor h = f.poisoned(M, N);
            Tensor y = f.poisoned(M, N);
            Tensor rstd = f.poisoned(M);
            Tensor dy = f.random(M, N);
            Tensor dresidual = f.random(M, N);
            Tensor dx = f.poisoned(M, N);
            Tensor dweight = f.zeros(N);
            RmsNorm arguments = RmsNorm.builder(f.arena)
                    .eps(EPS)
                    .x(x)
                    .residual(residual)
                    .weight(weight)
                    .h(h)
                    .y(y)
                    .rstd(rstd)
                    .dy(dy)
                    .dresidual(dresidual)
                    .dx(dx)
                    .dweight(dweight)
                    .build();
            double[] dw = new double[N];
            for (int step = 0; step < 3; step++) {
                x.copyFrom(f.random(M, N));
                RmsNormOps.forward(f.queue, arguments);
                RmsNormOps.backward(f.queue, arguments);
                check(f, arguments, step, dw, x, residual, weight, h, y, rstd, dy, dresidual, dx, dweight);
            }
        }
    }

    private static void check(Fixture f, RmsNorm arguments, int step, double[] dw, Tensor... t) {
        double[] sum = Reference.add(t[0].toDoubleArray(), t[1].toDoubleArray());
        double[] w = t[2].toDoubleArray();
        double[] dy = t[6].toDoubleArray();
        double[] y = new double[M * N];
        double[] rstd = new double[M];
        double[] dx = t[7].toDoubleArray();
        for (int m = 0; m < M; m++) {
            double squares = 0;
            double dot = 0;
            for (int n = 0; n < N; n++) {
                squares += sum[m * N + n] * sum[m * N + n];
                dot += w[n] * dy[m * N + n] * sum[m * N + n];
            }
            rstd[m] = 1 / Math.sqrt(squares / N + EPS);
            for (int n = 0; n < N; n++) {
                int i = m * N + n;
                y[i] = sum[i] * rstd[m] * w[n];
                dx[i] += rstd[m] * (w[n] * dy[i] - sum[i] * rstd[m] * rstd[m] * dot / N);
                dw[n] += dy[i] * sum[i] * rstd[m];
            }
        }
        f.assertClose(t[3], sum);
        f.assertClose(t[4], y);
        f.assertClose(t[5], rstd);
        f.assertClose(t[8], dx);
        f.assertClose(t[9], dw);
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void inPlaceWithoutResidual(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, N);
            double[] before = x.toDoubleArray();
            Tensor weight = f.random(DType.F32, N);
            RmsNormOps.forward(
                    f.queue,
                    RmsNorm.builder(f.arena)
                            .eps(EPS)
                            .x(x)
                            .weight(weight)
                            .y(x)
                            .rstd(f.zeros(M))
                            .build());
            double[] expected = new double[M * N];
            for (int m = 0; m < M; m++) {
                double squares = 0;
                for (int n = 0; n < N; n++) {
                    squares += before[m * N + n] * before[m * N + n];
                }
                for (int n = 0; n < N; n++) {
                    expected[m * N + n] = before[m * N + n] / Math.sqrt(squares / N + EPS) * weight.toDoubleArray()[n];
                }
            }
            f.assertClose(x, expected);
        }
    }

    @Test
    void refusesWhatDoesNotFit() {
        try (Fixture f = new Fixture(Isa.REF)) {
            RmsNorm.Builder builder = RmsNorm.builder(f.arena)
                    .x(f.random(M, N))
                    .weight(f.random(N))
                    .y(f.zeros(M, N));
            assertThatThrownBy(() -> builder.rstd(f.zeros(M + 1)).build())
                    .hasMessage("rms_norm.rstd: expected the shape [4], found F32[5]");
            assertThatThrownBy(() -> builder.x(f.random(N)).build())
                    .hasMessage("rms_norm.x: expected 2 dimensions, found F32[37]");
        }
    }
}
