package consumer;

import io.lora4j.kernels.Device;
import io.lora4j.train.TrainListener;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.TrainResult;
import io.lora4j.train.Trainer;
import java.io.IOException;
import java.nio.file.Path;

/** Trains two steps: {@code Train MODEL DATA OUTPUT}. */
public final class Train {
    private Train() {}

    public static void main(String[] args) throws IOException {
        System.out.println("class path " + System.getProperty("java.class.path"));
        TrainResult result = Trainer.open(TrainOptions.builder()
                        .set(TrainOptions.MODEL_NAME_OR_PATH, Path.of(args[0]))
                        .set(TrainOptions.TRAIN_FILE, Path.of(args[1]))
                        .set(TrainOptions.OUTPUT_DIR, Path.of(args[2]))
                        .set(TrainOptions.LORA_R, 4)
                        .set(TrainOptions.MAX_STEPS, 2)
                        .build())
                .run(TrainListener.NONE);
        System.out.println(Train.class.getModule() + " did " + result.step() + " steps with "
                + Device.library().path());
    }
}
