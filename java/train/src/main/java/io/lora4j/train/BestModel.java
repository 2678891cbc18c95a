package io.lora4j.train;

import io.lora4j.train.model.BatchLoss;
import java.util.Map;
import java.util.OptionalInt;

/** The best evaluation of a run so far. It is part of a checkpoint, like {@link Metrics.Window}. One thread at a time. */
final class BestModel {
    private static final String METRIC = "best_metric";
    private static final String STEP = "best_global_step";

    /** The metrics that an evaluation can be judged by. */
    enum Metric {
        EVAL_LOSS,
        EVAL_MEAN_TOKEN_ACCURACY;

        static Metric of(String name) {
            return name.equals("eval_loss") ? EVAL_LOSS : EVAL_MEAN_TOKEN_ACCURACY;
        }

        boolean greaterIsBetter() {
            return this == EVAL_MEAN_TOKEN_ACCURACY;
        }
    }

    /** Reads an option's value as transformers does, with or without {@code eval_}. */
    static String metricName(Object given) {
        String name = given.toString().startsWith("eval_") ? given.toString() : "eval_" + given;
        if (!name.equals("eval_loss") && !name.equals("eval_mean_token_accuracy")) {
            throw new IllegalArgumentException("eval_loss or eval_mean_token_accuracy");
        }
        return name;
    }

    private final Metric metric;
    private double best;
    private int step;

    /**
     * Goes on from what a checkpoint has.
     *
     * @param saved the checkpoint's numbers; empty for a new run
     */
    BestModel(Metric metric, Map<String, Double> saved) {
        this.metric = metric;
        this.best = saved.getOrDefault(
                METRIC, metric.greaterIsBetter() ? Double.NEGATIVE_INFINITY : Double.POSITIVE_INFINITY);
        this.step = saved.getOrDefault(STEP, 0.0).intValue();
    }

    /** Takes note of an evaluation, and returns whether it is better than all before; an equal one is not. */
    boolean offer(int now, BatchLoss loss) {
        double value = metric == Metric.EVAL_LOSS ? loss.meanLoss() : loss.accuracy();
        boolean better = metric.greaterIsBetter() ? value > best : value < best;
        if (better) {
            best = value;
            step = now;
        }
        return better;
    }

    /** Returns the step of the best evaluation, if there was one. */
    OptionalInt step() {
        return step == 0 ? OptionalInt.empty() : OptionalInt.of(step);
    }

    /** Adds the numbers for a checkpoint. */
    void saveTo(Map<String, Double> progress) {
        if (step > 0) {
            progress.put(METRIC, best);
            progress.put(STEP, (double) step);
        }
    }
}
