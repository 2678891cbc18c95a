package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Sample;
import io.lora4j.kernels.SampleHyper;
import io.lora4j.kernels.SampleOps;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Drawn tokens against the exact distributions of transformers' warpers, {@code test-data/sampling}: chi-squared at p = 1e-6. The
 * seed is fixed, so a case passes always or never.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class SamplingDistributionTest {
    /** Draws are rows of some calls that differ in their step. */
    private static final int ROWS = 100;

    private static final int STEPS = 300;
    private static final JsonNode DATA = read();

    private final Device device = Device.cpu();
    private final Queue queue = Queue.create(device, 2);

    private static JsonNode read() {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data/sampling/sampling.json");
        return JsonMapper.shared().readTree(file);
    }

    @AfterAll
    void close() {
        queue.close();
        device.close();
    }

    static Stream<JsonNode> cases() {
        return DATA.path("cases").values().stream();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void tokensAreAsFrequentAsTheyShould(JsonNode expected) {
        double[] probabilities = probabilities(expected);
        int[] counts = draw(expected);
        for (int id = 0; id < counts.length; id++) {
            assertThat(counts[id] > 0 && probabilities[id] == 0)
                    .as("token %s is drawn but not allowed", id)
                    .isFalse();
        }
        Fit fit = Fit.of(counts, probabilities);
        assertThat(fit.chi2()).isLessThanOrEqualTo(fit.criticalValue());
    }

    /** The same test finds a temperature that is 10 % off, and two tokens whose probabilities are off by a fifth of the lesser one. */
    @Test
    void slightlyWrongDistributionsAreFound() {
        JsonNode plain = cases().filter(c -> c.path("logits").asString().equals("distinct")
                        && c.path("temperature").doubleValue() == 1
                        && c.path("top_k").intValue() == 0
                        && c.path("top_p").doubleValue() == 1)
                .findFirst()
                .orElseThrow();
        int[] counts = draw(plain);
        double[] cooler = probabilities(plain);
        double sum = 0;
        for (int id = 0; id < cooler.length; id++) {
            cooler[id] = Math.pow(cooler[id], 1.1);
            sum += cooler[id];
        }
        for (int id = 0; id < cooler.length; id++) {
            cooler[id] /= sum;
        }
        Fit fit = Fit.of(counts, cooler);
        assertThat(fit.chi2()).isGreaterThan(fit.criticalValue());
        double[] shifted = probabilities(plain);
        int[] likely = {0, 0};
        for (int id = 0; id < shifted.length; id++) {
            if (shifted[id] > shifted[likely[0]]) {
                likely[1] = likely[0];
                likely[0] = id;
            }
        }
        double moved = 0.2 * shifted[likely[1]];
        shifted[likely[0]] += moved;
        shifted[likely[1]] -= moved;
        Fit other = Fit.of(counts, shifted);
        assertThat(other.chi2()).isGreaterThan(other.criticalValue());
    }

    /** χ² of counts, cells with fewer than ten expected draws thrown together, and the value it exceeds with p = 1e-6. */
    private record Fit(double chi2, double criticalValue) {
        static Fit of(int[] counts, double[] probabilities) {
            int draws = Arrays.stream(counts).sum();
            double chi2 = 0;
            double restExpected = 0;
            double rest = 0;
            int cells = 0;
            for (int id = 0; id < counts.length; id++) {
                double mean = probabilities[id] * draws;
                if (mean < 10) {
                    restExpected += mean;
                    rest += counts[id];
                } else {
                    chi2 += (counts[id] - mean) * (counts[id] - mean) / mean;
                    cells++;
                }
            }
            if (restExpected >= 5) {
                chi2 += (rest - restExpected) * (rest - restExpected) / restExpected;
                cells++;
            }
            // One cell alone has all draws: any difference is a fault.
            double critical = cells == 1
                    ? 0
                    : DATA.path("critical_values").path(cells - 2).doubleValue();
            return new Fit(chi2, critical);
        }
    }

    private static double[] probabilities(JsonNode expected) {
        double[] all = new double
                [DATA.path("logits").path(expected.path("logits").asString()).size()];
        for (int i = 0; i < expected.path("ids").size(); i++) {
            all[expected.path("ids").path(i).intValue()] =
                    expected.path("probabilities").path(i).doubleValue();
        }
        return all;
    }

    /** Returns how often each token was drawn. */
    private int[] draw(JsonNode settings) {
        JsonNode values = DATA.path("logits").path(settings.path("logits").asString());
        int[] counts = new int[values.size()];
        try (Arena arena = Arena.ofConfined()) {
            float[] row = new float[values.size()];
            for (int id = 0; id < row.length; id++) {
                row[id] = values.path(id).floatValue();
            }
            Tensor logits = Tensor.allocate(arena, DType.F32, ROWS, row.length);
            for (int m = 0; m < ROWS; m++) {
                logits.select(m).copyFrom(row);
            }
            Tensor ids = Tensor.allocate(arena, DType.I32, ROWS);
            SampleHyper hyper = SampleHyper.allocate(arena)
                    .temperature(settings.path("temperature").doubleValue())
                    .topK(settings.path("top_k").intValue())
                    .topP(settings.path("top_p").doubleValue())
                    .seed(2026);
            Sample sample =
                    Sample.builder(arena).logits(logits).hyper(hyper).ids(ids).build();
            for (int step = 0; step < STEPS; step++) {
                hyper.step(step);
                SampleOps.forward(queue, sample);
                for (int m = 0; m < ROWS; m++) {
                    counts[ids.getInt(m)]++;
                }
            }
        }
        return counts;
    }
}
