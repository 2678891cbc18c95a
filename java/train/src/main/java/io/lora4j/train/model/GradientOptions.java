package io.lora4j.train.model;

/**
 * How a backward pass is done.
 *
 * @param gradScale factor of all gradients: 1 / target tokens of the whole optimizer step makes the loss their mean, however the
 *     step is split into batches
 * @param gradientCheckpointing whether to keep only each layer's input and work the rest out again; same bits, less memory, more time
 * @param dropoutSeed key of the dropout masks
 * @param step number of the optimizer step, which the masks depend on and messages name
 */
public record GradientOptions(double gradScale, boolean gradientCheckpointing, long dropoutSeed, long step) {}
