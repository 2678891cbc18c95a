package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_rope;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link RopeOps}: rotary position embedding of the heads of a tensor. Dtypes: F32, or F64 throughout on
 * {@link Isa#REF64}. Positions are read when the operation runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Rope extends Arguments {
    private Rope(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private boolean interleaved;
        private @Nullable Tensor src;
        private @Nullable Tensor dst;
        private @Nullable Tensor cosine;
        private @Nullable Tensor sine;
        private @Nullable Tensor positions;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Whether pairs are (2i, 2i + 1), as in GGUF's llama; default false: halves (i, i + rot/2), as in Hugging Face models. */
        public Builder interleaved(boolean interleaved) {
            this.interleaved = interleaved;
            return this;
        }

        /** In: [M, H, D]. In backward the gradient of the rotated tensor. */
        public Builder src(Tensor src) {
            this.src = src;
            return this;
        }

        /** Out: [M, H, D]. May be src. In backward the gradient of the tensor before. */
        public Builder dst(Tensor dst) {
            this.dst = dst;
            return this;
        }

        /** Cosines: [P, rot/2], a row for each position. */
        public Builder cosine(Tensor cosine) {
            this.cosine = cosine;
            return this;
        }

        /** Sines: [P, rot/2]. */
        public Builder sine(Tensor sine) {
            this.sine = sine;
            return this;
        }

        /** Position of each row: [M], I32, 0 to P − 1, read when the operation runs. */
        public Builder positions(Tensor positions) {
            this.positions = positions;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Rope build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "rope", l4j_rope.layout(), 5, 0);
            MemorySegment struct = block.struct();
            Tensor input = block.shaped("src", src, 3);
            long m = input.size(0);
            long h = input.size(1);
            long d = input.size(2);
            Tensor table = block.matrix("cosine", cosine);
            l4j_rope.flags(struct, interleaved ? LoraNative.L4J_ROPE_INTERLEAVED() : 0);
            l4j_rope.src(struct, block.in("src", input, m, h, d));
            l4j_rope.dst(struct, block.out("dst", block.required("dst", dst), m, h, d));
            l4j_rope.cosine(struct, block.in("cosine", table, table.size(0), table.size(1)));
            l4j_rope.sine(struct, block.in("sine", block.required("sine", sine), table.size(0), table.size(1)));
            l4j_rope.positions(
                    struct, block.pointer("positions", block.required("positions", positions), DType.I32, m));
            return new Rope(block);
        }
    }
}
