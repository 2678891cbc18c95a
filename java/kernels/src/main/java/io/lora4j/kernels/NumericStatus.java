package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_numeric_status;
import java.lang.foreign.SegmentAllocator;

/**
 * Where the first non-finite value was seen. {@link #clear} it before a step; an operation writes it only while it is clear.
 *
 * <p>Threads: as for the arena; read it after the operation has returned.
 */
public final class NumericStatus {
    /** The operations that report non-finite values. */
    public enum Operation {
        /** Nothing was seen. */
        NONE,
        /** {@link LinearCrossEntropyOps}; {@link NumericStatus#tensor} is the row. */
        LINEAR_CROSS_ENTROPY,
        /** {@link AdamwOps}; {@link NumericStatus#tensor} is the index of the tensor in its group. */
        ADAMW
    }

    private final Tensor bytes;

    private NumericStatus(SegmentAllocator allocator) {
        bytes = Tensor.allocate(allocator, DType.U8, l4j_numeric_status.layout().byteSize());
    }

    /** Allocates a clear status. */
    public static NumericStatus allocate(SegmentAllocator allocator) {
        return new NumericStatus(allocator);
    }

    /** Returns whether a non-finite value was seen. */
    public boolean isSet() {
        return l4j_numeric_status.operation(bytes.host()) != LoraNative.L4J_OP_NONE();
    }

    /** Returns the operation that saw it. */
    public Operation operation() {
        return Operation.values()[l4j_numeric_status.operation(bytes.host())];
    }

    /** Returns the optimizer step in which it was seen; 0 where the operation was not told. */
    public long step() {
        return l4j_numeric_status.step(bytes.host());
    }

    /** Returns the index of the tensor in its group (adamw), or the row (linear_cross_entropy). */
    public int tensor() {
        return l4j_numeric_status.tensor(bytes.host());
    }

    /** Returns the index of the group (adamw). */
    public int group() {
        return l4j_numeric_status.group(bytes.host());
    }

    /** Forgets what was seen. */
    public void clear() {
        bytes.zero();
    }

    Tensor bytes() {
        return bytes;
    }

    /** Returns what was seen, for a message. */
    @Override
    public String toString() {
        return switch (operation()) {
            case NONE -> "all finite";
            case LINEAR_CROSS_ENTROPY ->
                "non-finite value in linear_cross_entropy, row " + tensor() + ", step " + step();
            case ADAMW ->
                "non-finite gradient in adamw, group " + group() + ", tensor " + tensor() + ", step " + step();
        };
    }
}
