package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * AdamW (Loshchilov &amp; Hutter 2019), computed as {@code torch.optim.AdamW} does, over all groups in one call. Each group is
 * clipped by its own norm: scale = min(1, maxGradNorm / (norm + 1e-6)). A group whose norm is not finite keeps its parameters and
 * state, and is reported in the {@link NumericStatus}. The state may be held in 8 bits: {@link AdamwMoment}.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class AdamwOps {
    private static final Kernel STEP = new Kernel(LoraNative::l4j_adamw_step_workspace, LoraNative::l4j_adamw_step);

    private AdamwOps() {}

    /** Updates the parameters of all groups. */
    public static void step(Queue queue, Adamw arguments) {
        queue.run(STEP, arguments);
    }
}
