package io.lora4j.kernels;

import java.lang.foreign.MemorySegment;

/** Scratch memory of a queue's device: one block that is replaced by a larger one when an operation needs more. */
final class Workspace {
    private static final long GRANULE = 1 << 16;

    private final Device device;
    private final MemorySegment owner;
    private MemorySegment block = MemorySegment.NULL;
    private volatile long bytes;

    Workspace(Device device) {
        this.device = device;
        this.owner = device.acquire();
    }

    long bytes() {
        return bytes;
    }

    /** At least so many bytes; of a GPU's memory the address alone means something. */
    MemorySegment atLeast(long needed) {
        if (needed > bytes) {
            grow(needed);
        }
        return block;
    }

    private void grow(long needed) {
        long size = Math.ceilDiv(needed, GRANULE) * GRANULE;
        free(); // first: its contents mean nothing, and both at once could be more than there is
        try {
            block = DeviceMemory.allocate(owner, size);
            bytes = size;
        } catch (Lora4jException e) {
            throw new Lora4jException(
                    e.status(),
                    "the operation needs a workspace of " + size + " bytes, which cannot be allocated ("
                            + e.getMessage() + "). Use smaller batches");
        }
    }

    private void free() {
        MemorySegment old = block;
        block = MemorySegment.NULL;
        bytes = 0;
        DeviceMemory.free(owner, old); // NULL is fine; on a GPU it waits for the work that uses it
    }

    void close() {
        try {
            free();
        } finally {
            device.release();
        }
    }
}
