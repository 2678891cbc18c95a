package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** The command, run in this process or in one of its own, and what the tests give to it. */
final class Cli {
    static final Path ROOT = Path.of(System.getProperty("lora4j.root"));
    static final Path TINY = ROOT.resolve("test-data/tiny-llama");
    static final Path GOLDEN = ROOT.resolve("test-data/golden/tiny-llama");

    /** The adapter of the golden vectors. */
    static final Path ADAPTER = GOLDEN.resolve("adapter_init");

    private Cli() {}

    /** What a command has come to. */
    record Result(int status, String out, String err) {
        JsonNode json() {
            assertThat(status).as(err).isZero();
            return new JsonMapper().readTree(out);
        }
    }

    static Result run(Object... args) {
        return runWithInput("", args);
    }

    static Result runWithInput(String input, Object... args) {
        return runWithInput(input.getBytes(StandardCharsets.UTF_8), args);
    }

    static Result runWithInput(byte[] input, Object... args) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        Console console = new Console(new ByteArrayInputStream(input), new PrintWriter(out), new PrintWriter(err));
        int status = Main.run(strings(args), console);
        console.err().flush();
        return new Result(status, out.toString(), err.toString());
    }

    /** Starts the command in a process of its own; both outputs go to the end of {@code log}. */
    static Process start(List<String> jvmOptions, Path log, Object... args) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command(jvmOptions, args));
        return builder.redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()))
                .start();
    }

    /** The command line of a process; of an option given twice the JVM takes the last. */
    static List<String> command(List<String> jvmOptions, Object... args) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-Xmx512m",
                "-XX:TieredStopAtLevel=1",
                "-Dlora4j.native.path=" + System.getProperty("lora4j.native.path"),
                "-Dlora4j.home=" + ROOT));
        command.addAll(jvmOptions);
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), Main.class.getName()));
        command.addAll(List.of(strings(args)));
        return command;
    }

    /** Runs the command in a process of its own. */
    static Result process(Path dir, List<String> jvmOptions, Object... args) throws Exception {
        Path out = dir.resolve("stdout");
        Path err = dir.resolve("stderr");
        Process process = new ProcessBuilder(command(jvmOptions, args))
                .redirectOutput(out.toFile())
                .redirectError(err.toFile())
                .start();
        return new Result(waitFor(process), Files.readString(out), Files.readString(err));
    }

    static int waitFor(Process process) throws InterruptedException {
        boolean ended = process.waitFor(3, TimeUnit.MINUTES);
        if (!ended) {
            process.destroyForcibly();
        }
        assertThat(ended).as("the process ends").isTrue();
        return process.exitValue();
    }

    /** Makes a folder of tiny-llama's files in which single ones can be replaced. */
    static Path model(Path dir) throws IOException {
        Files.createDirectories(dir);
        try (Stream<Path> files = Files.list(TINY)) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                Files.copy(file, dir.resolve(file.getFileName()));
            }
        }
        return dir;
    }

    /** Writes seven rows of different lengths, with {@code prompt} and {@code completion}. */
    static Path data(Path dir) throws IOException {
        List<String> lines = new ArrayList<>();
        String[] animals = {"fox", "owl", "little bear", "cat", "mouse", "brown dog", "bird"};
        for (int i = 0; i < animals.length; i++) {
            lines.add("{\"prompt\": \"The " + animals[i] + "\", \"completion\": \"" + " ran home".repeat(1 + i % 3)
                    + " and slept.\"}");
        }
        return Files.write(dir.resolve("train.jsonl"), lines);
    }

    /** Returns the arguments of a short training, and more of them. */
    static Object[] train(Path data, Path output, Object... more) {
        List<Object> args = new ArrayList<>(List.of(
                "train",
                "--model",
                TINY,
                "--data",
                data,
                "--output_dir",
                output,
                "--lora_r",
                4,
                "--learning_rate",
                "2e-3"));
        args.addAll(List.of("--per_device_train_batch_size", 2, "--logging_steps", 1));
        args.addAll(List.of(more));
        return args.toArray();
    }

    private static String[] strings(Object... args) {
        return Stream.of(args).map(String::valueOf).toArray(String[]::new);
    }
}
