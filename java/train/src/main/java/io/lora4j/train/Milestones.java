package io.lora4j.train;

/**
 * At which steps a run writes a line of metrics, evaluates and saves, by transformers' rules: every so many steps, or at the end
 * of every epoch, and at the last step. Immutable.
 *
 * @param totalSteps optimizer steps of the whole run
 * @param stepsPerEpoch optimizer steps of an epoch
 * @param loggingSteps steps between two lines of metrics
 * @param evalStrategy when it evaluates; NO without evaluation data
 * @param evalSteps steps between two evaluations, for STEPS
 * @param saveStrategy when it saves
 * @param saveSteps steps between two checkpoints, for STEPS; 0 saves at the end only
 */
public record Milestones(
        int totalSteps,
        int stepsPerEpoch,
        int loggingSteps,
        EvalStrategy evalStrategy,
        int evalSteps,
        SaveStrategy saveStrategy,
        int saveSteps) {

    /** When a run evaluates. */
    public enum EvalStrategy {
        /** Never. */
        NO,
        /** Every {@code eval_steps} steps and after the last one. */
        STEPS,
        /** At the end of every epoch and after the last step. */
        EPOCH
    }

    /** When a run saves a checkpoint. */
    public enum SaveStrategy {
        /** Only where it is interrupted. */
        NO,
        /** Every {@code save_steps} steps and after the last one. */
        STEPS,
        /** At the end of every epoch and after the last step. */
        EPOCH,
        /** After every evaluation that is better than all before. */
        BEST
    }

    static Milestones of(Settings settings, int totalSteps, int stepsPerEpoch, boolean evaluates) {
        Number logging = settings.get(TrainOptions.LOGGING_STEPS);
        Number evalSteps = settings.find(TrainOptions.EVAL_STEPS).orElse(logging);
        return new Milestones(
                totalSteps,
                stepsPerEpoch,
                steps(logging, totalSteps),
                evaluates ? settings.get(TrainOptions.EVAL_STRATEGY) : EvalStrategy.NO,
                steps(evalSteps, totalSteps),
                settings.get(TrainOptions.SAVE_STRATEGY),
                steps(settings.get(TrainOptions.SAVE_STEPS), totalSteps));
    }

    /** Returns a number of steps: the number given, or its part of the run, rounded up, if it is below 1. */
    static int steps(Number given, int totalSteps) {
        double value = given.doubleValue();
        return value < 1 ? (int) Math.ceil(totalSteps * value) : given.intValue();
    }

    /** Returns whether a line of metrics is written after a step. */
    public boolean logs(int step) {
        return step % loggingSteps == 0 || step == totalSteps;
    }

    /** Returns whether there is an evaluation after a step. */
    public boolean evaluates(int step) {
        return switch (evalStrategy) {
            case NO -> false;
            case STEPS -> step % evalSteps == 0 || step == totalSteps;
            case EPOCH -> endsEpoch(step);
        };
    }

    /**
     * Returns whether a checkpoint is saved after a step.
     *
     * @param best whether the step's evaluation was better than all before
     */
    public boolean saves(int step, boolean best) {
        return switch (saveStrategy) {
            case NO -> false;
            case STEPS -> step == totalSteps || (saveSteps > 0 && step % saveSteps == 0);
            case EPOCH -> endsEpoch(step);
            case BEST -> best;
        };
    }

    private boolean endsEpoch(int step) {
        return step % stepsPerEpoch == 0 || step == totalSteps;
    }
}
