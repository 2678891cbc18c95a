package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_sample_hyper;
import java.lang.foreign.SegmentAllocator;

/**
 * How {@link SampleOps} draws: off-heap, read when the operation runs. A new one is greedy.
 *
 * <p>Threads: as for the arena; not changed while an operation runs.
 */
public final class SampleHyper {
    private final Tensor bytes;

    private SampleHyper(SegmentAllocator allocator) {
        bytes = Tensor.allocate(allocator, DType.U8, l4j_sample_hyper.layout().byteSize());
        topP(1);
    }

    /** Allocates greedy settings: temperature 0, top-p 1, top-k off. */
    public static SampleHyper allocate(SegmentAllocator allocator) {
        return new SampleHyper(allocator);
    }

    /** Sets the temperature; 0 = greedy: the largest logit, lowest index of a tie. */
    public SampleHyper temperature(double temperature) {
        bytes.update(struct -> l4j_sample_hyper.temperature(struct, temperature));
        return this;
    }

    /** Sets p: the smallest set of most likely tokens whose probabilities reach it is kept; 1 = off. */
    public SampleHyper topP(double topP) {
        bytes.update(struct -> l4j_sample_hyper.top_p(struct, topP));
        return this;
    }

    /** Sets k: the k most likely tokens are kept; 0 = off. */
    public SampleHyper topK(int topK) {
        bytes.update(struct -> l4j_sample_hyper.top_k(struct, topK));
        return this;
    }

    /** Sets the seed. */
    public SampleHyper seed(long seed) {
        bytes.update(struct -> l4j_sample_hyper.seed(struct, seed));
        return this;
    }

    /** Sets the position of the draw; with seed and row it determines the random number. */
    public SampleHyper step(long step) {
        bytes.update(struct -> l4j_sample_hyper.step(struct, step));
        return this;
    }

    Tensor bytes() {
        return bytes;
    }
}
