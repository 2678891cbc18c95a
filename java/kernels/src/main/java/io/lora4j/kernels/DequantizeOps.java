package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Rows of a weight, whatever its format, as fp32.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class DequantizeOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_dequantize_forward_workspace, LoraNative::l4j_dequantize_forward);

    private DequantizeOps() {}

    /** Computes out. */
    public static void forward(Queue queue, Dequantize arguments) {
        queue.run(FORWARD, arguments);
    }
}
