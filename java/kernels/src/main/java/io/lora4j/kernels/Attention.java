package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_attention;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link AttentionOps}: B packed sequences of different lengths, Hq query heads over Hkv key/value heads. Dtypes: F32, or
 * F64 throughout on {@link Isa#REF64}. Offsets and lengths are read when the operation runs, so the caller changes them in place, within
 * the maxima.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable.
 */
public final class Attention extends Arguments {
    private Attention(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. What the direction that is run does not use may be left out or null. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private boolean causal = true;
        private int window;
        private double scale;
        private long maxQLength;
        private long maxKvLength;
        private @Nullable Tensor qOffsets;
        private @Nullable Tensor kvStarts;
        private @Nullable Tensor kvLengths;
        private @Nullable Tensor q;
        private @Nullable Tensor k;
        private @Nullable Tensor v;
        private @Nullable Tensor o;
        private @Nullable Tensor lse;
        private @Nullable Tensor dO;
        private @Nullable Tensor dq;
        private @Nullable Tensor dk;
        private @Nullable Tensor dv;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** Whether query i of n sees the keys 0 to kvLength − n + i only; default true. */
        public Builder causal(boolean causal) {
            this.causal = causal;
            return this;
        }

        /** The most keys that a query sees, itself and those right before it; causal only; 0, the default, for no window. */
        public Builder window(int window) {
            this.window = window;
            return this;
        }

        /** Factor of the scores, 1 / sqrt(D) usually. */
        public Builder scale(double scale) {
            this.scale = scale;
            return this;
        }

        /** Upper bound of the queries of a sequence; checked when the operation runs. */
        public Builder maxQLength(long maxQLength) {
            this.maxQLength = maxQLength;
            return this;
        }

        /** Upper bound of the keys of a sequence; checked when the operation runs; the workspace grows with it. */
        public Builder maxKvLength(long maxKvLength) {
            this.maxKvLength = maxKvLength;
            return this;
        }

        /** Sequence b has the queries [qOffsets[b], qOffsets[b + 1]): [B + 1], I32, ascending. */
        public Builder qOffsets(Tensor qOffsets) {
            this.qOffsets = qOffsets;
            return this;
        }

        /** First key row of each sequence: [B], I32. */
        public Builder kvStarts(Tensor kvStarts) {
            this.kvStarts = kvStarts;
            return this;
        }

        /** Number of keys of each sequence: [B], I32. */
        public Builder kvLengths(Tensor kvLengths) {
            this.kvLengths = kvLengths;
            return this;
        }

        /** Queries: [Mq, Hq, D]. */
        public Builder q(Tensor q) {
            this.q = q;
            return this;
        }

        /** Keys: [Mk, Hkv, D]. */
        public Builder k(Tensor k) {
            this.k = k;
            return this;
        }

        /** Values: [Mk, Hkv, D]. */
        public Builder v(Tensor v) {
            this.v = v;
            return this;
        }

        /** Result, written by forward and read by backward: [Mq, Hq, D]. */
        public Builder o(@Nullable Tensor o) {
            this.o = o;
            return this;
        }

        /** Log of the sum of exponentials, written by forward and read by backward: [Mq, Hq]; null in a forward without backward. */
        public Builder lse(@Nullable Tensor lse) {
            this.lse = lse;
            return this;
        }

        /** Backward, in: the gradient of o, [Mq, Hq, D]. */
        public Builder dO(@Nullable Tensor dO) {
            this.dO = dO;
            return this;
        }

        /** Backward, out: [Mq, Hq, D]. */
        public Builder dq(@Nullable Tensor dq) {
            this.dq = dq;
            return this;
        }

        /** Backward, out: [Mk, Hkv, D]. */
        public Builder dk(@Nullable Tensor dk) {
            this.dk = dk;
            return this;
        }

        /** Backward, out: [Mk, Hkv, D]. */
        public Builder dv(@Nullable Tensor dv) {
            this.dv = dv;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Attention build() {
            ArgumentBlock block = new ArgumentBlock(allocator, "attention", l4j_attention.layout(), 12, 0);
            MemorySegment struct = block.struct();
            Tensor queries = block.shaped("q", q, 3);
            Tensor keys = block.shaped("k", k, 3);
            long mq = queries.size(0);
            long hq = queries.size(1);
            long d = queries.size(2);
            long mk = keys.size(0);
            long hkv = keys.size(1);
            long sequences = block.shaped("kvLengths", kvLengths, 1).size(0);
            l4j_attention.flags(struct, causal ? LoraNative.L4J_ATTENTION_CAUSAL() : 0);
            l4j_attention.window(struct, window);
            l4j_attention.scale(struct, (float) scale);
            l4j_attention.sequences(struct, Math.toIntExact(sequences));
            l4j_attention.max_q_length(struct, maxQLength);
            l4j_attention.max_kv_length(struct, maxKvLength);
            l4j_attention.q_offsets(
                    struct, block.pointer("qOffsets", block.required("qOffsets", qOffsets), DType.I32, sequences + 1));
            l4j_attention.kv_starts(
                    struct, block.pointer("kvStarts", block.required("kvStarts", kvStarts), DType.I32, sequences));
            l4j_attention.kv_lengths(struct, block.pointer("kvLengths", kvLengths, DType.I32, sequences));
            l4j_attention.q(struct, block.in("q", queries, mq, hq, d));
            l4j_attention.k(struct, block.in("k", keys, mk, hkv, d));
            l4j_attention.v(struct, block.in("v", block.required("v", v), mk, hkv, d));
            l4j_attention.o(struct, block.out("o", o, mq, hq, d));
            l4j_attention.lse(struct, block.out("lse", lse, mq, hq));
            l4j_attention.d_o(struct, block.in("dO", dO, mq, hq, d));
            l4j_attention.dq(struct, block.out("dq", dq, mq, hq, d));
            l4j_attention.dk(struct, block.out("dk", dk, mk, hkv, d));
            l4j_attention.dv(struct, block.out("dv", dv, mk, hkv, d));
            return new Attention(block);
        }
    }
}
