package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_quantize;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Arguments of {@link QuantizeOps}.
 *
 * <p>Built once, run any number of times, by one thread at a time. The native struct lies in the allocator's memory; tensors are
 * kept reachable.
 */
public final class Quantize extends Arguments {
    private Quantize(ArgumentBlock block) {
        super(block);
    }

    /** Starts the arguments; the allocator, an arena usually, owns their native memory. */
    public static Builder builder(SegmentAllocator allocator) {
        return new Builder(allocator);
    }

    /** Collects the arguments. Not thread-safe. */
    public static final class Builder {
        private final SegmentAllocator allocator;
        private final Map<Part, Tensor> parts = new EnumMap<>(Part.class);
        private final Set<Part> read = EnumSet.of(Part.BLOCK_SIZE, Part.NESTED_BLOCK_SIZE);
        private @Nullable Scheme scheme;
        private @Nullable Tensor x;

        private Builder(SegmentAllocator allocator) {
            this.allocator = allocator;
        }

        /** The format: NF4, FP4, LLM_INT8, GGUF_Q4_0, Q4_1, Q5_0, Q8_0, Q4_K or Q6_K. */
        public Builder scheme(Scheme scheme) {
            this.scheme = scheme;
            return this;
        }

        /** The values: [N, K], F32, F16 or BF16. */
        public Builder x(Tensor x) {
            this.x = x;
            return this;
        }

        /** Out: a part of the weight. The block sizes are read, and so is {@link Part#NESTED_OFFSET} after {@link #givenOffset}. */
        public Builder part(Part part, Tensor tensor) {
            parts.put(part, tensor);
            return this;
        }

        /** Takes the offset of double quantization as it stands, instead of the mean of the scales. */
        public Builder givenOffset() {
            read.add(Part.NESTED_OFFSET);
            return this;
        }

        /**
         * Fills in the native struct. Which parts the scheme has, and their shapes, is checked when the operation runs.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if something is missing, or a part to be written is read-only
         */
        public Quantize build() {
            int count = parts.size();
            ArgumentBlock block = new ArgumentBlock(
                    allocator, "quantize", l4j_quantize.layout(), 1 + count, (long) Integer.BYTES * (count + 1));
            MemorySegment struct = block.struct();
            Tensor source = block.matrix("x", x);
            l4j_quantize.scheme(struct, block.required("scheme", scheme).code());
            if (read.contains(Part.NESTED_OFFSET)) {
                l4j_quantize.flags(struct, LoraNative.L4J_QUANTIZE_GIVEN_OFFSET());
            }
            l4j_quantize.x(struct, block.in("x", source, source.shape()));
            MemorySegment descriptors = block.descriptors(count);
            MemorySegment roles = block.array((long) Integer.BYTES * count);
            int i = 0;
            for (Map.Entry<Part, Tensor> entry : parts.entrySet()) {
                Tensor tensor = entry.getValue();
                if (read.contains(entry.getKey())) {
                    block.in(descriptors, i, "parts", tensor, tensor.shape());
                } else {
                    block.out(descriptors, i, "parts", tensor, tensor.shape());
                }
                roles.setAtIndex(ValueLayout.JAVA_INT, i++, entry.getKey().code());
            }
            l4j_quantize.part_count(struct, count);
            l4j_quantize.part_roles(struct, roles);
            l4j_quantize.part_values(struct, descriptors);
            return new Quantize(block);
        }
    }
}
