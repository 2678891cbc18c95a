package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * y = alpha · x + beta · y over [M, N].
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class AxpbyOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_axpby_forward_workspace, LoraNative::l4j_axpby_forward);

    private AxpbyOps() {}

    /** Computes y. */
    public static void forward(Queue queue, Axpby arguments) {
        queue.run(FORWARD, arguments);
    }
}
