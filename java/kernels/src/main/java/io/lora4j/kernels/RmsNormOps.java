package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Root-mean-square norm (Zhang &amp; Sennrich 2019):
 *
 * <pre>
 *   forward    h = x + residual;  rstd = 1 / sqrt(mean(h²) + eps);  y = (h · rstd) · weight
 *   backward   dx = dresidual + rstd · (weight ⊙ dy − h · rstd² · mean(weight ⊙ dy ⊙ h));  dweight += Σ dy · (h · rstd)
 * </pre>
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class RmsNormOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_rms_norm_forward_workspace, LoraNative::l4j_rms_norm_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_rms_norm_backward_workspace, LoraNative::l4j_rms_norm_backward);

    private RmsNormOps() {}

    /** Computes h, y and rstd. */
    public static void forward(Queue queue, RmsNorm arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Computes dx and dweight from h, rstd and dy. */
    public static void backward(Queue queue, RmsNorm arguments) {
        queue.run(BACKWARD, arguments);
    }
}
