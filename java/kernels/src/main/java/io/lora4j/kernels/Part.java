package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Collection;
import java.util.Map;

/**
 * What a tensor is to a quantized weight, with the codes of the C ABI ({@code L4J_ROLE_…} in {@code lora4j.h}); dtypes and shapes are
 * listed there for each {@link Scheme}.
 *
 * <p>Thread-safe: an immutable enum.
 */
public enum Part {
    /** The values or their codes. */
    VALUES(1),
    /** A scale for each block, group or row. */
    SCALES(2),
    /** The zero point of each group. */
    ZEROS(3),
    /** The group of each column. */
    GROUP_INDEX(4),
    /** Values of a block: I64 [1]. */
    BLOCK_SIZE(5),
    /** The value of each code: F32 [16]. */
    QUANT_MAP(6),
    /** Double quantization: the scale of each block of scales. */
    NESTED_SCALES(7),
    /** Double quantization: the value of each scale's code, F32 [256]. */
    NESTED_QUANT_MAP(8),
    /** Double quantization: what is added to each scale, F32 [1]. */
    NESTED_OFFSET(9),
    /** Double quantization: scales of a block, I64 [1]. */
    NESTED_BLOCK_SIZE(10);

    private final int code;

    Part(int code) {
        this.code = code;
    }

    /** Returns the code of this part in the C ABI. */
    public int code() {
        return code;
    }

    /** Writes the codes of parts, as {@code part_roles} has them. */
    static MemorySegment codes(SegmentAllocator allocator, Collection<Part> parts) {
        return allocator.allocateFrom(
                ValueLayout.JAVA_INT, parts.stream().mapToInt(Part::code).toArray());
    }

    /** Writes the descriptors of parts, as {@code part_values} has them. */
    static MemorySegment tensors(SegmentAllocator allocator, Map<Part, Tensor> parts) {
        MemorySegment descriptors = allocator.allocate(l4j_tensor.layout(), parts.size());
        int i = 0;
        for (Tensor tensor : parts.values()) {
            ArgumentBlock.write(l4j_tensor.asSlice(descriptors, i++), tensor);
        }
        return descriptors;
    }
}
