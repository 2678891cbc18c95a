package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Cross-entropy of x · weightᵀ without ever holding all logits: rows are taken in chunks, and the gradient of x is formed in the
 * same pass. The weight is frozen.
 *
 * <pre>
 *   loss_m = log Σ_v exp(z_mv) − z_m,target
 *   dx_m   = rowWeight_m · gradScale · (softmax(z_m) − onehot(target_m)) · weight
 * </pre>
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class LinearCrossEntropyOps {
    private static final Kernel FORWARD = new Kernel(
            LoraNative::l4j_linear_cross_entropy_forward_workspace, LoraNative::l4j_linear_cross_entropy_forward);

    private LinearCrossEntropyOps() {}

    /** Computes loss and lse, and predicted and dx where they are given. */
    public static void forward(Queue queue, LinearCrossEntropy arguments) {
        queue.run(FORWARD, arguments);
    }
}
