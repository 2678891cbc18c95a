package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What a run may delete and what it may not. */
class OutputDirTest {
    @TempDir
    Path dir;

    private Path data;

    @BeforeEach
    void writeData() throws IOException {
        data = Runs.data(dir);
    }

    private Settings.Builder small(String output) {
        return Runs.small(data, dir.resolve(output));
    }

    private List<String> names(Path folder) throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(e -> e.getFileName().toString()).sorted().toList();
        }
    }

    @Test
    void overwritingLeavesWhatIsNotOfARun() throws IOException {
        Path output = dir.resolve("out");
        Runs.run(small("out"));
        Files.writeString(output.resolve("notes.txt"), "mine");
        Files.writeString(output.resolve("special_tokens_map.json"), "of an earlier model");
        Settings.Builder again =
                small("out").set(TrainOptions.OVERWRITE_OUTPUT_DIR, true).set(TrainOptions.MAX_STEPS, 2);
        Runs.run(again);
        assertThat(names(output))
                .contains("notes.txt", "checkpoint-2")
                .doesNotContain("checkpoint-6", "special_tokens_map.json");

        Path older = Files.createDirectory(output.resolve("checkpoint-400"));
        Files.writeString(older.resolve("trainer_state.json"), "{\"version\": 1, \"global_step\": 400}");
        Runs.run(again);
        assertThat(older).doesNotExist();

        Path foreign = Files.createDirectory(output.resolve("checkpoint-500"));
        Files.writeString(foreign.resolve("trainer_state.json"), "{\"global_step\": 500}");
        refusesToOverwrite(again, foreign);
        assertThat(names(output)).contains("checkpoint-2", "adapter_config.json");
    }

    @Test
    void neverOverwritesAnAdapterThatNoRunLeftNorTheBase() throws IOException {
        Path kept = Files.createDirectory(dir.resolve("kept"));
        Path adapter = Files.writeString(kept.resolve("adapter_model.safetensors"), "of someone else");
        Settings.Builder run = small("kept").set(TrainOptions.OVERWRITE_OUTPUT_DIR, true);
        refusesToOverwrite(run, adapter);
        assertThatThrownBy(() ->
                        Trainer.open(run.set(TrainOptions.OUTPUT_DIR, Runs.TINY).build()))
                .hasMessageContaining("is the folder of the base model or adapter, which are only read");
        Files.delete(adapter);
        Files.writeString(kept.resolve("notes.txt"), "mine");
        Runs.run(run.set(TrainOptions.OUTPUT_DIR, kept).set(TrainOptions.MAX_STEPS, 1));
        assertThat(names(kept)).contains("notes.txt", "adapter_model.safetensors");
    }

    private static void refusesToOverwrite(Settings.Builder run, Path file) {
        assertThatThrownBy(() -> Trainer.open(run.build()))
                .isInstanceOf(TrainException.class)
                .hasMessage("option overwrite_output_dir: " + file
                        + " is not of a run of lora4j and would be lost; move it away, or choose another output_dir");
    }
}
