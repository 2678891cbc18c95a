package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * The gated activation out = silu(gate) ⊙ up, silu(g) = g / (1 + exp(−g)) (Shazeer 2020). Backward computes the sigmoid again.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class SwigluOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_swiglu_forward_workspace, LoraNative::l4j_swiglu_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_swiglu_backward_workspace, LoraNative::l4j_swiglu_backward);

    private SwigluOps() {}

    /** Computes out. */
    public static void forward(Queue queue, Swiglu arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Computes dgate and dup from gate, up and dout. */
    public static void backward(Queue queue, Swiglu arguments) {
        queue.run(BACKWARD, arguments);
    }
}
