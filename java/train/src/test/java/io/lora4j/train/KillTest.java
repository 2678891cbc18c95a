package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A run that is killed again and again, at any moment, ends with the same bits as one that was left alone. */
class KillTest {
    private static final int KILLS = Integer.getInteger("lora4j.kills", 8);

    @TempDir
    Path dir;

    private Path data;
    private Path log;

    @Test
    void killedRunsEndWithTheSameBits() throws Exception {
        data = Runs.data(dir);
        log = dir.resolve("log");
        Path whole = dir.resolve("whole");
        assertThat(finish(start(whole, false))).isZero();
        assertThat(Files.readString(log)).contains("end 12");

        // Killed at moments of its work: when a step's checkpoint has begun or is there, and a random moment later.
        Random random = new Random(1);
        Path killed = dir.resolve("killed");
        int interrupted = 0;
        for (int kill = 0; kill < KILLS; kill++) {
            Process process = start(killed, true);
            int before = entries(killed);
            while (process.isAlive() && entries(killed) == before) {
                Thread.onSpinWait();
            }
            // Half of them right away, in the middle of writing.
            TimeUnit.MICROSECONDS.sleep(kill % 2 == 0 ? random.nextInt(3_000) : random.nextInt(60_000));
            process.destroyForcibly();
            if (finish(process) != 0) {
                interrupted++;
            }
        }
        assertThat(interrupted).isGreaterThan(KILLS / 2);
        assertThat(finish(start(killed, true))).isZero();
        for (String file :
                List.of("adapter_model.safetensors", "adapter_config.json", "checkpoint-12/optimizer.safetensors")) {
            assertThat(Files.mismatch(whole.resolve(file), killed.resolve(file)))
                    .as(file)
                    .isEqualTo(-1);
        }
        assertThat(losses(killed)).isEqualTo(losses(whole)).hasSize(12);
    }

    /** Every event in the directory counts: a checkpoint under its hidden name, then its own, a line of metrics. */
    private static int entries(Path output) {
        try (Stream<Path> all = Files.walk(output)) {
            return all.map(Path::toString).toList().hashCode();
        } catch (IOException | java.io.UncheckedIOException e) {
            return 0; // Not there yet, or changed while it was read.
        }
    }

    private Process start(Path output, boolean resume) throws IOException {
        Settings settings = Runs.small(data, output)
                .set(TrainOptions.MAX_STEPS, 12)
                .set(TrainOptions.SAVE_STEPS, 1)
                .build();
        List<String> command = Runs.command(settings);
        command.add("resume_from_checkpoint=" + resume);
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
