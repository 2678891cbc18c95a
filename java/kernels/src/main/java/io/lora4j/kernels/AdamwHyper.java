package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_adamw_hyper;
import java.lang.foreign.SegmentAllocator;

/**
 * What changes from step to step for a group of {@link AdamwOps}: off-heap, read when the operation runs. A new one has the
 * defaults of {@code torch.optim.AdamW}, no clipping, and step 1.
 *
 * <p>Threads: as for the arena; not changed while an operation runs.
 */
public final class AdamwHyper {
    private final Tensor bytes;

    private AdamwHyper(SegmentAllocator allocator) {
        bytes = Tensor.allocate(allocator, DType.U8, l4j_adamw_hyper.layout().byteSize());
        learningRate(1e-3)
                .betas(0.9, 0.999)
                .epsilon(1e-8)
                .weightDecay(1e-2)
                .gradScale(1)
                .step(1);
    }

    /** Allocates the defaults: learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8, weight decay 1e-2. */
    public static AdamwHyper allocate(SegmentAllocator allocator) {
        return new AdamwHyper(allocator);
    }

    /** Sets the learning rate. */
    public AdamwHyper learningRate(double learningRate) {
        bytes.update(struct -> l4j_adamw_hyper.learning_rate(struct, learningRate));
        return this;
    }

    /** Sets the decay rates of the averages of gradients and of their squares. */
    public AdamwHyper betas(double beta1, double beta2) {
        bytes.update(struct -> l4j_adamw_hyper.beta1(struct, beta1));
        bytes.update(struct -> l4j_adamw_hyper.beta2(struct, beta2));
        return this;
    }

    /** Sets what is added to the denominator. */
    public AdamwHyper epsilon(double epsilon) {
        bytes.update(struct -> l4j_adamw_hyper.epsilon(struct, epsilon));
        return this;
    }

    /** Sets the decoupled weight decay. */
    public AdamwHyper weightDecay(double weightDecay) {
        bytes.update(struct -> l4j_adamw_hyper.weight_decay(struct, weightDecay));
        return this;
    }

    /** Sets the norm to which the group's gradient is clipped; 0 = no clipping. */
    public AdamwHyper maxGradNorm(double maxGradNorm) {
        bytes.update(struct -> l4j_adamw_hyper.max_grad_norm(struct, maxGradNorm));
        return this;
    }

    /** Sets the factor by which gradients are multiplied first; 1 = none. */
    public AdamwHyper gradScale(double gradScale) {
        bytes.update(struct -> l4j_adamw_hyper.grad_scale(struct, gradScale));
        return this;
    }

    /** Sets the number of this update, 1 for the first. */
    public AdamwHyper step(long step) {
        bytes.update(struct -> l4j_adamw_hyper.step(struct, step));
        return this;
    }

    /** Returns the number of this update. */
    public long step() {
        return l4j_adamw_hyper.step(bytes.host());
    }

    /** Returns the learning rate. */
    public double learningRate() {
        return l4j_adamw_hyper.learning_rate(bytes.host());
    }

    Tensor bytes() {
        return bytes;
    }
}
