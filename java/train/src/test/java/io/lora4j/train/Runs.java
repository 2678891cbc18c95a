package io.lora4j.train;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Small runs over tiny-llama for the tests. As a program it is a run that can be killed: arguments are {@code name=value}. */
public final class Runs {
    static final Path TINY = Path.of(System.getProperty("lora4j.root"), "test-data", "tiny-llama");

    private Runs() {}

    public static void main(String[] args) throws IOException {
        Settings.Builder builder = TrainOptions.builder();
        for (String arg : args) {
            int equals = arg.indexOf('=');
            builder.put(arg.substring(0, equals), arg.substring(equals + 1));
        }
        TrainResult result = Trainer.open(builder.build()).run(new TrainListener() {
            @Override
            public void onStart(TrainPlan plan, int firstStep) {
                System.out.println("start " + firstStep);
            }
        });
        System.out.println("end " + result.step());
    }

    /** Returns the command of a process that makes this run. */
    static List<String> command(Settings settings) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-Xmx256m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("java.class.path")));
        for (String property : List.of("lora4j.root", "lora4j.native.path")) {
            command.add("-D" + property + "=" + System.getProperty(property));
        }
        command.add(Runs.class.getName());
        settings.toMap().forEach((name, value) -> {
            if (settings.isSet(settings.table().find(name))) {
                command.add(name + "=" + value);
            }
        });
        return command;
    }

    /** Writes rows of different lengths. */
    static Path data(Path dir) throws IOException {
        List<String> lines = new ArrayList<>();
        String[] animals = {"fox", "owl", "little bear", "cat", "mouse", "brown dog", "bird"};
        for (int i = 0; i < animals.length; i++) {
            lines.add("{\"prompt\": \"The " + animals[i] + "\", \"completion\": \"" + " ran home".repeat(1 + i % 3)
                    + " and slept.\"}");
        }
        return Files.write(dir.resolve("train.jsonl"), lines);
    }

    /** Returns a run of a few quick steps: 7 rows, 2 in a micro-batch, so 4 steps in an epoch. */
    static Settings.Builder small(Path data, Path output) {
        return TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, TINY)
                .set(TrainOptions.TRAIN_FILE, data)
                .set(TrainOptions.OUTPUT_DIR, output)
                .set(TrainOptions.LORA_R, 4)
                .set(TrainOptions.LORA_DROPOUT, 0.1)
                .set(TrainOptions.LEARNING_RATE, 2e-3)
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 2)
                .set(TrainOptions.MAX_STEPS, 6)
                .set(TrainOptions.LOGGING_STEPS, 1)
                .set(TrainOptions.SAVE_STEPS, 0)
                .set(TrainOptions.THREADS, 2);
    }

    static TrainResult run(Settings.Builder builder) throws IOException {
        return Trainer.open(builder.build()).run(TrainListener.NONE);
    }

    static byte[] adapter(Path output) throws IOException {
        return Files.readAllBytes(output.resolve("adapter_model.safetensors"));
    }
}
