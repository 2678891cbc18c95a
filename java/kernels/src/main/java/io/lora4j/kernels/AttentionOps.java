package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Scaled dot-product attention over packed sequences, grouped-query: query head h reads key/value head h / (Hq / Hkv). The same
 * call serves training (keys = queries), prefill and decoding with a cache.
 *
 * <pre>
 *   forward    z = scale · q · kᵀ;  p = softmax(z);  o = p · v;  lse = log Σ exp(z)
 *   backward   dq, dk and dv of the rows that the sequences cover are overwritten, other rows left alone
 * </pre>
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class AttentionOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_attention_forward_workspace, LoraNative::l4j_attention_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_attention_backward_workspace, LoraNative::l4j_attention_backward);

    private AttentionOps() {}

    /** Computes o, and lse where it is given. A query that sees no key is refused. */
    public static void forward(Queue queue, Attention arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Computes dq, dk and dv from q, k, v, o, lse and dO. */
    public static void backward(Queue queue, Attention arguments) {
        queue.run(BACKWARD, arguments);
    }
}
