package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_lora;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link LoraOps}: a group of G projections that share their input x (a single one, q/k/v, gate/up), each with a
 * frozen base weight, an optional bias and an optional low-rank adapter.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors and
 * weights are kept reachable. Seed, step, scaling and token indices are read when the operation runs, so the caller changes them
 * in place.
 */
public final class Lora extends Arguments {
    private static final int MAX_PROJECTIONS = 16;

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

        @Nullable
        Tensor a;

        @Nullable
        Tensor b;

        int moduleId;

        @Nullable
        Tensor y;

        @Nullable
        Tensor s;

        @Nullable
        Tensor dy;

        @Nullable
        Tensor da;

        @Nullable
        Tensor db;

        Projection(Weight weight) {
            this.weight = weight;
        }
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
        private int adapterId;
        private boolean accumulateGrads;
        private boolean accumulateDx;

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
            Projection p = current();
            p.a = a;
            p.b = b;
            p.moduleId = moduleId;
            return this;
        }

        /** Forward, out: [M, N]. */
        public Builder y(@Nullable Tensor y) {
            current().y = y;
            return this;
        }

        /** The rank-R activation of the current projection, written by forward and read by backward: [M, R]. */
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
            Projection p = current();
            p.da = da;
            p.db = db;
            return this;
        }

        /** Factor of each projection's adapter, lora_alpha / R usually: [G], F32, read when the operation runs. */
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
         * @param adapterId 0 to 65535
         */
        public Builder dropout(double p, Tensor seed, Tensor step, Tensor tokenIndex, int adapterId) {
            this.dropout = p;
            this.seed = seed;
            this.step = step;
            this.tokenIndex = tokenIndex;
            this.adapterId = adapterId;
            return this;
        }

        /** Backward, out: the gradient of x, [M, K]; null = not wanted. */
        public Builder dx(@Nullable Tensor dx) {
            this.dx = dx;
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
            ArgumentBlock block =
                    new ArgumentBlock(allocator, "lora", l4j_lora.layout(), 2 + 8 * count, 16L * count + 16);
            MemorySegment struct = block.struct();
            Tensor input = block.matrix("x", x);
            long m = input.size(0);
            long k = input.size(1);
            l4j_lora.flags(struct, flags());
            l4j_lora.projection_count(struct, count);
            l4j_lora.compute(struct, LoraNative.L4J_COMPUTE_F32());
            l4j_lora.x(struct, block.in("x", input, m, k));
            l4j_lora.dx(struct, block.out("dx", dx, m, k));
            boolean adapted = writeProjections(block, m, k);
            if (adapted) {
                l4j_lora.adapter_count(struct, 1);
                l4j_lora.scaling(
                        struct, block.pointer("scaling", block.required("scaling", scaling), DType.F32, count));
                writeDropout(block, m);
            }
            return new Lora(block);
        }

        /** Returns whether any projection has an adapter. */
        private boolean writeProjections(ArgumentBlock block, long m, long k) {
            int count = projections.size();
            MemorySegment struct = block.struct();
            MemorySegment weights = block.array(8L * count);
            MemorySegment biases = block.descriptors(count);
            MemorySegment a = block.descriptors(count);
            MemorySegment b = block.descriptors(count);
            MemorySegment y = block.descriptors(count);
            MemorySegment s = block.descriptors(count);
            MemorySegment dy = block.descriptors(count);
            MemorySegment da = block.descriptors(count);
            MemorySegment db = block.descriptors(count);
            boolean adapted = false;
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
                Tensor down = p.a;
                if (down == null) {
                    if (p.s != null || p.da != null || p.db != null) {
                        throw block.invalid("a", "projection " + g + " has s, da or db but no adapter");
                    }
                    continue;
                }
                adapted = true;
                long r = down.size(0);
                block.in(a, g, "a", down, r, k);
                block.in(b, g, "b", p.b, n, r);
                block.out(s, g, "s", p.s, m, r);
                block.out(da, g, "da", p.da, r, k);
                block.out(db, g, "db", p.db, n, r);
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
            if (adapted) {
                l4j_lora.a(struct, a);
                l4j_lora.b(struct, b);
                l4j_lora.s(struct, s);
                l4j_lora.da(struct, da);
                l4j_lora.db(struct, db);
            }
            return adapted;
        }

        private void writeDropout(ArgumentBlock block, long m) {
            int count = projections.size();
            MemorySegment struct = block.struct();
            l4j_lora.dropout_p(struct, (float) dropout);
            if (dropout == 0) {
                return;
            }
            MemorySegment modules = block.array(4L * count);
            for (int g = 0; g < count; g++) {
                modules.setAtIndex(ValueLayout.JAVA_INT, g, projections.get(g).moduleId);
            }
            MemorySegment adapters = block.array(4);
            adapters.set(ValueLayout.JAVA_INT, 0, adapterId);
            l4j_lora.module_id(struct, modules);
            l4j_lora.adapter_id(struct, adapters);
            l4j_lora.dropout_seed(
                    struct, block.pointer("dropout seed", block.required("dropout seed", seed), DType.I64, 1));
            l4j_lora.dropout_step(
                    struct, block.pointer("dropout step", block.required("dropout step", step), DType.I64, 1));
            l4j_lora.token_index(
                    struct, block.pointer("token index", block.required("token index", tokenIndex), DType.I32, m));
        }

        private int flags() {
            return (accumulateGrads ? LoraNative.L4J_LORA_ACCUMULATE_GRADS() : 0)
                    | (accumulateDx ? LoraNative.L4J_LORA_ACCUMULATE_DX() : 0);
        }

        private Projection current() {
            if (projections.isEmpty()) {
                throw new IllegalStateException("start a projection with projection(weight) first");
            }
            return projections.getLast();
        }
    }
}
