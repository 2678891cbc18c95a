package io.lora4j.train.model;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import org.jspecify.annotations.Nullable;

/** Targets, losses and predictions of the tokens of a pass. */
final class Losses {
    /** Token ids or {@link Batch#IGNORE}, [M]. */
    final Tensor targets;
    /** Factors of the losses' gradients, [M], or null. */
    final @Nullable Tensor rowWeight;
    /** Cross-entropy of each token, without its weight, [M]. */
    final Tensor loss;
    /** Log-sum-exp of each token's logits, [M]. */
    final Tensor lse;
    /** The most likely token, [M]. */
    final Tensor predicted;

    Losses(Slab slab, DType real, Batch batch) {
        targets = slab.ints(batch.targets());
        float[] weights = batch.rowWeight();
        rowWeight = weights == null ? null : slab.floats(weights);
        loss = slab.take(real, batch.tokens());
        lse = slab.take(real, batch.tokens());
        predicted = slab.take(DType.I32, batch.tokens());
    }

    /** Takes what the constructor takes for this many tokens without weights. */
    static void count(Slab counting, DType real, int tokens) {
        counting.take(DType.I32, tokens);
        counting.take(real, tokens);
        counting.take(real, tokens);
        counting.take(DType.I32, tokens);
    }

    BatchLoss sum(Batch batch) {
        double[] losses = loss.toDoubleArray();
        int[] ids = predicted.toIntArray();
        float[] weights = batch.rowWeight();
        double sum = 0;
        long targetTokens = 0;
        long correct = 0;
        for (int row = 0; row < losses.length; row++) {
            int target = batch.targets()[row];
            if (target != Batch.IGNORE) {
                sum += weights == null ? losses[row] : weights[row] * losses[row];
                targetTokens++;
                correct += ids[row] == target ? 1 : 0;
            }
        }
        return new BatchLoss(sum, targetTokens, correct);
    }
}
