package io.lora4j.train;

import io.lora4j.train.model.BatchLoss;
import java.nio.file.Path;

/**
 * Watches a run. The methods are called by the thread that runs it, between steps; what they throw ends the run after the state
 * has been left as the last checkpoint has it.
 */
public interface TrainListener {
    /** A listener that does nothing. */
    TrainListener NONE = new TrainListener() {};

    /** Called before the first step. {@code firstStep} is 1, or the step after the checkpoint. */
    default void onStart(TrainPlan plan, int firstStep) {}

    /** Called after every step. */
    default void onStep(Metrics metrics) {}

    /** Called after an evaluation of {@code eval_file}. */
    default void onEval(int step, BatchLoss loss) {}

    /** Called when a checkpoint is on the disk. */
    default void onSave(int step, Path checkpoint) {}
}
