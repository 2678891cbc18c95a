package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * The low-rank linear layer, fused with its frozen base (Hu et al. 2021). For projection g of a group, with
 * c = scaling / (1 − p):
 *
 * <pre>
 *   forward    s  = c · (mask ⊙ x) · Aᵀ              kept for backward
 *              y  = bias + x · Wᵀ + s · Bᵀ
 *   backward   ds = c · dy · B
 *              dB += dyᵀ · s
 *              dA += dsᵀ · (mask ⊙ x)
 *              dx  = Σ mask ⊙ (ds · A) + Σ dy · W    over the projections
 * </pre>
 *
 * Without adapters this is the plain product with a weight, and with its transpose.
 *
 * <p>Threads: see {@link Queue}; the arguments are used by one thread at a time.
 */
public final class LoraOps {
    private static final Kernel FORWARD =
            new Kernel(LoraNative::l4j_lora_forward_workspace, LoraNative::l4j_lora_forward);
    private static final Kernel BACKWARD =
            new Kernel(LoraNative::l4j_lora_backward_workspace, LoraNative::l4j_lora_backward);

    private LoraOps() {}

    /** Computes y, and s of the projections with an adapter. */
    public static void forward(Queue queue, Lora arguments) {
        queue.run(FORWARD, arguments);
    }

    /** Computes dx, and da and db of the projections with an adapter, from x, s and dy. */
    public static void backward(Queue queue, Lora arguments) {
        queue.run(BACKWARD, arguments);
    }

    /**
     * Returns the random numbers that decide about dropout for one token: column k is dropped when the value is less than
     * round(65536 p).
     *
     * @return [columns], each 0 to 65535
     */
    public static int[] dropoutBits(long seed, long step, int tokenIndex, int moduleId, int adapterId, int columns) {
        NativeLibrary.load();
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment out = arena.allocate(ValueLayout.JAVA_SHORT, columns);
            error.check(LoraNative.l4j_philox_mask16(
                    seed, step, tokenIndex, moduleId, adapterId, columns, out, error.segment()));
            int[] bits = new int[columns];
            for (int k = 0; k < columns; k++) {
                bits[k] = out.getAtIndex(ValueLayout.JAVA_SHORT, k) & 0xffff;
            }
            return bits;
        }
    }
}
