package io.lora4j.train.model;

/**
 * How the next token is drawn: the logits are divided by the temperature, then the k most likely tokens are kept, then the smallest
 * set of them whose probabilities reach p.
 *
 * @param temperature 0 = greedy: the most likely token, the lowest id of a tie; the rest has no effect then
 * @param topK 0 = off
 * @param topP 0 &lt; p ≤ 1; 1 = off
 * @param seed with the position of a token it determines the draw
 */
public record Sampling(double temperature, int topK, double topP, long seed) {
    /** Always the most likely token. */
    public static final Sampling GREEDY = new Sampling(0, 0, 1, 0);

    /** Checks the ranges. */
    public Sampling {
        if (!(temperature >= 0) || Double.isInfinite(temperature)) {
            throw new IllegalArgumentException(
                    "temperature is " + temperature + "; expected a number >= 0 (0 = greedy)");
        }
        if (topK < 0) {
            throw new IllegalArgumentException("top_k is " + topK + "; expected an integer >= 0 (0 = off)");
        }
        if (!(topP > 0 && topP <= 1)) {
            throw new IllegalArgumentException("top_p is " + topP + "; expected 0 < top_p <= 1 (1 = off)");
        }
    }
}
