package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Values as the parts of a quantized weight, with the bits that the format's owner gives.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class QuantizeOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_quantize_forward_workspace, LoraNative::l4j_quantize_forward);

    private QuantizeOps() {}

    /**
     * Writes the parts.
     *
     * @throws NumericException if a value is NaN or Inf, or a block needs a scale beyond fp16; the message names row and column
     */
    public static void forward(Queue queue, Quantize arguments) {
        queue.run(FORWARD, arguments);
    }
}
