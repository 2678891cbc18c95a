package io.lora4j.train.model;

import org.jspecify.annotations.Nullable;

/** Measures how well a model, with or without an adapter, predicts the targets of batches. Threads: as for the model. */
public final class Evaluator {
    private Evaluator() {}

    /**
     * Returns loss, perplexity and accuracy over all target tokens of all batches. Dropout is off.
     *
     * @param adapter null for the base model
     */
    public static BatchLoss evaluate(LlamaModel model, Iterable<Batch> batches, @Nullable Adapter adapter) {
        BatchLoss sum = BatchLoss.NONE;
        for (Batch batch : batches) {
            sum = sum.plus(model.loss(batch, adapter));
        }
        return sum;
    }
}
