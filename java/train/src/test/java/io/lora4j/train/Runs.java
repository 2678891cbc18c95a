package io.lora4j.train;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;

/**
 * Small runs over tiny-llama for the tests. As a program it is a run that can be killed: arguments are {@code name=value}, and
 * {@code now=<time>} for the time at which it begins.
 */
public final class Runs {
    static final Path TINY = Path.of(System.getProperty("lora4j.root"), "test-data", "tiny-llama");

    private Runs() {}

    public static void main(String[] args) throws IOException {
        Settings.Builder builder = TrainOptions.builder();
        Clock clock = Clock.systemUTC();
        for (String arg : args) {
            int equals = arg.indexOf('=');
            String name = arg.substring(0, equals);
            String value = arg.substring(equals + 1);
            if (name.equals("now")) {
                clock = Clock.fixed(Instant.parse(value), ZoneOffset.UTC);
            } else {
                builder.put(name, value);
            }
        }
        TrainResult result = Trainer.open(builder.build(), clock).run(new TrainListener() {
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

    /** Makes a folder of tiny-llama's files, in which single ones can be replaced. */
    static Path model(Path dir) throws IOException {
        Files.createDirectories(dir);
        for (String name : List.of(
                "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")) {
            Files.copy(TINY.resolve(name), dir.resolve(name));
        }
        return dir;
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

    /** Writes rows of messages for a template that prints the date. */
    static Path chats(Path dir) throws IOException {
        List<String> lines = new ArrayList<>();
        String[] colours = {"white", "red", "green", "blue", "black", "brown", "yellow"};
        for (String colour : colours) {
            lines.add("{\"messages\": [{\"role\": \"user\", \"content\": \"What colour is the " + colour
                    + " book?\"}, {\"role\": \"assistant\", \"content\": \"It is " + colour + ".\"}]}");
        }
        return Files.write(dir.resolve("chats.jsonl"), lines);
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
