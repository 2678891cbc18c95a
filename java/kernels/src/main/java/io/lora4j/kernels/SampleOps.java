package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Draws one token for each row of logits: temperature, then the k most likely, then the smallest set that reaches p, in the order of
 * transformers. Random numbers are Philox4x32-10 of (seed, step, row), so a draw can be repeated anywhere. A NaN among the logits is a
 * {@link NumericException}.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class SampleOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_sample_forward_workspace, LoraNative::l4j_sample_forward);

    private SampleOps() {}

    /** Computes ids. */
    public static void forward(Queue queue, Sample arguments) {
        queue.run(FORWARD, arguments);
    }
}
