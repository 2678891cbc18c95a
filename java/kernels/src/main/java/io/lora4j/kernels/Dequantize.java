package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_dequantize;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link DequantizeOps}.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Dequantize extends Arguments {
    private Dequantize(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private @Nullable Weight weight;
        private long rowBegin;
        private @Nullable Tensor out;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** The weight: [N, K]. */
        public Builder weight(Weight weight) {
            this.weight = weight;
            return this;
        }

        /** First row of the weight to take; default 0. */
        public Builder rowBegin(long rowBegin) {
            this.rowBegin = rowBegin;
            return this;
        }

        /** Out: [rows, K], F32, or F64 on {@link Isa#REF64}. */
        public Builder out(Tensor out) {
            this.out = out;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Dequantize build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "dequantize", l4j_dequantize.layout(), 1, 0);
            MemorySegment struct = block.struct();
            Weight source = block.required("weight", weight);
            Tensor target = block.matrix("out", out);
            l4j_dequantize.weight(struct, block.weight("weight", source));
            l4j_dequantize.row_begin(struct, rowBegin);
            l4j_dequantize.out(struct, block.out("out", target, target.size(0), source.cols()));
            if (rowBegin < 0 || rowBegin > source.rows() - target.size(0)) {
                throw block.invalid(
                        "rowBegin",
                        "rows [" + rowBegin + ", " + (rowBegin + target.size(0)) + ") of " + source + " do not exist");
            }
            return new Dequantize(block);
        }
    }
}
