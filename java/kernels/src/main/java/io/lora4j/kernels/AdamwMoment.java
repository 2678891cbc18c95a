package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * One of the two running means that AdamW keeps of a parameter: numbers, or 8-bit codes with a scale for each block of 256 elements
 * (Dettmers et al. 2022), as {@code AdamW8bit} of bitsandbytes keeps them. Zeros are the state before the first step.
 *
 * @param values F32 (F64 on {@link Isa#REF64}), or U8 codes; of the parameter's shape
 * @param scales of codes: F32 (F64 on {@link Isa#REF64}), [⌈elements / 256⌉]; null where the values are numbers
 */
public record AdamwMoment(Tensor values, @Nullable Tensor scales) {
    /** Elements of codes that share a scale. */
    public static final int BLOCK = LoraNative.L4J_ADAMW_STATE_BLOCK();

    /** bitsandbytes and transformers keep the moments of parameters of fewer elements as numbers: {@code min_8bit_size}. */
    public static final int MIN_8BIT_SIZE = 4096;

    /** Returns a mean that is held as numbers. */
    public static AdamwMoment of(Tensor values) {
        return new AdamwMoment(values, null);
    }

    /**
     * Allocates codes and scales of zeros.
     *
     * @param scalesType F32, or F64 on {@link Isa#REF64}
     * @param shape the parameter's
     */
    public static AdamwMoment allocate8bit(SegmentAllocator allocator, DType scalesType, long... shape) {
        Tensor codes = Tensor.allocate(allocator, DType.U8, shape);
        return new AdamwMoment(codes, Tensor.allocate(allocator, scalesType, blocks(codes.elements())));
    }

    static long blocks(long elements) {
        return (elements + BLOCK - 1) / BLOCK;
    }

    /** Returns the bytes of its tensors. */
    public long bytes() {
        return values.bytes() + (scales == null ? 0 : scales.bytes());
    }
}
