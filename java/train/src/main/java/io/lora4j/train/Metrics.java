package io.lora4j.train;

import io.lora4j.train.model.BatchLoss;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * The numbers of a step.
 *
 * @param step the optimizer step, 1 for the first
 * @param totalSteps steps of the whole run
 * @param epoch passes over the data done, with a fraction
 * @param loss mean cross-entropy of the step's target tokens, before the update, in nats
 * @param accuracy part of them that the model's most likely token predicted
 * @param learningRate the step's learning rate
 * @param gradNorm norm of the gradient before clipping
 * @param tokens tokens of the step, targets or not
 * @param seconds how long it took
 */
public record Metrics(
        int step,
        int totalSteps,
        double epoch,
        double loss,
        double accuracy,
        double learningRate,
        double gradNorm,
        long tokens,
        double seconds) {

    /**
     * The sums since the last line of {@code metrics.jsonl}, and since the start. They are part of a checkpoint, so that a resumed
     * run writes the lines that it would have written. One thread at a time.
     */
    static final class Window {
        private static final String STEPS = "steps";
        private static final String LOSS = "loss";
        private static final String CORRECT = "correct";
        private static final String TARGETS = "targets";
        private static final String TOKENS = "tokens";
        private static final String SECONDS = "seconds";
        private static final String NUM_TOKENS = "num_tokens";

        private final Map<String, Double> sums = new LinkedHashMap<>();

        Window(Map<String, Double> saved) {
            sums.putAll(saved);
        }

        void add(TrainingStep.Result result, double seconds) {
            BatchLoss loss = result.loss();
            plus(STEPS, 1);
            plus(LOSS, loss.meanLoss());
            plus(CORRECT, (double) loss.correct());
            plus(TARGETS, (double) loss.targetTokens());
            plus(TOKENS, (double) result.tokens());
            plus(SECONDS, seconds);
            plus(NUM_TOKENS, (double) result.tokens());
        }

        private void plus(String name, double value) {
            sums.merge(name, value, Double::sum);
        }

        /** Returns the line for a step under TRL's keys, and starts again. */
        Map<String, Object> line(Metrics last) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("step", last.step());
            line.put("epoch", last.epoch());
            line.put("loss", sum(LOSS) / sum(STEPS));
            line.put("grad_norm", last.gradNorm());
            line.put("learning_rate", last.learningRate());
            line.put("mean_token_accuracy", sum(CORRECT) / sum(TARGETS));
            line.put("num_tokens", (long) sum(NUM_TOKENS));
            line.put("tokens_per_second", sum(TOKENS) / sum(SECONDS));
            sums.keySet().retainAll(Set.of(NUM_TOKENS));
            return line;
        }

        private double sum(String name) {
            return sums.getOrDefault(name, 0.0);
        }

        /** Returns the sums for a checkpoint. */
        Map<String, Double> saved() {
            return new LinkedHashMap<>(sums);
        }
    }
}
