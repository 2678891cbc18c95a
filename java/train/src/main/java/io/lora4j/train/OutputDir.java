package io.lora4j.train;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.train.checkpoint.Chain;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.Fingerprint;
import io.lora4j.train.checkpoint.MetricsLog;
import io.lora4j.train.checkpoint.OptimizerFile;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.model.Adapter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/** The folder that a run writes into: the adapter with tokenizer and template, {@code checkpoint-N/}, {@code metrics.jsonl}. */
final class OutputDir {
    private static final List<String> ADAPTER_FILES = List.of(AdapterConfig.FILE_NAME, PeftAdapter.FILE_NAME);

    private final Path dir;
    private final CheckpointStore checkpoints;

    /**
     * A folder that need not exist yet.
     *
     * @param keep how many checkpoints are kept; 0 keeps all
     */
    OutputDir(Path dir, int keep) {
        this.dir = dir;
        this.checkpoints = new CheckpointStore(dir, keep);
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
     * @throws TrainException if there is something and the user has not said what is to become of it, or if it is not of a run
     */
    void requireUsable(Settings settings, Sources sources) throws IOException {
        if (Files.exists(dir) && !Files.isDirectory(dir)) {
            throw new TrainException(
                    "option output_dir: " + dir + " is a file; expected a folder, or a path that is free");
        }
        if (!Files.isDirectory(dir)) {
            return;
        }
        requireNoInput(sources);
        if (isOwnRun(settings)) {
            return;
        }
        if (settings.get(TrainOptions.OVERWRITE_OUTPUT_DIR)) {
            requireOnlyARun();
            return;
        }
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

    /** A run that goes on finds its output in the folder, but never what it is made from. */
    private void requireNoInput(Sources sources) throws IOException {
        for (Path read : Stream.concat(Stream.of(sources.model().dir()), sources.adapter().stream())
                .toList()) {
            if (Files.isSameFile(read, dir)) {
                throw new TrainException("option output_dir: " + dir
                        + " is the folder of the base model or adapter, which are only read; choose another folder");
            }
        }
    }

    /** What is deleted or replaced must be of a run: not another adapter, not a checkpoint of another tool. */
    private void requireOnlyARun() throws IOException {
        for (Path checkpoint : checkpoints.list().values()) {
            if (!CheckpointStore.isCheckpoint(checkpoint)) {
                throw notOfARun(checkpoint);
            }
        }
        boolean ran = Files.exists(dir.resolve(MetricsLog.FILE_NAME))
                || !checkpoints.list().isEmpty();
        Optional<Path> replaced = Stream.concat(files(dir).stream(), Stream.of(dir.resolve(RunStart.BASE)))
                .filter(Files::exists)
                .findFirst();
        if (!ran && replaced.isPresent()) {
            throw notOfARun(replaced.get());
        }
    }

    private static TrainException notOfARun(Path file) {
        return new TrainException("option overwrite_output_dir: " + file
                + " is not of a run of lora4j and would be lost; move it away, or choose another output_dir");
    }

    /** Returns the files beside checkpoints and metrics that a run writes and that an earlier one may have left. */
    private static List<Path> files(Path dir) {
        List<Path> files = new ArrayList<>(RunIdentity.tokenizerFiles(dir));
        ADAPTER_FILES.forEach(name -> files.add(dir.resolve(name)));
        return files;
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
            for (Path file : files(dir)) {
                Files.deleteIfExists(file);
            }
            Files.deleteIfExists(dir.resolve(MetricsLog.FILE_NAME));
            Files.deleteIfExists(dir.resolve(Chain.FILE_NAME));
            if (Files.exists(dir.resolve(RunStart.BASE))) {
                AtomicDirectory.delete(dir.resolve(RunStart.BASE));
            }
        }
    }

    /** Returns the files of the base that is the run's own, by their path from here; none if it trains on another's. */
    Map<String, Fingerprint> baseFiles() throws IOException {
        Map<String, Fingerprint> files = new LinkedHashMap<>();
        if (Files.exists(dir.resolve(RunStart.BASE))) {
            CheckpointStore.fingerprints(dir.resolve(RunStart.BASE))
                    .forEach((name, fingerprint) -> files.put(RunStart.BASE + "/" + name, fingerprint));
        }
        return files;
    }

    /** Writes the adapter with the tokenizer that it was trained with, and the template if it was not the model's own. */
    void writeAdapter(Adapter adapter, Path modelDir, Optional<Path> template) throws IOException {
        for (Path file : RunIdentity.tokenizerFiles(modelDir)) {
            AtomicFile.copy(file, dir.resolve(file.getFileName()));
        }
        if (template.isPresent()) {
            AtomicFile.copy(template.get(), dir.resolve(ChatOptions.TEMPLATE_FILE));
        }
        adapter.save(dir);
    }

    /** Binds the adapter and what goes with it to the run's chain; the last thing that a run does. */
    Chain seal(Chain chain, int step, int totalSteps, Map<String, Fingerprint> base) throws IOException {
        List<String> names = files(dir).stream()
                .filter(Files::exists)
                .map(file -> file.getFileName().toString())
                .sorted()
                .toList();
        return checkpoints.seal(chain, step, totalSteps, names, base);
    }

    /**
     * Returns the checkpoint with the best evaluation, which a run is to end with.
     *
     * @throws TrainException if it is not here
     */
    Path best(int step) throws IOException {
        Path checkpoint = checkpoints.list().get(step);
        if (checkpoint == null) {
            throw new TrainException("option load_best_model_at_end: the best evaluation so far is of step " + step
                    + ", but " + dir + " has no checkpoint-" + step + "; put it back, or turn the option off");
        }
        return checkpoint;
    }

    /** Replaces the tensors of the adapter by those of a checkpoint, which must be as it was saved. */
    void takeAdapterOf(Path checkpoint) throws IOException {
        CheckpointStore.read(checkpoint);
        AtomicFile.copy(checkpoint.resolve(PeftAdapter.FILE_NAME), dir.resolve(PeftAdapter.FILE_NAME));
    }

    /** Writes a checkpoint's folder; see {@link CheckpointStore#save}. */
    static AtomicDirectory.Body checkpointBody(Adapter adapter) {
        return to -> {
            adapter.save(to);
            OptimizerFile.write(to, adapter);
        };
    }
}
