package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_axpby;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link AxpbyOps}. Dtypes: F32, or F64 throughout on {@link Isa#REF64}. The factors are read when the operation runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Axpby extends Arguments {
    private Axpby(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private @Nullable Tensor alpha;
        private @Nullable Tensor beta;
        private @Nullable Tensor x;
        private @Nullable Tensor y;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Factor of x: [1], F32, read when the operation runs. */
        public Builder alpha(Tensor alpha) {
            this.alpha = alpha;
            return this;
        }

        /** Factor of y: [1], F32, read when the operation runs; y is not read when it is 0. */
        public Builder beta(Tensor beta) {
            this.beta = beta;
            return this;
        }

        /** In: [M, N]. */
        public Builder x(Tensor x) {
            this.x = x;
            return this;
        }

        /** In and out: [M, N]. */
        public Builder y(Tensor y) {
            this.y = y;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Axpby build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "axpby", l4j_axpby.layout(), 4, 0);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("x", x);
            l4j_axpby.alpha(struct, block.pointer("alpha", block.required("alpha", alpha), DType.F32, 1));
            l4j_axpby.beta(struct, block.pointer("beta", block.required("beta", beta), DType.F32, 1));
            l4j_axpby.x(struct, block.in("x", input, input.size(0), input.size(1)));
            l4j_axpby.y(struct, block.out("y", block.required("y", y), input.size(0), input.size(1)));
            return new Axpby(block);
        }
    }
}
