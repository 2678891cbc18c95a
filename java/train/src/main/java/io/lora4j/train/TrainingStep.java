package io.lora4j.train;

import io.lora4j.kernels.Adamw;
import io.lora4j.kernels.AdamwHyper;
import io.lora4j.kernels.AdamwOps;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.NumericStatus;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.data.MicroBatch;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.BatchLoss;
import io.lora4j.train.model.GradientOptions;
import io.lora4j.train.model.LlamaModel;
import java.lang.foreign.Arena;
import java.util.List;

/**
 * One optimizer step: loss and gradients of its micro-batches, then AdamW over the adapter as one group.
 *
 * <p>Gradients are those of the mean loss over all target tokens of the step, however it is split into micro-batches. They are
 * clipped by their common norm. A step with a NaN or Inf changes nothing: neither the adapter nor the moments.
 *
 * <p>Threads: any one at a time, as for the model.
 */
public final class TrainingStep implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
    private final LlamaModel model;
    private final Adapter adapter;
    private final boolean gradientCheckpointing;
    private final long seed;
    private final AdamwHyper hyper;
    private final Tensor gradNorm;
    private final NumericStatus numeric;
    private final Adamw adamw;

    /**
     * Prepares the step.
     *
     * @param model the base model
     * @param adapter a trainable adapter of it, with gradients of zero
     * @param settings those of {@link TrainOptions} for AdamW, clipping, checkpointing and the seed
     */
    public TrainingStep(LlamaModel model, Adapter adapter, Settings settings) {
        this.model = model;
        this.adapter = adapter;
        this.gradientCheckpointing = settings.get(TrainOptions.GRADIENT_CHECKPOINTING);
        this.seed = settings.get(TrainOptions.SEED);
        this.hyper = AdamwHyper.allocate(arena)
                .betas(settings.get(TrainOptions.ADAM_BETA1), settings.get(TrainOptions.ADAM_BETA2))
                .epsilon(settings.get(TrainOptions.ADAM_EPSILON))
                .weightDecay(settings.get(TrainOptions.WEIGHT_DECAY))
                .maxGradNorm(settings.get(TrainOptions.MAX_GRAD_NORM))
                .gradScale(1);
        this.gradNorm = Tensor.allocate(arena, DType.F64, 1);
        this.numeric = NumericStatus.allocate(arena);
        Adamw.Builder builder =
                Adamw.builder(arena).group(hyper, gradNorm).numeric(numeric).zeroGrads(true);
        adapter.parameterList().forEach(p -> builder.parameter(p.value(), p.gradient(), p.expAvg(), p.expAvgSq()));
        this.adamw = builder.build();
    }

    /**
     * What a step came to.
     *
     * @param loss over all target tokens of the step, before the update
     * @param gradNorm ‖gradients‖₂ before clipping
     * @param tokens tokens of all rows
     * @param microBatches how many there were
     * @param accuracySum sum of their token accuracies; TRL's {@code mean_token_accuracy} is the mean over micro-batches
     */
    public record Result(BatchLoss loss, double gradNorm, long tokens, int microBatches, double accuracySum) {}

    /**
     * Runs a step.
     *
     * @param step its number, 1 for the first of the run; AdamW's bias correction and the dropout depend on it
     * @param learningRate its learning rate
     * @param microBatches its rows
     * @throws TrainException if a loss or gradient is not finite
     */
    public Result run(int step, double learningRate, List<MicroBatch> microBatches) {
        long tokens = 0;
        long targets = 0;
        for (MicroBatch micro : microBatches) {
            tokens += micro.batch().tokens();
            targets += micro.batch().targetTokens();
        }
        GradientOptions options = new GradientOptions(1.0 / targets, gradientCheckpointing, seed, step);
        BatchLoss loss = BatchLoss.NONE;
        double accuracySum = 0;
        for (MicroBatch micro : microBatches) {
            BatchLoss part = gradients(step, micro, options);
            loss = loss.plus(part);
            accuracySum += part.accuracy();
        }
        hyper.learningRate(learningRate).step(step);
        AdamwOps.step(model.queue(), adamw);
        if (numeric.isSet()) {
            String tensor = adapter.parameterList().get(numeric.tensor()).name();
            numeric.clear();
            List<Integer> lines =
                    microBatches.stream().flatMap(m -> m.lines().stream()).toList();
            throw new TrainException(
                    "step " + step + ": the gradient of " + tensor + " is not finite, with the rows of lines " + lines
                            + "; nothing was updated: lower learning_rate, set max_grad_norm, or look at these rows");
        }
        return new Result(loss, gradNorm.getDouble(0), tokens, microBatches.size(), accuracySum);
    }

    private BatchLoss gradients(int step, MicroBatch micro, GradientOptions options) {
        try {
            return model.lossAndGradients(micro.batch(), adapter, options);
        } catch (NumericException e) {
            throw new TrainException(
                    "step " + step + ": " + e.getMessage() + ", with the rows of lines " + micro.lines()
                            + "; nothing was updated: lower learning_rate, set max_grad_norm, or look at these rows");
        }
    }

    /** Frees the optimizer's arguments; adapter and model stay open. */
    @Override
    public void close() {
        arena.close();
    }
}
