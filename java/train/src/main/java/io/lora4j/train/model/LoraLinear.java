package io.lora4j.train.model;

import io.lora4j.kernels.AdamwMoment;
import io.lora4j.kernels.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * The adapter of one linear layer: its update is {@code scaling · B · A}. Immutable, while the numbers in the tensors change.
 *
 * @param module name of the linear layer as Hugging Face has it, for example {@code model.layers.0.self_attn.q_proj}
 * @param layer index of the decoder block
 * @param moduleId the number by which dropout knows the module: 7 · layer + place among q, k, v, o, gate, up, down
 * @param scaling alpha/r, or alpha/√r with rsLoRA
 * @param a A, [R, K]
 * @param b B, [N, R]
 */
public record LoraLinear(String module, int layer, int moduleId, double scaling, Parameter a, Parameter b) {

    /** Returns R. */
    public int rank() {
        return (int) a.value().size(0);
    }

    /**
     * One trainable matrix. Gradient and moments exist in an adapter that is trained; in one that is only used asking for them fails
     * with {@link IllegalStateException}.
     */
    public static final class Parameter {
        private final String name;
        private final Tensor value;
        private final @Nullable Training training;

        record Training(Tensor gradient, AdamwMoment expAvg, AdamwMoment expAvgSq) {}

        Parameter(String name, Tensor value, @Nullable Training training) {
            this.name = name;
            this.value = value;
            this.training = training;
        }

        /** Returns the name that PEFT's files give it: {@code base_model.model.<module>.lora_A.weight}. */
        public String name() {
            return name;
        }

        /** Returns the numbers themselves. */
        public Tensor value() {
            return value;
        }

        /** Returns the gradient, which backward passes add to; of the same shape. */
        public Tensor gradient() {
            return training().gradient();
        }

        /** Returns AdamW's running mean of the gradient. */
        public AdamwMoment expAvg() {
            return training().expAvg();
        }

        /** Returns AdamW's running mean of the squared gradient. */
        public AdamwMoment expAvgSq() {
            return training().expAvgSq();
        }

        private Training training() {
            if (training == null) {
                throw new IllegalStateException(
                        name + " belongs to an adapter that was opened for use only, not for training");
            }
            return training;
        }
    }
}
