package io.lora4j.formats;

import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** How rotary position embeddings turn positions into angles. Immutable. */
public sealed interface Rope {

    /** Returns the base of the frequencies: frequency i is {@code theta^(-2i/head_dim)}. */
    double theta();

    /**
     * The frequencies as they are.
     *
     * @param theta base of the frequencies
     */
    record Default(double theta) implements Rope {}

    /**
     * Position interpolation (Chen et al. 2023): every frequency is divided by {@code factor}.
     *
     * @param theta base of the frequencies
     * @param factor divisor of the frequencies
     */
    record Linear(double theta, double factor) implements Rope {}

    /**
     * Llama 3's scaling: frequencies whose wavelength is above {@code originalContext / lowFreqFactor} are divided by
     * {@code factor}, those below {@code originalContext / highFreqFactor} stay, those between are interpolated.
     *
     * @param theta base of the frequencies
     * @param factor divisor of the low frequencies
     * @param lowFreqFactor bounds the scaled wavelengths
     * @param highFreqFactor bounds the unscaled wavelengths
     * @param originalContext context length before scaling, {@code original_max_position_embeddings}
     */
    record Llama3(double theta, double factor, double lowFreqFactor, double highFreqFactor, int originalContext)
            implements Rope {}

    /**
     * A divisor for each frequency: what GGUF files have in {@code rope_freqs.weight} for Llama 3's scaling.
     *
     * @param theta base of the frequencies
     * @param divisors one for each pair of a head, in float32: [head_dim / 2]
     */
    record Divided(double theta, List<Float> divisors) implements Rope {
        /** Copies the list. */
        public Divided {
            divisors = List.copyOf(divisors);
        }
    }

    /**
     * Reads {@code rope_parameters} (transformers 5) or {@code rope_theta} and {@code rope_scaling} (transformers 4).
     *
     * @param maxPositions {@code max_position_embeddings}
     */
    static Rope read(Fields config, int maxPositions) throws FormatException {
        double theta = config.number("rope_theta", ModelFamily.ROPE_THETA);
        Integer original = config.countOrNull("original_max_position_embeddings");
        Fields parameters = config.object("rope_parameters");
        Fields scaling = config.object("rope_scaling");
        if (parameters == null && scaling == null) {
            return new Default(positive(config, theta));
        }
        Rope five = parameters == null ? null : read(parameters, theta, original, maxPositions);
        Rope four = scaling == null ? null : read(scaling, five == null ? theta : five.theta(), original, maxPositions);
        if (five != null && four != null && !five.equals(four)) {
            throw config.error("rope_parameters says " + five + " and rope_scaling " + four + "; remove one of them");
        }
        return Objects.requireNonNull(five != null ? five : four);
    }

    private static Rope read(Fields rope, double outerTheta, @Nullable Integer outerOriginal, int maxPositions)
            throws FormatException {
        double theta = positive(rope, rope.number("rope_theta", outerTheta));
        String type = rope.text("rope_type");
        String legacy = rope.text("type");
        type = type != null ? type : legacy != null ? legacy : "default";
        if (rope.number("partial_rotary_factor", 1) != 1) {
            throw rope.error("\"partial_rotary_factor\" is " + rope.number("partial_rotary_factor", 1)
                    + "; supported is rotation of the whole head (1.0)");
        }
        Rope read = switch (type) {
            case "default" -> new Default(theta);
            case "linear" -> linear(rope, theta);
            case "llama3" -> llama3(rope, theta, outerOriginal, maxPositions);
            default ->
                throw rope.error("rope type \"" + type
                        + "\" is not supported; supported are \"default\", \"linear\" and \"llama3\"");
        };
        rope.refuseTheRest();
        return read;
    }

    private static Rope linear(Fields rope, double theta) throws FormatException {
        double factor = rope.number("factor");
        if (factor <= 0) {
            throw rope.error("\"factor\" is " + factor + "; expected a positive number");
        }
        return new Linear(theta, factor);
    }

    private static Rope llama3(Fields rope, double theta, @Nullable Integer outerOriginal, int maxPositions)
            throws FormatException {
        int otherwise = outerOriginal != null ? outerOriginal : maxPositions;
        int original = rope.count("original_max_position_embeddings", otherwise);
        if (outerOriginal != null && original != outerOriginal) {
            throw rope.error("\"original_max_position_embeddings\" is " + original + ", but " + outerOriginal
                    + " outside of it; remove one of them");
        }
        Llama3 llama3 = new Llama3(
                theta,
                rope.number("factor"),
                rope.number("low_freq_factor"),
                rope.number("high_freq_factor"),
                original);
        if (llama3.factor < 1 || llama3.lowFreqFactor <= 0 || llama3.highFreqFactor <= llama3.lowFreqFactor) {
            throw rope.error("factor " + llama3.factor + ", low_freq_factor " + llama3.lowFreqFactor
                    + ", high_freq_factor " + llama3.highFreqFactor
                    + "; expected factor >= 1 and 0 < low_freq_factor < high_freq_factor");
        }
        return llama3;
    }

    private static double positive(Fields config, double theta) throws FormatException {
        if (theta <= 0) {
            throw config.error("rope_theta is " + theta + "; expected a positive number");
        }
        return theta;
    }
}
