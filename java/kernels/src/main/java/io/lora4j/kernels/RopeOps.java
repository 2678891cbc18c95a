package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Rotary position embedding (Su et al. 2021): each pair (a, b) of a head becomes (a·cos − b·sin, b·cos + a·sin). The first
 * 2·cosine.size(1) elements of a head are rotated, the others copied.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class RopeOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_rope_forward_workspace, LoraNative::l4j_rope_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_rope_backward_workspace, LoraNative::l4j_rope_backward);

    private RopeOps() {}

    /** Rotates src into dst. */
    public static void forward(Queue queue, Rope arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Rotates src, the gradient of the rotated tensor, the other way into dst. */
    public static void backward(Queue queue, Rope arguments) {
        queue.run(BACKWARD, arguments);
    }
}
