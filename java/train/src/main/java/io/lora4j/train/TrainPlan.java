package io.lora4j.train;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModelModule;
import io.lora4j.train.data.BatchPlan;
import io.lora4j.train.data.Dataset;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.List;
import java.util.Optional;

/**
 * Everything about a run that is known before its first step: what a user should see and may want to stop at. Immutable.
 *
 * @param settings the options
 * @param model the base model's config
 * @param adapter the adapter's config
 * @param modules the layers that get an adapter
 * @param trainableParameters numbers that are trained
 * @param data the training rows, with how many were cut and dropped
 * @param evalData the evaluation rows, if there is an {@code eval_file}
 * @param previews the first rows as the model gets them, with what is learned of them
 * @param batches which rows make up which step
 * @param schedule the learning rate, with the number of steps of the run
 * @param milestones when it logs, evaluates and saves
 * @param memory what the run needs and what there is
 * @param clock the time that chat templates with a date in them show: when the run was first started
 * @param resumeFrom the checkpoint that the run goes on from, if it does
 */
public record TrainPlan(
        Settings settings,
        ModelConfig model,
        AdapterConfig adapter,
        List<ModelModule> modules,
        long trainableParameters,
        Dataset data,
        Optional<Dataset> evalData,
        List<List<Dataset.Piece>> previews,
        BatchPlan batches,
        Schedule schedule,
        Milestones milestones,
        MemoryPlan memory,
        ZonedDateTime clock,
        Optional<Path> resumeFrom) {

    /** Copies the lists. */
    public TrainPlan {
        modules = List.copyOf(modules);
        previews = previews.stream().map(List::copyOf).toList();
    }

    /** Returns the first row as the model gets it. */
    public List<Dataset.Piece> preview() {
        return previews.getFirst();
    }

    /** Returns the optimizer steps of the whole run. */
    public int totalSteps() {
        return schedule.totalSteps();
    }

    /** Returns the part of all parameters that is trained. */
    public double trainableShare() {
        return (double) trainableParameters / (model.parameters() + trainableParameters);
    }
}
