package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_rms_norm;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link RmsNormOps}: a root-mean-square norm over the last dimension, with an optional residual. Dtypes: F32, or F64
 * throughout on {@link Isa#REF64}; the weight also F16 and BF16.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class RmsNorm extends Arguments {
    private RmsNorm(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. What the direction that is run does not use may be left out or null. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private double eps;
        private @Nullable Tensor x;
        private @Nullable Tensor residual;
        private @Nullable Tensor weight;
        private @Nullable Tensor h;
        private @Nullable Tensor y;
        private @Nullable Tensor rstd;
        private @Nullable Tensor dy;
        private @Nullable Tensor dresidual;
        private @Nullable Tensor dx;
        private @Nullable Tensor dweight;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Added to the mean of squares; read from the model's configuration. */
        public Builder eps(double eps) {
            this.eps = eps;
            return this;
        }

        /** Input: [M, N]. */
        public Builder x(@Nullable Tensor x) {
            this.x = x;
            return this;
        }

        /** Added to x first: [M, N]; null = none. */
        public Builder residual(@Nullable Tensor residual) {
            this.residual = residual;
            return this;
        }

        /** Factor of each column: [N]. */
        public Builder weight(Tensor weight) {
            this.weight = weight;
            return this;
        }

        /** x + residual, written by forward and read by backward: [M, N]; null in a forward without residual. May be x or residual. */
        public Builder h(@Nullable Tensor h) {
            this.h = h;
            return this;
        }

        /** Forward, out: [M, N]. May be x. */
        public Builder y(@Nullable Tensor y) {
            this.y = y;
            return this;
        }

        /** 1 / sqrt(mean of squares + eps), written by forward and read by backward: [M]. */
        public Builder rstd(@Nullable Tensor rstd) {
            this.rstd = rstd;
            return this;
        }

        /** Backward, in: the gradient of y, [M, N]. */
        public Builder dy(@Nullable Tensor dy) {
            this.dy = dy;
            return this;
        }

        /** Backward, in: the gradient that reaches h beside the norm, [M, N]; null = none. */
        public Builder dresidual(@Nullable Tensor dresidual) {
            this.dresidual = dresidual;
            return this;
        }

        /** Backward, out: the gradient of x and of the residual, [M, N]. May be dy or dresidual. */
        public Builder dx(@Nullable Tensor dx) {
            this.dx = dx;
            return this;
        }

        /** Backward, out, added to: the gradient of the weight, [N]; null = frozen. */
        public Builder dweight(@Nullable Tensor dweight) {
            this.dweight = dweight;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public RmsNorm build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "rms_norm", l4j_rms_norm.layout(), 10, 0);
            MemorySegment struct = block.struct();
            // Backward does without x: h takes its place.
            Tensor input = block.matrix("x", x != null ? x : h);
            long m = input.size(0);
            long n = input.size(1);
            l4j_rms_norm.eps(struct, (float) eps);
            l4j_rms_norm.x(struct, block.in("x", x, m, n));
            l4j_rms_norm.residual(struct, block.in("residual", residual, m, n));
            l4j_rms_norm.weight(struct, block.in("weight", block.required("weight", weight), n));
            l4j_rms_norm.h(struct, block.out("h", h, m, n));
            l4j_rms_norm.y(struct, block.out("y", y, m, n));
            l4j_rms_norm.rstd(struct, block.out("rstd", rstd, m));
            l4j_rms_norm.dy(struct, block.in("dy", dy, m, n));
            l4j_rms_norm.dresidual(struct, block.in("dresidual", dresidual, m, n));
            l4j_rms_norm.dx(struct, block.out("dx", dx, m, n));
            l4j_rms_norm.dweight(struct, block.out("dweight", dweight, n));
            return new RmsNorm(block);
        }
    }
}
