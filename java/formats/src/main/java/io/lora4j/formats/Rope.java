package io.lora4j.formats;

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
     * Reads {@code rope_parameters} (transformers 5) or {@code rope_theta} and {@code rope_scaling} (transformers 4).
     */
    static Rope read(Fields config) throws FormatException {
        Fields parameters = config.object("rope_parameters");
        Fields scaling = config.object("rope_scaling");
        double theta = config.number("rope_theta", 10000);
        Fields rope = parameters != null ? parameters : scaling;
        if (rope == null) {
            return new Default(positive(config, theta));
        }
        theta = positive(config, rope.number("rope_theta", theta));
        String type = rope.text("rope_type");
        String legacy = rope.text("type");
        type = type != null ? type : legacy != null ? legacy : "default";
        if (rope.number("partial_rotary_factor", 1) != 1) {
            throw rope.error("\"partial_rotary_factor\" is " + rope.number("partial_rotary_factor", 1)
                    + "; supported is rotation of the whole head (1.0)");
        }
        Rope read = switch (type) {
            case "default" -> new Default(theta);
            case "llama3" -> llama3(rope, theta);
            default ->
                throw rope.error(
                        "rope type \"" + type + "\" is not supported; supported are \"default\" and \"llama3\"");
        };
        rope.refuseTheRest();
        return read;
    }

    private static Rope llama3(Fields rope, double theta) throws FormatException {
        Llama3 llama3 = new Llama3(
                theta,
                rope.number("factor"),
                rope.number("low_freq_factor"),
                rope.number("high_freq_factor"),
                rope.count("original_max_position_embeddings"));
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
