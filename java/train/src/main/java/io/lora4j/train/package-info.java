/**
 * The training loop and what it is made of: options, schedule, step, evaluation, memory plan.
 *
 * <p>{@link io.lora4j.train.Trainer} is the whole of {@code lora4j train}. The pieces below it are public, so that a program
 * can run a loop of its own: {@link io.lora4j.train.data.Dataset} makes rows of token ids,
 * {@link io.lora4j.train.data.BatchPlan} says which rows make up a step, {@link io.lora4j.train.Schedule} gives the learning
 * rate, {@link io.lora4j.train.checkpoint.CheckpointStore} keeps the state.
 */
@NullMarked
package io.lora4j.train;

import org.jspecify.annotations.NullMarked;
