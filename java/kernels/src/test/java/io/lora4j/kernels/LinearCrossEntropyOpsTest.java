package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class LinearCrossEntropyOpsTest {
    private static final int M = 7;
    private static final int K = 21;
    private static final int V = 50;

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void threeStepsWithTheSameArguments(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, K);
            Tensor weight = f.random(DType.F32, V, K);
            Tensor targets = Tensor.ofInts(f.memory, 0, -100, 49, 7, 7, -100, 1);
            Tensor rowWeight = Tensor.ofFloats(f.memory, 1, 1, 0.5f, 2, 0, 1, 1);
            Tensor gradScale = Tensor.ofFloats(f.memory, 1);
            Tensor loss = f.poisoned(M);
            Tensor lse = f.poisoned(M);
            Tensor predicted = Tensor.allocate(f.memory, DType.I32, M);
            Tensor dx = f.poisoned(M, K);
            LinearCrossEntropy arguments = LinearCrossEntropy.builder(f.arena)
                    .x(x)
                    .weight(f.pack(weight))
                    .targets(targets)
                    .rowWeight(rowWeight)
                    .gradScale(gradScale)
                    .loss(loss)
                    .lse(lse)
                    .predicted(predicted)
                    .dx(dx)
                    .build();
            for (int step = 1; step <= 3; step++) {
                targets.setInt(step, 0);
                gradScale.setFloat(0.5 * step, 0);
                LinearCrossEntropyOps.forward(f.queue, arguments);
                double[] logits = Reference.multiply(
                        x.toDoubleArray(), Reference.transpose(weight.toDoubleArray(), V, K), M, K, V);
                double[] expectedLoss = new double[M];
                double[] expectedLse = new double[M];
                double[] dz = new double[M * V];
                for (int m = 0; m < M; m++) {
                    int target = targets.getInt(m);
                    if (target == -100) {
                        assertThat(predicted.getInt(m)).isEqualTo(-1);
                        continue;
                    }
                    double sum = 0;
                    int best = 0;
                    for (int v = 0; v < V; v++) {
                        sum += Math.exp(logits[m * V + v]);
                        best = logits[m * V + v] > logits[m * V + best] ? v : best;
                    }
                    expectedLse[m] = Math.log(sum);
                    expectedLoss[m] = expectedLse[m] - logits[m * V + target];
                    assertThat(predicted.getInt(m)).isEqualTo(best);
                    for (int v = 0; v < V; v++) {
                        double p = Math.exp(logits[m * V + v]) / sum;
                        dz[m * V + v] = rowWeight.getFloat(m) * gradScale.getFloat(0) * (p - (v == target ? 1 : 0));
                    }
                }
                f.assertClose(loss, expectedLoss);
                f.assertClose(lse, expectedLse);
                f.assertClose(dx, Reference.multiply(dz, weight.toDoubleArray(), M, V, K));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void lossOnlyAndWrongTargets(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor targets = Tensor.ofInts(f.memory, 1, 2, V, 4, 5, 6, 7);
            Tensor loss = f.poisoned(M);
            LinearCrossEntropy arguments = LinearCrossEntropy.builder(f.arena)
                    .x(f.random(M, K))
                    .weight(f.borrow(f.random(DType.BF16, V, K)))
                    .targets(targets)
                    .loss(loss)
                    .lse(f.zeros(M))
                    .build();
            assertThatThrownBy(() -> f.complete(() -> LinearCrossEntropyOps.forward(f.queue, arguments)))
                    .isInstanceOf(Lora4jException.class)
                    .hasMessageContaining("50");
            if (f.refusesBeforeWriting) {
                assertThat(loss.toDoubleArray()).as("nothing written").containsOnly(Double.NaN);
            }
            targets.setInt(3, 2);
            f.complete(() -> LinearCrossEntropyOps.forward(f.queue, arguments)); // the wrong target is reported once
            for (double value : loss.toDoubleArray()) {
                assertThat(value).isPositive();
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void nonFiniteActivationsAreReported(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, K);
            x.setFloat(Double.NaN, 3, 5);
            NumericStatus numeric = NumericStatus.allocate(f.memory);
            LinearCrossEntropyOps.forward(
                    f.queue,
                    LinearCrossEntropy.builder(f.arena)
                            .x(x)
                            .weight(f.pack(f.random(DType.F32, V, K)))
                            .targets(Tensor.ofInts(f.memory, 1, 2, 3, 4, 5, 6, 7))
                            .step(Tensor.ofLongs(f.memory, 12))
                            .loss(f.zeros(M))
                            .lse(f.zeros(M))
                            .dx(f.zeros(M, K))
                            .numeric(numeric)
                            .build());
            assertThat(numeric.operation()).isEqualTo(NumericStatus.Operation.LINEAR_CROSS_ENTROPY);
            assertThat(numeric.tensor()).isEqualTo(3);
            assertThat(numeric.step()).isEqualTo(12);
            assertThat(numeric).hasToString("non-finite value in linear_cross_entropy, row 3, step 12");
            numeric.clear();
            assertThat(numeric.isSet()).isFalse();
        }
    }
}
