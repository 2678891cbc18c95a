package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;

/**
 * Rows of a table: out[m] = weight[ids[m]], and backward dweight[ids[m]] += dout[m], rows in ascending order. An id outside the table
 * is refused before anything is written.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class EmbeddingOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_embedding_forward_workspace, LoraNative::l4j_embedding_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_embedding_backward_workspace, LoraNative::l4j_embedding_backward);

    private EmbeddingOps() {}

    /** Computes out. */
    public static void forward(Queue queue, Embedding arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Adds dout to the rows of dweight. */
    public static void backward(Queue queue, Embedding arguments) {
        queue.run(BACKWARD, arguments);
    }
}
