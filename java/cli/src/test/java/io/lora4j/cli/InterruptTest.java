package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Processes that are interrupted or killed: nothing is lost, and going on ends with the same bits. */
class InterruptTest {
    private static final String ADAPTER = "adapter_model.safetensors";
    private static final int KILLS = Integer.getInteger("lora4j.kills", 6);
    private static final int STEPS = 30;

    @TempDir
    Path dir;

    private Path data;
    private Path log;

    @BeforeEach
    void prepare() throws IOException {
        data = Cli.data(dir);
        log = Files.createFile(dir.resolve("log"));
    }

    /** Ctrl-C at a step, before the first one, and twice: the step is finished and saved, and how to go on is said. */
    @Test
    void ctrlCSavesAndSaysHowToGoOn() throws Exception {
        Path output = dir.resolve("out");
        Process process = Cli.start(List.of(), log, train(output, 2000));
        waitUntilLogHas("step 3/2000");
        interrupt(process);
        interrupt(process);
        assertThat(Cli.waitFor(process)).isEqualTo(130);
        assertThat(Files.readString(log))
                .contains("stopping: finishing this step and saving")
                .containsPattern("stopped after step \\d+, saved in " + output + "/checkpoint-\\d+")
                .contains("go on with the same command and --resume_from_checkpoint true");
        assertThat(output.resolve(ADAPTER)).doesNotExist();

        int step = newest(output);
        int end = step + 5;
        Cli.Result resumed = Cli.run(
                Stream.concat(Stream.of(train(output, end)), Stream.of("--resume_from_checkpoint", true, "--json"))
                        .toArray());
        assertThat(resumed.json().get("completed").booleanValue()).isTrue();
        assertThat(output.resolve("loss.png")).exists();
        assertThat(resumed.err()).contains("goes on from " + output.resolve("checkpoint-" + step));
        Cli.Result whole = Cli.run(train(dir.resolve("whole"), end));
        assertThat(whole.status()).isZero();
        assertThat(output.resolve(ADAPTER))
                .hasSameBinaryContentAs(dir.resolve("whole").resolve(ADAPTER));
    }

    @Test
    void terminateIsLikeCtrlC() throws Exception {
        Path output = dir.resolve("out");
        Process process = Cli.start(List.of(), log, train(output, 2000));
        waitUntilLogHas("first row");
        process.destroy();
        assertThat(Cli.waitFor(process)).isEqualTo(143);
        assertThat(newest(output)).isPositive();
        assertThat(Files.readString(log)).contains("go on with the same command");
    }

    /** Killed at random moments, half of them right after something appeared in the folder: in the middle of saving. */
    @Test
    void killedRunsEndWithTheSameBits() throws Exception {
        Path whole = dir.resolve("whole");
        assertThat(Cli.run(train(whole, STEPS)).status()).isZero();

        Path killed = dir.resolve("killed");
        Object[] again = Stream.concat(
                        Stream.of(train(killed, STEPS)), Stream.of("--save_steps", 1, "--resume_from_checkpoint", true))
                .toArray();
        Random random = new Random(3);
        int killedAlive = 0;
        for (int kill = 0; kill < KILLS; kill++) {
            Process process = Cli.start(List.of(), log, again);
            int before = state(killed);
            while (process.isAlive() && state(killed) == before) {
                Thread.onSpinWait();
            }
            TimeUnit.MICROSECONDS.sleep(random.nextInt(kill % 2 == 0 ? 3_000 : 80_000));
            killedAlive += process.isAlive() ? 1 : 0;
            process.destroyForcibly();
            Cli.waitFor(process);
        }
        assertThat(killedAlive).as("runs that were killed before their end").isGreaterThan(KILLS / 2);
        assertThat(Cli.waitFor(Cli.start(List.of(), log, again)))
                .as(() -> tail())
                .isZero();
        assertThat(killed.resolve(ADAPTER)).hasSameBinaryContentAs(whole.resolve(ADAPTER));
        assertThat(metrics(killed)).isEqualTo(metrics(whole)).hasSize(STEPS);
        try (Stream<Path> files = Files.list(killed)) {
            assertThat(files).noneMatch(f -> f.getFileName().toString().startsWith("."));
        }
    }

    /** {@code lora4j inspect … | head -1}: the command ends quietly when nobody reads any more. */
    @Test
    void theReaderGoes() throws Exception {
        Process process = new ProcessBuilder(Cli.command(List.of(), "inspect", Cli.TINY, "--json")).start();
        process.getInputStream().close();
        String err = new String(process.getErrorStream().readAllBytes());
        assertThat(Cli.waitFor(process)).isEqualTo(141);
        assertThat(err).isEmpty();
    }

    /** In the C locale, where Java's own streams would print question marks. */
    @Test
    void outputIsUtf8InEveryLocale() throws Exception {
        ProcessBuilder builder = new ProcessBuilder(Cli.command(
                List.of(),
                "generate",
                "--model",
                Cli.TINY,
                "--no_chat_template",
                "--prompt",
                "-",
                "--max_new_tokens",
                1,
                "--json"));
        builder.environment().put("LC_ALL", "C");
        Process process = builder.redirectError(log.toFile()).start();
        process.getOutputStream().write("a 🦊 猫".getBytes(java.nio.charset.StandardCharsets.UTF_8));
        process.getOutputStream().close();
        String out = new String(process.getInputStream().readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
        assertThat(Cli.waitFor(process)).as(this::tail).isZero();
        String here = Cli.runWithInput(
                        "a 🦊 猫",
                        "generate",
                        "--model",
                        Cli.TINY,
                        "--no_chat_template",
                        "--prompt",
                        "-",
                        "--max_new_tokens",
                        1,
                        "--json")
                .out();
        assertThat(out.replaceAll("\"seconds.*", "")).isEqualTo(here.replaceAll("\"seconds.*", ""));
    }

    private Object[] train(Path output, int steps) {
        return Cli.train(
                data,
                output,
                "--max_steps",
                steps,
                "--lora_dropout",
                0.1,
                "--lr_scheduler_type",
                "constant",
                "--threads",
                2);
    }

    private static void interrupt(Process process) throws Exception {
        assertThat(new ProcessBuilder("kill", "-INT", String.valueOf(process.pid()))
                        .start()
                        .waitFor())
                .isZero();
    }

    private void waitUntilLogHas(String text) throws Exception {
        long end = System.nanoTime() + TimeUnit.MINUTES.toNanos(2);
        while (!Files.readString(log).contains(text)) {
            assertThat(System.nanoTime()).as(this::tail).isLessThan(end);
            TimeUnit.MILLISECONDS.sleep(5);
        }
    }

    private String tail() {
        try {
            return Files.readString(log);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static int newest(Path output) throws IOException {
        try (Stream<Path> files = Files.list(output)) {
            return files.map(f -> f.getFileName().toString())
                    .filter(name -> name.startsWith("checkpoint-"))
                    .mapToInt(name -> Integer.parseInt(name.substring("checkpoint-".length())))
                    .max()
                    .orElseThrow();
        }
    }

    /** Changes with every file that comes or goes, hidden ones of a save under way too. */
    private static int state(Path output) {
        try (Stream<Path> all = Files.walk(output)) {
            return all.map(Path::toString).toList().hashCode();
        } catch (IOException | UncheckedIOException e) {
            return 0; // Not there yet, or changed while it was read.
        }
    }

    private static List<String> metrics(Path output) throws IOException {
        return Files.readAllLines(output.resolve("metrics.jsonl")).stream()
                .map(line -> line.replaceAll("\"tokens_per_second.*", ""))
                .toList();
    }
}
