package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.train.checkpoint.Sha256;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * One run has one adapter, to the last bit, on every tier and with any number of threads. A tier is chosen as users do it, by the
 * environment variable {@code LORA4J_MAX_ISA} of a process of its own; one that the machine lacks is the best that it has.
 */
class OneHashTest {
    /** sha256 of adapter_model.safetensors. It is the same on every machine; only another file layout or other numerics may change it. */
    private static final String TINY_LLAMA = "f142456c7cfb58b209a323bb33f849c270bda986dde3f096fa40611ad7eed5f2";

    @TempDir
    Path dir;

    private Path data;

    /** Writes rows of a few tokens, so that ref can follow. */
    @BeforeEach
    void writeData() throws IOException {
        String[] colours = {"red", "blue", "green", "white", "black"};
        List<String> lines = new ArrayList<>();
        for (int i = 0; i < colours.length; i++) {
            lines.add("{\"prompt\": \"It is\", \"completion\": \" " + (i % 2 == 0 ? "very " : "") + colours[i] + "\"}");
        }
        data = Files.write(dir.resolve("rows.jsonl"), lines);
    }

    /** Uses everything that could depend on a machine: dropout, clipping, decay, a cosine, accumulation with a short last group. */
    private Settings.Builder run(Path model, int steps) {
        return Runs.small(data, dir.resolve("out"))
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.OVERWRITE_OUTPUT_DIR, true)
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 1)
                .set(TrainOptions.GRADIENT_ACCUMULATION_STEPS, 3)
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.COSINE)
                .set(TrainOptions.WARMUP_STEPS, 2)
                .set(TrainOptions.WEIGHT_DECAY, 0.1)
                .set(TrainOptions.MAX_GRAD_NORM, 0.5)
                .set(TrainOptions.MAX_STEPS, steps);
    }

    private String hash(Settings.Builder run, String tier, int threads) throws Exception {
        Path log = dir.resolve("log");
        ProcessBuilder builder = new ProcessBuilder(
                Runs.command(run.set(TrainOptions.THREADS, threads).build()));
        builder.environment().putAll(Map.of("LORA4J_MAX_ISA", tier));
        builder.redirectErrorStream(true).redirectOutput(log.toFile());
        Process process = builder.start();
        assertThat(process.waitFor(1, TimeUnit.HOURS)).as("the run ends").isTrue();
        assertThat(process.exitValue()).as(() -> read(log)).isZero();
        return Sha256.of(dir.resolve("out/adapter_model.safetensors"));
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException e) {
            return e.toString();
        }
    }

    @Test
    void tinyLlamaHasOneAdapter() throws Exception {
        assertThat(hash(run(Runs.TINY, 20), "ref", 2)).as("ref").isEqualTo(TINY_LLAMA);
        for (String tier : List.of("avx2", "avx512")) {
            for (int threads : List.of(1, 2, 5)) {
                assertThat(hash(run(Runs.TINY, 20), tier, threads))
                        .as("%s, %s threads", tier, threads)
                        .isEqualTo(TINY_LLAMA);
            }
        }
    }

    /** Prints the hashes, which depend on the model's file: {@code bench/results/one-hash.md} has those of one. */
    @Test
    void smolLm2HasOneAdapter() throws Exception {
        String folder = System.getenv("LORA4J_SMOLLM2");
        Assumptions.assumeTrue(folder != null, "skipped: the environment variable LORA4J_SMOLLM2 is not set");
        Path model = Path.of(folder);
        System.out.println("model.safetensors " + Sha256.of(model.resolve("model.safetensors")));
        String whole = report(run(model, 200), "avx2", 2);
        assertThat(report(run(model, 200), "avx512", 2)).isEqualTo(whole);
        for (int threads : List.of(1, 5)) {
            assertThat(report(run(model, 200), "avx2", threads)).isEqualTo(whole);
        }
        String ten = report(run(model, 10), "avx2", 2);
        assertThat(report(run(model, 10), "avx512", 2)).isEqualTo(ten);
        assertThat(report(run(model, 10), "ref", 2)).isEqualTo(ten);
    }

    private String report(Settings.Builder run, String tier, int threads) throws Exception {
        long start = System.nanoTime();
        String hash = hash(run, tier, threads);
        System.out.printf(
                "%s steps, %s, %s threads: %s (%.0f s)%n",
                run.build().get(TrainOptions.MAX_STEPS), tier, threads, hash, (System.nanoTime() - start) * 1e-9);
        return hash;
    }
}
