package io.lora4j.train;

import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.AtomicFile;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.MetricsLog;
import io.lora4j.train.checkpoint.OptimizerFile;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.model.Adapter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/** The folder that a run writes into: the adapter with tokenizer and template, {@code checkpoint-N/}, {@code metrics.jsonl}. */
final class OutputDir {
    private static final int KEPT_CHECKPOINTS = 2;
    private static final List<String> ADAPTER_FILES = List.of("adapter_config.json", "adapter_model.safetensors");

    private final Path dir;
    private final CheckpointStore checkpoints;

    OutputDir(Path dir) {
        this.dir = dir;
        this.checkpoints = new CheckpointStore(dir, KEPT_CHECKPOINTS);
    }

    Path path() {
        return dir;
    }

    CheckpointStore checkpoints() {
        return checkpoints;
    }

    /**
     * Checks that the run may write here; writes nothing.
     *
     * @throws TrainException if there is something and the user has not said what is to become of it
     */
    void requireUsable(Settings settings) throws IOException {
        if (Files.exists(dir) && !Files.isDirectory(dir)) {
            throw new TrainException(
                    "option output_dir: " + dir + " is a file; expected a folder, or a path that is free");
        }
        boolean allowed = isOwnRun(settings) || settings.get(TrainOptions.OVERWRITE_OUTPUT_DIR);
        if (Files.isDirectory(dir) && !allowed) {
            try (Stream<Path> entries = Files.list(dir)) {
                Optional<Path> first = entries.sorted().findFirst();
                if (first.isPresent()) {
                    throw new TrainException("option output_dir: " + dir + " is not empty, it has "
                            + first.get().getFileName()
                            + "; choose another folder, go on with --resume_from_checkpoint true, or delete the earlier run"
                            + " with --overwrite_output_dir");
                }
            }
        }
    }

    /** Returns whether the run goes on from a checkpoint of this folder, and not from one that lies elsewhere. */
    private boolean isOwnRun(Settings settings) {
        if (!TrainOptions.isResumed(settings)) {
            return false;
        }
        String from = settings.get(TrainOptions.RESUME_FROM_CHECKPOINT);
        return isNewest(from)
                || dir.toAbsolutePath()
                        .normalize()
                        .equals(Path.of(from).toAbsolutePath().normalize().getParent());
    }

    private static boolean isNewest(String from) {
        return from.equals("true") || from.equals("last");
    }

    /**
     * Returns the checkpoint to go on from. Asked for the newest where there is none yet, a run begins at its first step: so the
     * same command line can be given again whenever the process was killed.
     */
    Optional<Path> resumePoint(Settings settings) throws IOException {
        if (!TrainOptions.isResumed(settings)) {
            return Optional.empty();
        }
        String from = settings.get(TrainOptions.RESUME_FROM_CHECKPOINT);
        return isNewest(from) ? checkpoints.newest() : Optional.of(Path.of(from));
    }

    /** Makes the folder ready for a run that goes on from a step, 0 for a new one: nothing of later steps stays. */
    void prepare(int step, boolean overwrite) throws IOException {
        Files.createDirectories(dir);
        checkpoints.clean();
        checkpoints.dropAfter(step);
        if (overwrite) {
            List<String> names = new ArrayList<>(ADAPTER_FILES);
            names.add(MetricsLog.FILE_NAME);
            for (String name : names) {
                Files.deleteIfExists(dir.resolve(name));
            }
        }
    }

    /** Writes the adapter with the tokenizer that it was trained with, and the template if it was not the model's own. */
    void writeAdapter(Adapter adapter, Path modelDir, Optional<Path> template) throws IOException {
        for (Path file : RunIdentity.tokenizerFiles(modelDir)) {
            AtomicFile.write(dir.resolve(file.getFileName()), Files.readAllBytes(file));
        }
        if (template.isPresent()) {
            AtomicFile.write(dir.resolve(ChatOptions.TEMPLATE_FILE), Files.readAllBytes(template.get()));
        }
        adapter.save(dir);
    }

    /** Writes a checkpoint's folder; see {@link CheckpointStore#save}. */
    static AtomicDirectory.Body checkpointBody(Adapter adapter) {
        return to -> {
            adapter.save(to);
            OptimizerFile.write(to, adapter);
        };
    }
}
