package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

/** Comparison with other software's numbers: ‖x − ref‖₂ / ‖ref‖₂ of a tensor, |x − ref| / |ref| of a number. */
final class GoldenAssert {
    private GoldenAssert() {}

    static void close(String what, double[] actual, double[] expected, double tolerance) {
        assertThat(actual).as("length of %s", what).hasSize(expected.length);
        double difference = 0;
        double square = 0;
        double worst = 0;
        double largest = 0;
        for (int i = 0; i < actual.length; i++) {
            double d = Math.abs(actual[i] - expected[i]);
            difference += d * d;
            square += expected[i] * expected[i];
            worst = Math.max(worst, d);
            largest = Math.max(largest, Math.abs(expected[i]));
            assertThat(d).as("%s[%s]", what, i).isNotNaN();
        }
        assertThat(Math.sqrt(difference)).as("‖Δ‖ of %s", what).isLessThanOrEqualTo(tolerance * Math.sqrt(square));
        assertThat(worst).as("largest |Δ| of %s", what).isLessThanOrEqualTo(10 * tolerance * largest);
    }

    static void close(String what, double actual, double expected, double tolerance) {
        assertThat(Math.abs(actual - expected) / Math.abs(expected))
                .as("relative difference of %s: %s, expected %s", what, actual, expected)
                .isLessThanOrEqualTo(tolerance);
    }
}
