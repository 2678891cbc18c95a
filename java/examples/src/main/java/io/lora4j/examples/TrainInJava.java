package io.lora4j.examples;

import io.lora4j.train.Metrics;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainListener;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.TrainResult;
import io.lora4j.train.Trainer;
import io.lora4j.train.model.BatchLoss;
import java.io.IOException;
import java.nio.file.Path;

/**
 * What {@code lora4j train} does, from a program: {@code TrainInJava MODEL DATA OUTPUT}. It watches the run, and ends it as soon as
 * the loss is low; a run that was cancelled has a checkpoint and can go on.
 */
public final class TrainInJava {
    private TrainInJava() {}

    public static void main(String[] args) throws IOException {
        Settings settings = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, Path.of(args[0]))
                .set(TrainOptions.TRAIN_FILE, Path.of(args[1]))
                .set(TrainOptions.EVAL_FILE, Path.of(args[1]))
                .set(TrainOptions.OUTPUT_DIR, Path.of(args[2]))
                .set(TrainOptions.LORA_R, 8)
                .set(TrainOptions.LEARNING_RATE, 2e-3)
                .set(TrainOptions.MAX_STEPS, 50)
                .set(TrainOptions.SAVE_STEPS, 2)
                .build();
        Trainer trainer = Trainer.open(settings);
        System.out.println(trainer.plan().trainableParameters() + " parameters to train");
        TrainResult result = trainer.run(new TrainListener() {
            @Override
            public void onStep(Metrics metrics) {
                System.out.printf("step %d: loss %.4f%n", metrics.step(), metrics.loss());
                if (metrics.loss() < 1) {
                    trainer.cancel();
                }
            }

            @Override
            public void onEval(int step, BatchLoss loss) {
                System.out.printf("step %d: perplexity %.2f%n", step, loss.perplexity());
            }

            @Override
            public void onSave(int step, Path checkpoint) {
                System.out.println("saved " + checkpoint.getFileName());
            }
        });
        System.out.println((result.completed() ? "completed" : "cancelled") + " after step " + result.step());
    }
}
