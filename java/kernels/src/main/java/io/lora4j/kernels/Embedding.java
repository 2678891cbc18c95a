package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_embedding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link EmbeddingOps}. Dtypes: F32, or F64 throughout on {@link Isa#REF64}; the weight also F16 and BF16. The ids are
 * read when the operation runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Embedding extends Arguments {
    private Embedding(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. What the direction that is run does not use may be left out or null. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private @Nullable Weight weight;
        private @Nullable Tensor ids;
        private @Nullable Tensor out;
        private @Nullable Tensor dout;
        private @Nullable Tensor dweight;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Forward: the table, [V, N]; null in a backward. */
        public Builder weight(@Nullable Weight weight) {
            this.weight = weight;
            return this;
        }

        /** Row of the table for each row of the output: [M], I32, 0 to V − 1, read when the operation runs. */
        public Builder ids(Tensor ids) {
            this.ids = ids;
            return this;
        }

        /** Forward, out: [M, N]. */
        public Builder out(@Nullable Tensor out) {
            this.out = out;
            return this;
        }

        /** Backward, in: the gradient of out, [M, N]. */
        public Builder dout(@Nullable Tensor dout) {
            this.dout = dout;
            return this;
        }

        /** Backward, out, added to: the gradient of the table, [V, N]. */
        public Builder dweight(@Nullable Tensor dweight) {
            this.dweight = dweight;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Embedding build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "embedding", l4j_embedding.layout(), 4, 0);
            MemorySegment struct = block.struct();
            Tensor rows = block.matrix("out", out != null ? out : dout);
            long m = rows.size(0);
            long n = rows.size(1);
            if (weight != null) {
                l4j_embedding.weight(struct, block.weight("weight", weight));
                if (weight.cols() != n) {
                    throw block.invalid("weight", "expected N = " + n + " columns, found " + weight);
                }
            }
            l4j_embedding.ids(struct, block.pointer("ids", block.required("ids", ids), DType.I32, m));
            l4j_embedding.out(struct, block.out("out", out, m, n));
            l4j_embedding.dout(struct, block.in("dout", dout, m, n));
            if (dweight != null) {
                l4j_embedding.dweight(struct, block.out("dweight", dweight, dweight.size(0), n));
            }
            return new Embedding(block);
        }
    }
}
