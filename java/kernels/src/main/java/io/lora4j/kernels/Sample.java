package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_sample;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link SampleOps}. Dtypes: logits F32, or F64 on {@link Isa#REF64}. The hyper-parameters are read when the operation
 * runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Sample extends Arguments {
    private Sample(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private @Nullable Tensor logits;
        private @Nullable SampleHyper hyper;
        private @Nullable Tensor ids;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Logits: [M, V]. */
        public Builder logits(Tensor logits) {
            this.logits = logits;
            return this;
        }

        /** How to draw, read when the operation runs. */
        public Builder hyper(SampleHyper hyper) {
            this.hyper = hyper;
            return this;
        }

        /** Out: the token drawn for each row, [M], I32. */
        public Builder ids(Tensor ids) {
            this.ids = ids;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Sample build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "sample", l4j_sample.layout(), 2, 0);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("logits", logits);
            l4j_sample.logits(struct, block.in("logits", input, input.size(0), input.size(1)));
            l4j_sample.hyper(struct, block.view(block.required("hyper", hyper).bytes()));
            l4j_sample.ids(struct, block.outPointer("ids", block.required("ids", ids), DType.I32, input.size(0)));
            return new Sample(block);
        }
    }
}
