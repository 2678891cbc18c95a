package io.lora4j.train.model;

import io.lora4j.kernels.AdamwMoment;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;

/** How the two moments that AdamW keeps of every number of an adapter are held. */
public enum OptimizerState {
    /** As numbers of the model's own type. */
    FLOAT,
    /**
     * As 8-bit codes with a scale for each block of 256, where a matrix has at least {@value AdamwMoment#MIN_8BIT_SIZE} elements: as
     * bitsandbytes' {@code AdamW8bit} does it.
     */
    BLOCKWISE_8BIT;

    AdamwMoment allocate(Arena arena, DType dtype, long rows, long columns) {
        return codes(rows * columns)
                ? AdamwMoment.allocate8bit(arena, dtype, rows, columns)
                : AdamwMoment.of(Tensor.allocate(arena, dtype, rows, columns));
    }

    /** Returns the bytes of both moments of a matrix of float32. */
    long bytes(long elements) {
        long scales = (elements + AdamwMoment.BLOCK - 1) / AdamwMoment.BLOCK;
        return 2 * (codes(elements) ? elements + scales * Float.BYTES : elements * Float.BYTES);
    }

    private boolean codes(long elements) {
        return this == BLOCKWISE_8BIT && elements >= AdamwMoment.MIN_8BIT_SIZE;
    }
}
