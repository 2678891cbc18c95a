package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.train.checkpoint.CheckpointStore;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A run that is killed again and again, at any moment, ends with the same bits as one that was left alone: over midnight, although its
 * chat template prints the date; at the end of an epoch; and it is refused where a row was edited meanwhile.
 *
 * <p>{@code -Dlora4j.kills=50} kills more often.
 */
class KillTest {
    private static final int KILLS = Integer.getInteger("lora4j.kills", 8);
    private static final int STEPS = 12;
    /** A save is about ten events. */
    private static final int EVENTS = 40;

    private static final Instant BEFORE_MIDNIGHT = Instant.parse("2026-12-31T23:59:58Z");

    @TempDir
    Path dir;

    private Path model;
    private Path data;
    private Path log;

    @BeforeEach
    void prepare() throws IOException {
        log = dir.resolve("log");
        model = Runs.model(dir.resolve("model"));
        Path template = model.resolve("chat_template.jinja");
        Files.writeString(
                template,
                "{{ '<|im_start|>system\\nToday is ' + strftime_now('%A, %d %B %Y') + '.<|im_end|>\\n' }}"
                        + Files.readString(template));
        data = Runs.chats(dir);
    }

    /** Every process that goes on from a checkpoint does so on a later day; one that finds none begins the run. */
    @Test
    void killedRunsEndWithTheSameBits() throws Exception {
        Path whole = dir.resolve("whole");
        assertThat(finish(start(whole, false, 0))).isZero();
        assertThat(Files.readString(log)).contains("end " + STEPS);

        // Killed at moments of its work: when so much has happened in the folder, and a random moment later.
        Random random = new Random(1);
        Path killed = dir.resolve("killed");
        int interrupted = 0;
        int resumed = 0;
        for (int kill = 0; kill < KILLS; kill++) {
            if (Files.exists(killed.resolve("chain.json"))) {
                verify(killed, whole); // Done: the next kills are for a new run.
                killed = dir.resolve("killed" + kill);
            }
            boolean begun = new CheckpointStore(killed, 1).newest().isPresent();
            Process process = start(killed, true, begun ? 1 + kill : 0);
            int events = 1 + random.nextInt(EVENTS);
            int seen = entries(killed);
            while (process.isAlive() && events > 0) {
                int now = entries(killed);
                events -= now == seen || now == 0 ? 0 : 1;
                seen = now == 0 ? seen : now;
                Thread.onSpinWait();
            }
            // Half of them right away, in the middle of writing.
            TimeUnit.MICROSECONDS.sleep(kill % 2 == 0 ? random.nextInt(3_000) : random.nextInt(60_000));
            process.destroyForcibly();
            if (finish(process) != 0) {
                interrupted++;
            }
            resumed += begun ? 1 : 0;
        }
        assertThat(interrupted).isGreaterThan(KILLS / 2);
        assertThat(resumed).isGreaterThan(KILLS / 4);
        boolean begun = new CheckpointStore(killed, 1).newest().isPresent();
        assertThat(finish(start(killed, true, begun ? 1 + KILLS : 0))).isZero();
        verify(killed, whole);

        // The date matters: a run that is begun on the next day is another one.
        Path tomorrow = dir.resolve("tomorrow");
        assertThat(finish(start(tomorrow, false, 1))).isZero();
        assertThat(Files.mismatch(adapter(tomorrow), adapter(whole))).isNotNegative();
    }

    /** Four steps make an epoch: killed as soon as the checkpoint of the fourth is there. */
    @Test
    void killedAtTheEndOfAnEpochAndWithAnEditedRow() throws Exception {
        Path whole = dir.resolve("whole");
        assertThat(finish(start(whole, false, 0))).isZero();
        Path killed = dir.resolve("killed");
        Process process = start(killed, true, 0, TrainOptions.SAVE_STEPS.name() + "=4");
        while (process.isAlive() && !Files.exists(killed.resolve("checkpoint-4"))) {
            Thread.onSpinWait();
        }
        process.destroyForcibly();
        finish(process);
        assertThat(killed.resolve("checkpoint-4")).isDirectory();
        assertThat(killed.resolve("checkpoint-8")).doesNotExist();

        String rows = Files.readString(data);
        Files.writeString(data, rows.replace("It is green", "It is groen"));
        assertThat(finish(start(killed, true, 1))).isNotZero();
        assertThat(Files.readString(log))
                .contains("is from a run that differs from this one", "data: " + data + " has changed in line 3: ");
        Files.writeString(data, rows);
        assertThat(finish(start(killed, true, 1))).isZero();
        verify(killed, whole);
    }

    private static Path adapter(Path run) {
        return run.resolve("adapter_model.safetensors");
    }

    private static void verify(Path run, Path whole) throws IOException {
        for (String file :
                List.of("adapter_model.safetensors", "adapter_config.json", "checkpoint-12/optimizer.safetensors")) {
            assertThat(Files.mismatch(whole.resolve(file), run.resolve(file)))
                    .as(file)
                    .isEqualTo(-1);
        }
        assertThat(losses(run)).isEqualTo(losses(whole)).hasSize(STEPS);
        assertThat(Verifier.open(run, Map.of()).problems()).isEmpty();
    }

    /** Every event in the directory counts: a checkpoint under its hidden name, then its own, a line of metrics. */
    private static int entries(Path output) {
        try (Stream<Path> all = Files.walk(output)) {
            return all.map(Path::toString).toList().hashCode();
        } catch (IOException | java.io.UncheckedIOException e) {
            return 0; // Not there yet, or changed while it was read.
        }
    }

    private Process start(Path output, boolean resume, int days, String... more) throws IOException {
        Settings settings = Runs.small(data, output)
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.ASSISTANT_ONLY_LOSS, false)
                .set(TrainOptions.MAX_STEPS, STEPS)
                .set(TrainOptions.SAVE_STEPS, 1)
                .build();
        List<String> command = Runs.command(settings);
        command.add(command.indexOf(Runs.class.getName()) + 1, "now=" + BEFORE_MIDNIGHT.plusSeconds(days * 86_400L));
        command.add("resume_from_checkpoint=" + resume);
        command.addAll(List.of(more));
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()));
        return builder.start();
    }

    private int finish(Process process) throws Exception {
        assertThat(process.waitFor(2, TimeUnit.MINUTES))
                .as(() -> "the run ends")
                .isTrue();
        return process.exitValue();
    }

    private static List<String> losses(Path output) throws IOException {
        return Files.readAllLines(output.resolve("metrics.jsonl")).stream()
                .map(line -> line.replaceAll("\"tokens_per_second.*", ""))
                .toList();
    }
}
