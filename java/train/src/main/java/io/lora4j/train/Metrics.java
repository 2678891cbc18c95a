package io.lora4j.train;

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
 * @param accuracy part of them that the model's most likely token predicted, averaged over the micro-batches as TRL does
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
        private static final String ACCURACY = "accuracy";
        private static final String MICRO_BATCHES = "micro_batches";
        private static final String TOKENS = "tokens";
        private static final String SECONDS = "seconds";
        private static final String NUM_TOKENS = "num_tokens";
        private static final Set<String> ALL =
                Set.of(STEPS, LOSS, ACCURACY, MICRO_BATCHES, TOKENS, SECONDS, NUM_TOKENS);

        private final Map<String, Double> sums = new LinkedHashMap<>();

        Window(Map<String, Double> saved) {
            sums.putAll(saved);
            sums.keySet().retainAll(ALL);
        }

        void add(TrainingStep.Result result, double seconds) {
            plus(STEPS, 1);
            plus(LOSS, result.loss().meanLoss());
            plus(ACCURACY, result.accuracySum());
            plus(MICRO_BATCHES, result.microBatches());
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
            line.put("mean_token_accuracy", sum(ACCURACY) / sum(MICRO_BATCHES));
            line.put("num_tokens", numTokens());
            line.put("tokens_per_second", sum(TOKENS) / sum(SECONDS));
            sums.keySet().retainAll(Set.of(NUM_TOKENS));
            return line;
        }

        /** Returns the tokens trained on since the start, padding none. */
        long numTokens() {
            return (long) sum(NUM_TOKENS);
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
