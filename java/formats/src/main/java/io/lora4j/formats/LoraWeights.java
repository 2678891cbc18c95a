package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.lang.foreign.MemorySegment;

/**
 * The two factors of one module's update {@code s·B·A}, contiguous row-major float32.
 *
 * @param rank R
 * @param inFeatures K
 * @param outFeatures N
 * @param a [R, K]
 * @param b [N, R]
 */
public record LoraWeights(int rank, long inFeatures, long outFeatures, MemorySegment a, MemorySegment b) {

    /** Checks that the segments have the sizes that the shapes imply. */
    public LoraWeights {
        long aBytes = rank * inFeatures * DType.F32.bytes();
        long bBytes = outFeatures * rank * DType.F32.bytes();
        if (rank <= 0 || a.byteSize() != aBytes || b.byteSize() != bBytes) {
            throw new IllegalArgumentException("rank " + rank + ", in " + inFeatures + ", out " + outFeatures + " take "
                    + aBytes + " and " + bBytes + " bytes, but A has " + a.byteSize() + " and B " + b.byteSize());
        }
    }
}
