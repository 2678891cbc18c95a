package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_linear_cross_entropy;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link LinearCrossEntropyOps}. Dtypes: F32, or F64 throughout on {@link Isa#REF64}; the weight also F16 and BF16.
 * Targets, row weights and the gradient's scale are read when the operation runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class LinearCrossEntropy extends Arguments {
    private LinearCrossEntropy(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private int ignoreIndex = -100;
        private Compute compute = Compute.F32;
        private @Nullable Tensor x;
        private @Nullable Weight weight;
        private @Nullable Tensor targets;
        private @Nullable Tensor rowWeight;
        private @Nullable Tensor gradScale;
        private @Nullable Tensor step;
        private @Nullable Tensor loss;
        private @Nullable Tensor lse;
        private @Nullable Tensor predicted;
        private @Nullable Tensor dx;
        private @Nullable NumericStatus numeric;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Target of the rows that do not count; default −100. */
        public Builder ignoreIndex(int ignoreIndex) {
            this.ignoreIndex = ignoreIndex;
            return this;
        }

        /** Precision of both products; default {@link Compute#F32}. */
        public Builder compute(Compute compute) {
            this.compute = compute;
            return this;
        }

        /** Input: [M, K]. */
        public Builder x(Tensor x) {
            this.x = x;
            return this;
        }

        /** Output layer: [V, K]. */
        public Builder weight(Weight weight) {
            this.weight = weight;
            return this;
        }

        /** Target of each row: [M], I32, 0 to V − 1 or the ignored one, read when the operation runs. */
        public Builder targets(Tensor targets) {
            this.targets = targets;
            return this;
        }

        /** Factor of each row's gradient: [M], F32, read when the operation runs; null = 1. */
        public Builder rowWeight(@Nullable Tensor rowWeight) {
            this.rowWeight = rowWeight;
            return this;
        }

        /** Factor of the whole gradient: [1], F32, read when the operation runs; null = 1. */
        public Builder gradScale(@Nullable Tensor gradScale) {
            this.gradScale = gradScale;
            return this;
        }

        /** The optimizer step, for the numeric status only: [1], I64; null = none. */
        public Builder step(@Nullable Tensor step) {
            this.step = step;
            return this;
        }

        /** Out: loss of each row, not weighted, 0 where ignored: [M]. */
        public Builder loss(Tensor loss) {
            this.loss = loss;
            return this;
        }

        /** Out: log of the sum of exponentials, 0 where ignored: [M]. */
        public Builder lse(Tensor lse) {
            this.lse = lse;
            return this;
        }

        /** Out: the most likely token of each row, −1 where ignored: [M], I32; null = not wanted. */
        public Builder predicted(@Nullable Tensor predicted) {
            this.predicted = predicted;
            return this;
        }

        /** Out: the gradient of x, [M, K]; null = loss only. */
        public Builder dx(@Nullable Tensor dx) {
            this.dx = dx;
            return this;
        }

        /** Where a non-finite value is reported; null = nowhere. */
        public Builder numeric(@Nullable NumericStatus numeric) {
            this.numeric = numeric;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public LinearCrossEntropy build() {
            ArgumentBlock block =
                    new ArgumentBlock(allocator, "linear_cross_entropy", l4j_linear_cross_entropy.layout(), 9, 0);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("x", x);
            long m = input.size(0);
            long k = input.size(1);
            Weight head = block.required("weight", weight);
            if (head.cols() != k) {
                throw block.invalid("weight", "expected K = " + k + " columns, found " + head);
            }
            l4j_linear_cross_entropy.ignore_index(struct, ignoreIndex);
            l4j_linear_cross_entropy.compute(struct, compute.code());
            l4j_linear_cross_entropy.x(struct, block.in("x", input, m, k));
            l4j_linear_cross_entropy.weight(struct, block.weight("weight", head));
            l4j_linear_cross_entropy.targets(
                    struct, block.pointer("targets", block.required("targets", targets), DType.I32, m));
            l4j_linear_cross_entropy.row_weight(struct, block.pointer("rowWeight", rowWeight, DType.F32, m));
            l4j_linear_cross_entropy.grad_scale(struct, block.pointer("gradScale", gradScale, DType.F32, 1));
            l4j_linear_cross_entropy.step(struct, block.pointer("step", step, DType.I64, 1));
            l4j_linear_cross_entropy.loss(struct, block.out("loss", block.required("loss", loss), m));
            l4j_linear_cross_entropy.lse(struct, block.out("lse", block.required("lse", lse), m));
            l4j_linear_cross_entropy.predicted(struct, block.outPointer("predicted", predicted, DType.I32, m));
            l4j_linear_cross_entropy.dx(struct, block.out("dx", dx, m, k));
            l4j_linear_cross_entropy.numeric(struct, block.numeric(numeric));
            return new LinearCrossEntropy(block);
        }
    }
}
