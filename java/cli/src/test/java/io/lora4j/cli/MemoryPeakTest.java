package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;

/** The memory plan against the largest resident size that the kernel counted, in a process that runs as the launcher starts it. */
class MemoryPeakTest {
    private static final Path LAUNCHER = Cli.ROOT.resolve("lora4j");
    private static final double WITHIN = 0.1;

    @TempDir
    Path dir;

    @Test
    void ofTheTinyModel() throws Exception {
        Path data = Cli.ROOT.resolve("test-data/tiny-llama/instruct/train.jsonl");
        check(Cli.TINY, data, "--max_steps", 40, "--lora_r", 8);
    }

    /** {@code LORA4J_SMOLLM2} is a folder with SmolLM2-135M; float32 and bfloat16 both count. */
    @ParameterizedTest
    @CsvSource({"8, 4, 256, false", "16, 8, 128, true"})
    void ofARealModel(int rank, int rows, int length, boolean checkpointing) throws Exception {
        String model = System.getenv("LORA4J_SMOLLM2");
        Assumptions.assumeTrue(model != null, "LORA4J_SMOLLM2 is not set");
        Assumptions.assumeTrue(Files.exists(Path.of(model, "model.safetensors")), "LORA4J_SMOLLM2 has no weights");
        String row = "{\"text\": \"" + "one day a cat sat on a mat and slept. ".repeat(40) + "\"}\n";
        Path data = Files.writeString(dir.resolve("long.jsonl"), row.repeat(2 * rows));
        check(
                Path.of(model),
                data,
                "--max_steps",
                2,
                "--lora_r",
                rank,
                "--per_device_train_batch_size",
                rows,
                "--max_length",
                length,
                "--gradient_checkpointing",
                checkpointing);
    }

    private void check(Path model, Path data, Object... more) throws Exception {
        Assumptions.assumeTrue(Files.exists(Path.of("/proc/self/status")), "only Linux counts VmHWM");
        List<Object> args = new ArrayList<>(List.of("train", "--json", "--model", model, "--data", data));
        args.addAll(List.of("--output_dir", dir.resolve("out"), "--save_steps", 0));
        args.addAll(List.of(more));
        JsonNode memory =
                Cli.process(dir, launcherOptions(), args.toArray()).json().get("memory_bytes");
        double peak = memory.get("peak").doubleValue();
        assertThat(memory.get("planned").doubleValue())
                .as("planned, measured %s", peak)
                .isCloseTo(peak, within(WITHIN * peak));

        args.add("--dry_run");
        args.set(args.indexOf(dir.resolve("out")), dir.resolve("dry"));
        JsonNode plan =
                Cli.process(dir, launcherOptions(), args.toArray()).json().get("memory_bytes");
        assertThat(plan.get("peak").doubleValue())
                .as("dry run, measured %s", peak)
                .isCloseTo(peak, within(WITHIN * peak));
        assertThat(plan.get("fits").booleanValue()).isTrue();
        assertThat(dir.resolve("dry")).doesNotExist();
    }

    /** The heap options of the launcher script, and its full compiler. */
    private static List<String> launcherOptions() throws Exception {
        String heap = Files.readAllLines(LAUNCHER).stream()
                .filter(line -> line.startsWith("heap="))
                .findFirst()
                .orElseThrow();
        List<String> options = new ArrayList<>(
                List.of(heap.replaceFirst("heap=", "").replace("\"", "").split(" ")));
        options.add("-XX:TieredStopAtLevel=4");
        options.add("-XX:MaxDirectMemorySize=1024g");
        return options;
    }
}
