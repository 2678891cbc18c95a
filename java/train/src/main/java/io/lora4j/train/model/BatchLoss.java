package io.lora4j.train.model;

/**
 * What a pass over a batch says about its predictions.
 *
 * @param lossSum cross-entropy in nats, summed in fp64 over the tokens that have a target, each times its weight where the batch
 *     has weights
 * @param targetTokens number of tokens that have a target
 * @param correct how many of them the model's most likely token predicts
 */
public record BatchLoss(double lossSum, long targetTokens, long correct) {
    /** Nothing yet: the start of a sum. */
    public static final BatchLoss NONE = new BatchLoss(0, 0, 0);

    /** Returns this and another together. */
    public BatchLoss plus(BatchLoss other) {
        return new BatchLoss(lossSum + other.lossSum, targetTokens + other.targetTokens, correct + other.correct);
    }

    /** Returns the mean loss of a target token; NaN if there is none. */
    public double meanLoss() {
        return targetTokens == 0 ? Double.NaN : lossSum / targetTokens;
    }

    /** Returns e to the mean loss. */
    public double perplexity() {
        return Math.exp(meanLoss());
    }

    /** Returns the part of the target tokens that the most likely token predicts; NaN if there is none. */
    public double accuracy() {
        return targetTokens == 0 ? Double.NaN : (double) correct / targetTokens;
    }
}
