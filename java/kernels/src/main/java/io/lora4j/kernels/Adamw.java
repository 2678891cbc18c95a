package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_adamw;
import io.lora4j.kernels.generated.l4j_adamw_group;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.ArrayList;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link AdamwOps}: groups of parameters, each with its own settings and its own norm; one adapter is one group
 * usually. Tensors are contiguous and F32, or F64 on {@link Isa#REF64}; moments may be 8-bit codes. The settings are read when the
 * operation runs.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors are
 * kept reachable.
 */
public final class Adamw extends Arguments {
    private Adamw(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    private record Parameter(Tensor value, Tensor grad, AdamwMoment expAvg, AdamwMoment expAvgSq) {}

    private record Group(AdamwHyper hyper, @Nullable Tensor gradNorm, ArrayList<Parameter> parameters) {}

    /**
     * Collects the arguments. {@link #group} starts a group; {@link #parameter} adds to the one started last. Not thread-safe.
     */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private final ArrayList<Group> groups = new ArrayList<>(1);
        private boolean zeroGrads;
        private @Nullable NumericStatus numeric;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /**
         * Starts the next group.
         *
         * @param hyper its settings, read when the operation runs
         * @param gradNorm out: ‖gradScale · gradients‖₂ before clipping, [1], F64; null = not wanted
         */
        public Builder group(AdamwHyper hyper, @Nullable Tensor gradNorm) {
            groups.add(new Group(hyper, gradNorm, new ArrayList<>()));
            return this;
        }

        /**
         * Adds a parameter to the current group. All four have the same shape.
         *
         * @param value updated
         * @param grad read, and zeroed afterwards if {@link #zeroGrads} says so
         * @param expAvg average of the gradients, updated; zeros before the first step
         * @param expAvgSq average of their squares, updated; zeros before the first step
         */
        public Builder parameter(Tensor value, Tensor grad, Tensor expAvg, Tensor expAvgSq) {
            return parameter(value, grad, AdamwMoment.of(expAvg), AdamwMoment.of(expAvgSq));
        }

        /**
         * Adds a parameter to the current group. Both moments are held as numbers or both as 8-bit codes; in a group either may
         * be the case from parameter to parameter.
         *
         * @param value updated
         * @param grad of the same shape; read, and zeroed afterwards if {@link #zeroGrads} says so
         * @param expAvg average of the gradients, updated
         * @param expAvgSq average of their squares, updated
         */
        public Builder parameter(Tensor value, Tensor grad, AdamwMoment expAvg, AdamwMoment expAvgSq) {
            if (groups.isEmpty()) {
                throw new IllegalStateException("start a group with group(hyper, gradNorm) first");
            }
            groups.getLast().parameters.add(new Parameter(value, grad, expAvg, expAvgSq));
            return this;
        }

        /** Whether gradients are zeroed once they are used; default false. */
        public Builder zeroGrads(boolean zeroGrads) {
            this.zeroGrads = zeroGrads;
            return this;
        }

        /** Where a non-finite gradient is reported; null = nowhere. */
        public Builder numeric(@Nullable NumericStatus numeric) {
            this.numeric = numeric;
            return this;
        }

        /**
         * Checks the shapes and fills in the native struct.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing or does not fit
         */
        public Adamw build() {
            int parameters = 0;
            for (Group group : groups) {
                parameters += group.parameters.size();
            }
            long groupBytes = l4j_adamw_group.layout().byteSize();
            ArgumentBlock block = new ArgumentBlock(
                    allocator, "adamw", l4j_adamw.layout(), 6 * parameters, groupBytes * groups.size());
            MemorySegment struct = block.struct();
            MemorySegment array = block.array(groupBytes * groups.size());
            l4j_adamw.flags(struct, zeroGrads ? LoraNative.L4J_ADAMW_ZERO_GRADS() : 0);
            l4j_adamw.group_count(struct, groups.size());
            l4j_adamw.groups(struct, array);
            l4j_adamw.numeric(struct, block.numeric(numeric));
            for (int g = 0; g < groups.size(); g++) {
                write(block, array.asSlice(g * groupBytes, groupBytes), groups.get(g));
            }
            return new Adamw(block);
        }

        private static void write(ArgumentBlock block, MemorySegment struct, Group group) {
            int count = group.parameters.size();
            MemorySegment values = block.descriptors(count);
            MemorySegment grads = block.descriptors(count);
            MemorySegment expAvgs = block.descriptors(count);
            MemorySegment expAvgSqs = block.descriptors(count);
            MemorySegment expAvgScales = block.descriptors(count);
            MemorySegment expAvgSqScales = block.descriptors(count);
            for (int i = 0; i < count; i++) {
                Parameter p = group.parameters.get(i);
                long[] shape = p.value.shape();
                long blocks = AdamwMoment.blocks(p.value.elements());
                block.out(values, i, "params", p.value, shape);
                block.out(grads, i, "grads", p.grad, shape);
                block.out(expAvgs, i, "expAvgs", p.expAvg.values(), shape);
                block.out(expAvgSqs, i, "expAvgSqs", p.expAvgSq.values(), shape);
                block.out(expAvgScales, i, "expAvgScales", p.expAvg.scales(), blocks);
                block.out(expAvgSqScales, i, "expAvgSqScales", p.expAvgSq.scales(), blocks);
            }
            l4j_adamw_group.tensor_count(struct, count);
            l4j_adamw_group.params(struct, values);
            l4j_adamw_group.grads(struct, grads);
            l4j_adamw_group.exp_avgs(struct, expAvgs);
            l4j_adamw_group.exp_avg_sqs(struct, expAvgSqs);
            l4j_adamw_group.exp_avg_scales(struct, expAvgScales);
            l4j_adamw_group.exp_avg_sq_scales(struct, expAvgSqScales);
            l4j_adamw_group.hyper(struct, block.view(group.hyper.bytes()));
            l4j_adamw_group.grad_norm(struct, block.outPointer("gradNorm", group.gradNorm, DType.F64, 1));
        }
    }
}
