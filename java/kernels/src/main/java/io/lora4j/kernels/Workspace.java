package io.lora4j.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Scratch memory of a queue: one block that is replaced by a larger one when an operation needs more. */
final class Workspace {
    private static final long GRANULE = 1 << 16;

    private volatile Arena arena = Arena.ofShared();
    private volatile MemorySegment block = arena.allocate(GRANULE, Tensor.ALIGNMENT);

    long bytes() {
        return block.byteSize();
    }

    MemorySegment atLeast(long bytes) {
        if (bytes > block.byteSize()) {
            grow(bytes);
        }
        return block;
    }

    private void grow(long bytes) {
        long size = Math.ceilDiv(bytes, GRANULE) * GRANULE;
        // The old block goes first: its contents mean nothing, and both at once could be more than there is.
        arena.close();
        arena = Arena.ofShared();
        block = MemorySegment.NULL;
        try {
            block = arena.allocate(size, Tensor.ALIGNMENT);
        } catch (OutOfMemoryError e) {
            throw new Lora4jException(
                    Status.ENOMEM,
                    "the operation needs a workspace of " + size + " bytes, which cannot be allocated ("
                            + e.getMessage() + "). Use smaller batches");
        }
    }

    void close() {
        arena.close();
    }
}
