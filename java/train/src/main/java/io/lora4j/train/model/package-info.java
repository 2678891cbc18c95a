/**
 * Models of the Llama family and what runs on them: LoRA training steps, evaluation, generation.
 *
 * <p>{@link io.lora4j.train.model.LlamaModel} calls the operations of {@link io.lora4j.kernels} in order, forward then backward;
 * there is no autograd graph. {@link io.lora4j.train.model.Adapter} holds what is trained.
 */
@NullMarked
package io.lora4j.train.model;

import org.jspecify.annotations.NullMarked;
