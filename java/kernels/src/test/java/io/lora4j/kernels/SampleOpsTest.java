package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class SampleOpsTest {
    private static final int ROWS = 2000;
    private static final double[] PROBABILITIES = {0.1, 0.05, 0.5, 0.3, 0.05};

    /** Every row has the same logits; the row is part of the random number. */
    private static final class Draws {
        final SampleHyper hyper;
        final Tensor logits;
        final Tensor ids;
        final Sample arguments;
        final Fixture f;

        Draws(Fixture f) {
            this.f = f;
            hyper = SampleHyper.allocate(f.memory).seed(11);
            logits = f.zeros(ROWS, PROBABILITIES.length);
            for (int i = 0; i < PROBABILITIES.length; i++) {
                logits.columns(i, i + 1).fill(Math.log(PROBABILITIES[i]));
            }
            ids = Tensor.allocate(f.memory, DType.I32, ROWS);
            arguments =
                    Sample.builder(f.arena).logits(logits).hyper(hyper).ids(ids).build();
        }

        double[] frequencies() {
            ids.copyFrom(new int[ROWS]);
            SampleOps.forward(f.queue, arguments);
            double[] counts = new double[PROBABILITIES.length];
            for (int id : ids.toIntArray()) {
                counts[id]++;
            }
            return Reference.scale(counts, 1.0 / ROWS);
        }

        void assertFrequencies(double... expected) {
            double[] found = frequencies();
            for (int i = 0; i < expected.length; i++) {
                double sigma = Math.sqrt(expected[i] * (1 - expected[i]) / ROWS);
                assertThat(Math.abs(found[i] - expected[i]))
                        .as("token %d: %s, expected %s", i, found[i], expected[i])
                        .isLessThanOrEqualTo(5 * sigma);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void drawsWhatTheSettingsSay(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Draws draws = new Draws(f);
            draws.assertFrequencies(0, 0, 1, 0, 0); // greedy
            draws.hyper.temperature(1);
            draws.assertFrequencies(PROBABILITIES);
            draws.hyper.topK(2);
            draws.assertFrequencies(0, 0, 0.625, 0.375, 0);
            draws.hyper.topK(0).topP(0.85);
            draws.assertFrequencies(0.1 / 0.9, 0, 0.5 / 0.9, 0.3 / 0.9, 0);
            draws.hyper.topP(1).temperature(0.5);
            double sum = 0;
            for (double p : PROBABILITIES) {
                sum += p * p;
            }
            draws.assertFrequencies(0.01 / sum, 0.0025 / sum, 0.25 / sum, 0.09 / sum, 0.0025 / sum);
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void repeatsWithSeedAndStep(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Draws draws = new Draws(f);
            draws.hyper.temperature(1).step(3);
            draws.frequencies();
            int[] first = draws.ids.toIntArray();
            draws.frequencies();
            assertThat(draws.ids.toIntArray()).isEqualTo(first);
            draws.hyper.step(4);
            draws.frequencies();
            assertThat(draws.ids.toIntArray()).isNotEqualTo(first);
            draws.hyper.step(3).seed(12);
            draws.frequencies();
            assertThat(draws.ids.toIntArray()).isNotEqualTo(first);
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void greedyTakesTheFirstOfATieAndRefusesNan(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Draws draws = new Draws(f);
            draws.logits.columns(1, 4).fill(5);
            draws.assertFrequencies(0, 1, 0, 0, 0);
            draws.logits.setFloat(Double.NaN, 17, 0);
            assertThatThrownBy(draws::frequencies)
                    .isInstanceOfSatisfying(
                            NumericException.class, e -> assertThat(e.status()).isEqualTo(Status.ENUMERIC));
        }
    }
}
