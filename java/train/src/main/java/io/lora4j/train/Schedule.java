package io.lora4j.train;

/**
 * The learning rate of every step, as transformers' schedules of the same names compute it. Immutable.
 *
 * @param type how it goes on after warm-up
 * @param learningRate the highest rate
 * @param warmupSteps steps over which it rises from 0
 * @param totalSteps optimizer steps of the whole run
 */
public record Schedule(Type type, double learningRate, int warmupSteps, int totalSteps) {

    /** The shapes. */
    public enum Type {
        /** Down to 0 on a line. */
        LINEAR,
        /** Down to 0 on half a cosine. */
        COSINE,
        /** Always the same, without warm-up. */
        CONSTANT,
        /** Always the same after warm-up. */
        CONSTANT_WITH_WARMUP
    }

    /**
     * Returns the rate of a step: the same bits on every machine, which {@link Math#cos} does not promise.
     *
     * @param step the optimizer step, 1 for the first; with warm-up that one has the rate 0, as in transformers
     */
    public double at(int step) {
        int done = step - 1;
        if (type == Type.CONSTANT) {
            return learningRate;
        }
        if (done < warmupSteps) {
            return learningRate * ((double) done / Math.max(1, warmupSteps));
        }
        double length = Math.max(1, totalSteps - warmupSteps);
        return learningRate
                * switch (type) {
                    case LINEAR -> Math.max(0, (totalSteps - done) / length);
                    case COSINE -> Math.max(0, 0.5 * (1 + StrictMath.cos(Math.PI * (done - warmupSteps) / length)));
                    case CONSTANT, CONSTANT_WITH_WARMUP -> 1;
                };
    }
}
