package io.lora4j.examples;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Processes of their own over the built jars, as users have them. */
final class Programs {
    static final Path ROOT = Path.of(System.getProperty("lora4j.root"));
    static final Path TINY = ROOT.resolve("test-data/tiny-llama");

    private Programs() {}

    /** What a process has come to; both outputs together. */
    record Result(int status, String output) {
        String succeeded() {
            assertThat(status).as(output).isZero();
            return output;
        }
    }

    static Result run(Map<String, String> environment, Path dir, List<String> command)
            throws IOException, InterruptedException {
        Path log = Files.createTempFile(dir, "output", ".txt");
        ProcessBuilder builder = new ProcessBuilder(command)
                .directory(dir.toFile())
                .redirectErrorStream(true)
                .redirectOutput(log.toFile());
        builder.environment().putAll(environment);
        builder.environment().keySet().removeAll(List.of("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"));
        Process process = builder.start();
        boolean ended = process.waitFor(5, TimeUnit.MINUTES);
        if (!ended) {
            process.destroyForcibly();
        }
        assertThat(ended).as("%s ends", command).isTrue();
        return new Result(process.exitValue(), Files.readString(log));
    }

    /** The command line of a JVM. */
    static List<String> java(List<String> options, Object... more) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Xmx512m",
                "-XX:TieredStopAtLevel=1"));
        command.addAll(options);
        Arrays.stream(more).map(String::valueOf).forEach(command::add);
        return command;
    }

    /** The jars of the other modules and all that they need; the module's own classes are not among them. */
    static String jars() {
        List<String> jars = Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
                .filter(entry -> entry.endsWith(".jar"))
                .toList();
        assertThat(jars)
                .as("built jars; run the phase integration-test")
                .anyMatch(jar -> jar.contains("lora4j-train-"));
        return String.join(File.pathSeparator, jars);
    }

    static String sha256(Path file) throws IOException {
        try (InputStream in = Files.newInputStream(file)) {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(in.readAllBytes()));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }

    /** Eight texts for tiny-llama. */
    static List<String> texts() {
        List<String> texts = new ArrayList<>();
        String[] animals = {"fox", "owl", "little bear", "cat", "mouse", "brown dog", "bird", "snail"};
        for (int i = 0; i < animals.length; i++) {
            texts.add("The " + animals[i] + " ran home".repeat(1 + i % 3) + " and slept.");
        }
        return texts;
    }

    /** Writes the texts as training rows. */
    static Path rows(Path dir) throws IOException {
        return Files.write(
                dir.resolve("train.jsonl"),
                texts().stream().map(text -> "{\"text\": \"" + text + "\"}").toList());
    }
}
