package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;

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
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED;

    /** Checks that the segments have the sizes that the shapes imply. */
    public LoraWeights {
        long aBytes = rank * inFeatures * DType.F32.bytes();
        long bBytes = outFeatures * rank * DType.F32.bytes();
        if (rank <= 0 || a.byteSize() != aBytes || b.byteSize() != bBytes) {
            throw new IllegalArgumentException("rank " + rank + ", in " + inFeatures + ", out " + outFeatures + " take "
                    + aBytes + " and " + bBytes + " bytes, but A has " + a.byteSize() + " and B " + b.byteSize());
        }
    }

    /** Returns a copy in other memory. */
    public LoraWeights copy(SegmentAllocator allocator) {
        return new LoraWeights(
                rank,
                inFeatures,
                outFeatures,
                allocator.allocate(a.byteSize(), 64).copyFrom(a),
                allocator.allocate(b.byteSize(), 64).copyFrom(b));
    }

    /** Returns {@code [A; A₀]} and {@code [B, −B₀]}, whose product is B·A − B₀·A₀. */
    LoraWeights minus(LoraWeights other, SegmentAllocator allocator) {
        MemorySegment bothA = allocator.allocate(a.byteSize() + other.a.byteSize(), 64);
        MemorySegment.copy(a, 0, bothA, 0, a.byteSize());
        MemorySegment.copy(other.a, 0, bothA, a.byteSize(), other.a.byteSize());
        MemorySegment bothB = allocator.allocate(b.byteSize() + other.b.byteSize(), 64);
        int all = rank + other.rank;
        for (long n = 0; n < outFeatures; n++) {
            copyRow(b, n * rank, bothB, n * all, rank, false);
            copyRow(other.b, n * other.rank, bothB, n * all + rank, other.rank, true);
        }
        return new LoraWeights(all, inFeatures, outFeatures, bothA, bothB);
    }

    /** Returns one of the two of which {@link #minus} has made these. */
    LoraWeights half(boolean second, SegmentAllocator allocator) {
        int half = rank / 2;
        MemorySegment halfA = allocator.allocate(a.byteSize() / 2, 64);
        MemorySegment.copy(a, second ? halfA.byteSize() : 0, halfA, 0, halfA.byteSize());
        MemorySegment halfB = allocator.allocate(b.byteSize() / 2, 64);
        for (long n = 0; n < outFeatures; n++) {
            copyRow(b, n * rank + (second ? half : 0), halfB, n * half, half, second);
        }
        return new LoraWeights(half, inFeatures, outFeatures, halfA, halfB);
    }

    private static void copyRow(MemorySegment from, long at, MemorySegment to, long place, int count, boolean negated) {
        for (int i = 0; i < count; i++) {
            float value = from.getAtIndex(F32, at + i);
            to.setAtIndex(F32, place + i, negated ? -value : value);
        }
    }
}
