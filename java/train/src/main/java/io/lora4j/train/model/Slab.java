package io.lora4j.train.model;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * Hands out tensors one after another from one block of memory. Without a block it only counts: its tensors have the right shapes,
 * but all their elements are one and the same, so that they are good for asking and not for computing.
 */
final class Slab {
    private static final MemorySegment NOTHING = Arena.global().allocate(Long.BYTES, Tensor.ALIGNMENT);

    private final @Nullable MemorySegment block;
    private long next;
    private long used;

    private Slab(@Nullable MemorySegment block) {
        this.block = block;
    }

    static Slab counting() {
        return new Slab(null);
    }

    Tensor take(DType dtype, long... shape) {
        long bytes = dtype.bytes();
        for (long size : shape) {
            bytes = Math.multiplyExact(bytes, size);
        }
        long at = next;
        next = Math.addExact(at, Math.ceilDiv(bytes, Tensor.ALIGNMENT) * Tensor.ALIGNMENT);
        used = Math.max(used, next);
        if (block == null) {
            return Tensor.strided(NOTHING, 0, dtype, shape, new long[shape.length]);
        }
        return Tensor.of(block.asSlice(at, bytes), dtype, shape);
    }

    Tensor ints(int[] values) {
        Tensor tensor = take(DType.I32, values.length);
        if (block != null) {
            tensor.copyFrom(values);
        }
        return tensor;
    }

    Tensor floats(float[] values) {
        Tensor tensor = take(DType.F32, values.length);
        if (block != null) {
            tensor.copyFrom(values);
        }
        return tensor;
    }

    /** Returns where the next tensor will lie. */
    long mark() {
        return next;
    }

    /** Hands out the memory from a mark on once more: what lies there from now on and what lay there must not be needed together. */
    void again(long mark) {
        next = mark;
    }

    /** Ends {@link #again}: the next tensor lies behind everything so far. */
    void further() {
        next = used;
    }

    /** Returns the bytes handed out so far. */
    long used() {
        return used;
    }

    /** A block that serves one pass after another and is replaced by a larger one when a pass needs more. */
    static final class Block implements AutoCloseable {
        private Arena arena = Arena.ofShared();
        private MemorySegment memory = MemorySegment.NULL;

        /** Starts afresh with at least this many bytes; what an earlier slab handed out must not be used any more. */
        Slab restart(long bytes) {
            if (bytes > memory.byteSize()) {
                // The old block goes first: both at once could be more than there is.
                arena.close();
                arena = Arena.ofShared();
                memory = MemorySegment.NULL;
                memory = arena.allocate(bytes, Tensor.ALIGNMENT);
            }
            return new Slab(memory);
        }

        long bytes() {
            return memory.byteSize();
        }

        @Override
        public void close() {
            arena.close();
        }
    }
}
