package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_lora;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link LoraOps}: a group of G projections that share their input x (a single one, q/k/v, gate/up), each with a
 * frozen base weight, an optional bias and an optional low-rank adapter, or several adapters of which each row has one or none.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable. Seed, step, scaling and token indices are read when the operation runs, so the caller changes them
 * in place.
 */
public final class Lora extends Arguments {
    private static final int MAX_PROJECTIONS = 16;
    private static final int MAX_ADAPTERS = 65536;

    private Lora(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    private static final class Projection {
        final Weight weight;

        @Nullable
        Tensor bias;

        /** By the adapter's number; none leaves an empty one. */
        final List<Factors> adapters = new ArrayList<>(1);

        int moduleId;

        @Nullable
        Tensor y;

        @Nullable
        Tensor s;

        @Nullable
        Tensor dy;

        Projection(Weight weight) {
            this.weight = weight;
        }

        Factors adapter(int number) {
            if (number < 0 || number >= MAX_ADAPTERS) {
                throw Lora4jException.invalid("lora: adapter is " + number + ", expected 0 to " + (MAX_ADAPTERS - 1));
            }
            while (adapters.size() <= number) {
                adapters.add(new Factors());
            }
            return adapters.get(number);
        }

        /** Returns the highest rank of its adapters; 0 without any. */
        long rank() {
            return adapters.stream()
                    .mapToLong(f -> f.a == null ? 0 : f.a.size(0))
                    .max()
                    .orElse(0);
        }
    }

    /** One adapter on one projection, and its gradients. */
    private static final class Factors {
        @Nullable
        Tensor a;

        @Nullable
        Tensor b;

        @Nullable
        Tensor da;

        @Nullable
        Tensor db;
    }

    /**
     * Collects the arguments. {@link #projection} starts a projection; {@link #bias}, {@link #adapter}, {@link #y}, {@link #s},
     * {@link #dy} and {@link #gradients} describe the one started last. Dtypes: F32, or F64 throughout on {@link Isa#REF64};
     * weights and biases also F16 and BF16. What the direction that is run does not use may be left out or null.
     * Not thread-safe.
     */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private final ArrayList<Projection> projections = new ArrayList<>(3);
        private @Nullable Tensor x;
        private @Nullable Tensor dx;
        private @Nullable Tensor scaling;
        private double dropout;
        private @Nullable Tensor seed;
        private @Nullable Tensor step;
        private @Nullable Tensor tokenIndex;
        private int[] adapterIds = {0};
        private @Nullable Tensor segmentCount;
        private @Nullable Tensor segmentOffsets;
        private @Nullable Tensor segmentAdapters;
        private Compute compute = Compute.F32;
        private boolean accumulateGrads;
        private boolean accumulateDx;
        private boolean batchInvariant = true;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** The shared input: [M, K]. */
        public Builder x(Tensor x) {
            this.x = x;
            return this;
        }

        /** Starts the next projection; its weight is [N, K]. */
        public Builder projection(Weight weight) {
            projections.add(new Projection(weight));
            return this;
        }

        /** Bias of the current projection: [N], F32, F16 or BF16; null = none. */
        public Builder bias(@Nullable Tensor bias) {
            current().bias = bias;
            return this;
        }

        /**
         * Adapter of the current projection.
         *
         * @param a [R, K]
         * @param b [N, R]
         * @param moduleId names the projection in the dropout mask, 0 to 65535; unique in the model
         */
        public Builder adapter(Tensor a, Tensor b, int moduleId) {
            return adapter(0, a, b, moduleId);
        }

        /**
         * One of several adapters of the batch on the current projection; {@link #segments} says which rows are whose. Ranks may
         * differ, and an adapter need not be on every projection.
         *
         * @param number the adapter's, 0 for the first
         * @param a [R, K]
         * @param b [N, R]
         * @param moduleId names the projection in the dropout mask, 0 to 65535; unique in the model
         */
        public Builder adapter(int number, Tensor a, Tensor b, int moduleId) {
            Projection p = current();
            Factors factors = p.adapter(number);
            factors.a = a;
            factors.b = b;
            p.moduleId = moduleId;
            return this;
        }

        /**
         * Which rows are whose: the rows from {@code offsets[i]} to {@code offsets[i + 1]} are those of {@code adapters[i]}, −1 for
         * none. All of it is read when the operation runs. Without segments every row is adapter 0's.
         *
         * @param count [1], I32: segments in use
         * @param offsets [capacity + 1], I32: 0, then numbers that never fall; M behind the last segment in use
         * @param adapters [capacity], I32
         */
        public Builder segments(Tensor count, Tensor offsets, Tensor adapters) {
            this.segmentCount = count;
            this.segmentOffsets = offsets;
            this.segmentAdapters = adapters;
            return this;
        }

        /** Forward, out: [M, N]. */
        public Builder y(@Nullable Tensor y) {
            current().y = y;
            return this;
        }

        /** The rank-R activation of the current projection, written by forward and read by backward: [M, highest R]. */
        public Builder s(@Nullable Tensor s) {
            current().s = s;
            return this;
        }

        /** Backward, in: the gradient of y, [M, N]. */
        public Builder dy(@Nullable Tensor dy) {
            current().dy = dy;
            return this;
        }

        /**
         * Backward, out: gradients of the current projection's adapter; null = not wanted.
         *
         * @param da [R, K]
         * @param db [N, R]
         */
        public Builder gradients(@Nullable Tensor da, @Nullable Tensor db) {
            return gradients(0, da, db);
        }

        /** Backward, out: gradients of one of several adapters on the current projection; null = not wanted. */
        public Builder gradients(int number, @Nullable Tensor da, @Nullable Tensor db) {
            Factors factors = current().adapter(number);
            factors.da = da;
            factors.db = db;
            return this;
        }

        /**
         * Factor of each projection's adapter, lora_alpha / R usually: [adapters · G], those of adapter 0 first; F32, read when the
         * operation runs.
         */
        public Builder scaling(Tensor scaling) {
            this.scaling = scaling;
            return this;
        }

        /**
         * Dropout on the adapters' input, as PEFT does it. The mask depends on these and the module ids alone.
         *
         * @param p probability to drop, 0 ≤ p &lt; 1
         * @param seed [1], I64, read when the operation runs
         * @param step [1], I64, read when the operation runs
         * @param tokenIndex [M], I32 taken as unsigned: index of each token in the epoch's row order, read when it runs
         * @param adapterIds of each adapter, 0 to 65535
         */
        public Builder dropout(double p, Tensor seed, Tensor step, Tensor tokenIndex, int... adapterIds) {
            this.dropout = p;
            this.seed = seed;
            this.step = step;
            this.tokenIndex = tokenIndex;
            this.adapterIds = adapterIds.clone();
            return this;
        }

        /** Backward, out: the gradient of x, [M, K]; null = not wanted. */
        public Builder dx(@Nullable Tensor dx) {
            this.dx = dx;
            return this;
        }

        /** Precision of every product of both directions; default {@link Compute#F32}. */
        public Builder compute(Compute compute) {
            this.compute = compute;
            return this;
        }

        /** Whether backward adds to da and db instead of overwriting them; default false. */
        public Builder accumulateGrads(boolean accumulate) {
            this.accumulateGrads = accumulate;
            return this;
        }

        /** Whether backward adds to dx instead of overwriting it; default false. */
        public Builder accumulateDx(boolean accumulate) {
            this.accumulateDx = accumulate;
            return this;
        }

        /**
         * Whether a row of a call with segments has the same bits in every batch; default true. Without it a GPU may choose the
         * kernel by the number of rows of the whole call, which is faster. On the CPU it makes no difference.
         */
        public Builder batchInvariant(boolean batchInvariant) {
            this.batchInvariant = batchInvariant;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Lora build() {
            int count = projections.size();
            if (count < 1 || count > MAX_PROJECTIONS) {
                throw Lora4jException.invalid(
                        "lora: expected 1 to " + MAX_PROJECTIONS + " projections, found " + count);
            }
            int adapters =
                    projections.stream().mapToInt(p -> p.adapters.size()).max().orElse(0);
            ArgumentBlock block = new ArgumentBlock(
                    allocator,
                    "lora",
                    l4j_lora.layout(),
                    2 + 4 * count + 4 * count * adapters,
                    16L * count + 16 + 8L * adapters);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("x", x);
            long m = input.size(0);
            long k = input.size(1);
            l4j_lora.flags(struct, flags());
            l4j_lora.projection_count(struct, count);
            l4j_lora.compute(struct, compute.code());
            l4j_lora.x(struct, block.in("x", input, m, k));
            l4j_lora.dx(struct, block.out("dx", dx, m, k));
            writeProjections(block, m, k);
            if (writeAdapters(block, adapters, m, k)) {
                l4j_lora.adapter_count(struct, adapters);
                l4j_lora.scaling(
                        struct,
                        block.pointer(
                                "scaling", block.required("scaling", scaling), DType.F32, (long) adapters * count));
                writeDropout(block, adapters, m);
            }
            writeSegments(block, adapters);
            return new Lora(block);
        }

        private void writeProjections(ArgumentBlock block, long m, long k) {
            int count = projections.size();
            MemorySegment struct = block.struct();
            MemorySegment weights = block.array(8L * count);
            MemorySegment biases = block.descriptors(count);
            MemorySegment y = block.descriptors(count);
            MemorySegment dy = block.descriptors(count);
            boolean biased = false;
            boolean forward = false;
            boolean backward = false;
            for (int g = 0; g < count; g++) {
                Projection p = projections.get(g);
                weights.setAtIndex(ValueLayout.ADDRESS, g, block.weight("weight", p.weight));
                if (p.weight.cols() != k) {
                    throw block.invalid("weights[" + g + "]", "expected K = " + k + " columns, found " + p.weight);
                }
                long n = p.weight.rows();
                block.in(biases, g, "bias", p.bias, n);
                block.out(y, g, "y", p.y, m, n);
                block.in(dy, g, "dy", p.dy, m, n);
                biased |= p.bias != null;
                forward |= p.y != null;
                backward |= p.dy != null;
            }
            l4j_lora.weights(struct, weights);
            if (biased) {
                l4j_lora.biases(struct, biases);
            }
            if (forward) {
                l4j_lora.y(struct, y);
            }
            if (backward) {
                l4j_lora.dy(struct, dy);
            }
        }

        /** Returns whether any projection has an adapter. */
        private boolean writeAdapters(ArgumentBlock block, int adapters, long m, long k) {
            int count = projections.size();
            MemorySegment struct = block.struct();
            MemorySegment s = block.descriptors(count);
            MemorySegment a = block.descriptors(adapters * count);
            MemorySegment b = block.descriptors(adapters * count);
            MemorySegment da = block.descriptors(adapters * count);
            MemorySegment db = block.descriptors(adapters * count);
            boolean adapted = false;
            for (int g = 0; g < count; g++) {
                Projection p = projections.get(g);
                long n = p.weight.rows();
                long rank = p.rank();
                for (int number = 0; number < p.adapters.size(); number++) {
                    Factors f = p.adapters.get(number);
                    int i = number * count + g;
                    if (f.a != null) {
                        long r = f.a.size(0);
                        block.in(a, i, "a", f.a, r, k);
                        block.in(b, i, "b", f.b, n, r);
                        block.out(da, i, "da", f.da, r, k);
                        block.out(db, i, "db", f.db, n, r);
                    } else if (f.da != null || f.db != null) {
                        throw block.invalid("a", "projection " + g + " has da or db but no adapter " + number);
                    }
                }
                if (p.s != null && rank == 0) {
                    throw block.invalid("a", "projection " + g + " has s but no adapter");
                }
                block.out(s, g, "s", p.s, m, rank);
                adapted |= rank > 0;
            }
            if (adapted) {
                l4j_lora.a(struct, a);
                l4j_lora.b(struct, b);
                l4j_lora.s(struct, s);
                l4j_lora.da(struct, da);
                l4j_lora.db(struct, db);
            }
            return adapted;
        }

        private void writeSegments(ArgumentBlock block, int adapters) {
            Tensor owners = segmentAdapters;
            if (owners == null) {
                if (adapters > 1) {
                    throw block.invalid(
                            "segments", "are missing; " + adapters + " adapters need them to say which rows are whose");
                }
                return;
            }
            MemorySegment struct = block.struct();
            long capacity = owners.size(0);
            if (capacity < 1 || capacity >= Integer.MAX_VALUE) {
                throw block.invalid("segment adapters", "expected at least one element, found " + owners);
            }
            l4j_lora.segment_capacity(struct, (int) capacity);
            l4j_lora.segment_adapters(struct, block.pointer("segment adapters", owners, DType.I32, capacity));
            l4j_lora.segment_count(
                    struct,
                    block.pointer("segment count", block.required("segment count", segmentCount), DType.I32, 1));
            l4j_lora.segment_offsets(
                    struct,
                    block.pointer(
                            "segment offsets",
                            block.required("segment offsets", segmentOffsets),
                            DType.I32,
                            capacity + 1));
        }

        private void writeDropout(ArgumentBlock block, int adapters, long m) {
            int count = projections.size();
            MemorySegment struct = block.struct();
            l4j_lora.dropout_p(struct, (float) dropout);
            if (dropout == 0) {
                return;
            }
            if (adapterIds.length != adapters) {
                throw block.invalid(
                        "adapter ids",
                        "expected one for each of " + adapters + " adapters, found " + adapterIds.length);
            }
            Tensor input = block.required("x", x);
            int[] modules = projections.stream().mapToInt(p -> p.moduleId).toArray();
            l4j_lora.module_id(struct, block.values(input, modules));
            l4j_lora.adapter_id(struct, block.values(input, adapterIds));
            l4j_lora.dropout_seed(
                    struct, block.pointer("dropout seed", block.required("dropout seed", seed), DType.I64, 1));
            l4j_lora.dropout_step(
                    struct, block.pointer("dropout step", block.required("dropout step", step), DType.I64, 1));
            l4j_lora.token_index(
                    struct, block.pointer("token index", block.required("token index", tokenIndex), DType.I32, m));
        }

        private int flags() {
            return (accumulateGrads ? LoraNative.L4J_LORA_ACCUMULATE_GRADS() : 0)
                    | (accumulateDx ? LoraNative.L4J_LORA_ACCUMULATE_DX() : 0)
                    | (batchInvariant ? 0 : LoraNative.L4J_LORA_BATCH_DEPENDENT());
        }

        private Projection current() {
            if (projections.isEmpty()) {
                throw new IllegalStateException("start a projection with projection(weight) first");
            }
            return projections.getLast();
        }
    }
}
