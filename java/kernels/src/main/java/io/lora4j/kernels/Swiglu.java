package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_swiglu;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link SwigluOps}. Dtypes: F32, or F64 throughout on {@link Isa#REF64}.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Swiglu extends Arguments {
    private Swiglu(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. What the direction that is run does not use may be left out or null. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private @Nullable Tensor gate;
        private @Nullable Tensor up;
        private @Nullable Tensor out;
        private @Nullable Tensor dout;
        private @Nullable Tensor dgate;
        private @Nullable Tensor dup;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Gate: [M, N]. */
        public Builder gate(Tensor gate) {
            this.gate = gate;
            return this;
        }

        /** Up: [M, N]. */
        public Builder up(Tensor up) {
            this.up = up;
            return this;
        }

        /** Forward, out: [M, N]. May be gate or up. */
        public Builder out(@Nullable Tensor out) {
            this.out = out;
            return this;
        }

        /** Backward, in: the gradient of out, [M, N]. */
        public Builder dout(@Nullable Tensor dout) {
            this.dout = dout;
            return this;
        }

        /** Backward, out: [M, N]. May be gate or dout. */
        public Builder dgate(@Nullable Tensor dgate) {
            this.dgate = dgate;
            return this;
        }

        /** Backward, out: [M, N]. May be up or dout, but not what dgate is. */
        public Builder dup(@Nullable Tensor dup) {
            this.dup = dup;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Swiglu build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "swiglu", l4j_swiglu.layout(), 6, 0);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("gate", gate);
            long m = input.size(0);
            long n = input.size(1);
            l4j_swiglu.gate(struct, block.in("gate", input, m, n));
            l4j_swiglu.up(struct, block.in("up", block.required("up", up), m, n));
            l4j_swiglu.out(struct, block.out("out", out, m, n));
            l4j_swiglu.dout(struct, block.in("dout", dout, m, n));
            l4j_swiglu.dgate(struct, block.out("dgate", dgate, m, n));
            l4j_swiglu.dup(struct, block.out("dup", dup, m, n));
            return new Swiglu(block);
        }
    }
}
