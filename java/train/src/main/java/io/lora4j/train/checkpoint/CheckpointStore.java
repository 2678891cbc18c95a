package io.lora4j.train.checkpoint;

import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The checkpoints of a run: folders {@code checkpoint-<step>} in its output directory. Each appears whole or not at all, so
 * the newest one is good whenever the process is killed. One thread at a time.
 */
public final class CheckpointStore {
    private static final Pattern NAME = Pattern.compile("checkpoint-(\\d{1,9})");

    private final Path outputDir;
    private final int keep;

    /**
     * Opens the checkpoints in a directory, which need not exist yet.
     *
     * @param outputDir the run's output directory
     * @param keep how many to keep, older ones are deleted after a save; 0 keeps all
     */
    public CheckpointStore(Path outputDir, int keep) {
        if (keep < 0) {
            throw new IllegalArgumentException("keep " + keep + " checkpoints; expected 0 or more");
        }
        this.outputDir = outputDir;
        this.keep = keep;
    }

    /** Returns the checkpoints that there are, by step. */
    public NavigableMap<Integer, Path> list() throws IOException {
        TreeMap<Integer, Path> found = new TreeMap<>();
        if (Files.isDirectory(outputDir)) {
            try (Stream<Path> entries = Files.list(outputDir)) {
                entries.filter(Files::isDirectory).forEach(dir -> {
                    Matcher name = NAME.matcher(dir.getFileName().toString());
                    if (name.matches()) {
                        found.put(Integer.parseInt(name.group(1)), dir);
                    }
                });
            }
        }
        return found;
    }

    /** Returns whether a folder is a checkpoint of any release of lora4j; other tools name theirs the same way. */
    public static boolean isCheckpoint(Path dir) throws IOException {
        return TrainerState.isIn(dir);
    }

    /** Returns the newest checkpoint. */
    public Optional<Path> newest() throws IOException {
        return Optional.ofNullable(list().lastEntry()).map(Map.Entry::getValue);
    }

    /** Returns the place of a step's checkpoint. */
    public Path path(int step) {
        return outputDir.resolve("checkpoint-" + step);
    }

    /**
     * Saves a checkpoint, replacing one of the same step, and deletes those that are too many.
     *
     * @param state where the run stands
     * @param chain the links up to the checkpoint before it
     * @param totalSteps steps of the whole run
     * @param body writes the other files
     * @param beside what else the checkpoint depends on, by its path from the output directory
     * @param needed steps whose checkpoints stay, as the new one does, even if these are more than are to be kept
     * @return the chain with the checkpoint's link
     * @throws FormatException if the disk is full; then the older checkpoints are as they were
     */
    public Chain save(
            TrainerState state,
            Chain chain,
            int totalSteps,
            AtomicDirectory.Body body,
            Map<String, Fingerprint> beside,
            Set<Integer> needed)
            throws IOException {
        Map<String, Fingerprint> files = new LinkedHashMap<>();
        beside.forEach((name, fingerprint) -> files.put("../" + name, fingerprint));
        Path metrics = outputDir.resolve(MetricsLog.FILE_NAME);
        if (Files.exists(metrics)) {
            files.put("../" + MetricsLog.FILE_NAME, Fingerprint.of(metrics));
        }
        List<Chain> linked = new ArrayList<>();
        AtomicDirectory.write(path(state.globalStep()), dir -> {
            body.writeTo(dir);
            state.write(dir);
            files.putAll(fingerprints(dir));
            Chain next = chain.extend(state.globalStep(), totalSteps, files);
            next.write(dir);
            linked.add(next);
        });
        NavigableMap<Integer, Path> all = list();
        int tooMany = keep == 0 ? 0 : all.size() - keep;
        for (Map.Entry<Integer, Path> old : all.entrySet()) {
            if (tooMany > 0 && old.getKey() != state.globalStep() && !needed.contains(old.getKey())) {
                AtomicDirectory.delete(old.getValue());
                tooMany--;
            }
        }
        return linked.getFirst();
    }

    /** Deletes the checkpoints after a step, which a run that goes on from there makes anew. */
    public void dropAfter(int step) throws IOException {
        for (Path dir : list().tailMap(step, false).values()) {
            AtomicDirectory.delete(dir);
        }
    }

    /** Removes what an interrupted process left half-written. */
    public void clean() throws IOException {
        if (Files.isDirectory(outputDir)) {
            AtomicDirectory.clean(outputDir);
        }
    }

    /**
     * A checkpoint as it was read.
     *
     * @param state where the run stood
     * @param chain the links up to this one
     */
    public record Saved(TrainerState state, Chain chain) {}

    /**
     * Reads where a checkpoint stands and checks that its files are as they were written.
     *
     * @throws FormatException if it is none, or a file is missing or has changed
     */
    public static Saved read(Path checkpoint) throws IOException {
        TrainerState state = TrainerState.read(checkpoint);
        Chain chain = Chain.read(checkpoint);
        for (Map.Entry<String, Fingerprint> entry : chain.files().entrySet()) {
            // What lies outside, such as the metrics, need not have come along with a checkpoint.
            if (entry.getKey().startsWith("..")) {
                continue;
            }
            Path file = checkpoint.resolve(entry.getKey());
            Optional<String> difference = entry.getValue().differenceOf(file, false);
            if (difference.isPresent()) {
                throw new FormatException(file + ": " + difference.get() + "; resume from another checkpoint");
            }
        }
        if (state.globalStep() != chain.step()) {
            throw new FormatException(checkpoint + ": " + TrainerState.FILE_NAME + " is of step " + state.globalStep()
                    + ", " + Chain.FILE_NAME + " of step " + chain.step() + "; resume from another checkpoint");
        }
        return new Saved(state, chain);
    }

    /** Returns the fingerprints of all files of a folder. */
    public static Map<String, Fingerprint> fingerprints(Path dir) throws IOException {
        List<Path> files;
        try (Stream<Path> entries = Files.list(dir)) {
            files = entries.sorted().toList();
        }
        Map<String, Fingerprint> fingerprints = new LinkedHashMap<>();
        for (Path file : files) {
            fingerprints.put(file.getFileName().toString(), Fingerprint.of(file));
        }
        return fingerprints;
    }

    /**
     * Binds a finished run: writes the chain beside the adapter, with a link for the files there.
     *
     * @param step the step that the run ended with
     * @param totalSteps steps of the whole run
     * @param names the files that belong to the adapter
     * @param beside what else it depends on, by its path from the output directory
     */
    public Chain seal(Chain chain, int step, int totalSteps, List<String> names, Map<String, Fingerprint> beside)
            throws IOException {
        Map<String, Fingerprint> files = new LinkedHashMap<>(beside);
        for (String name : names) {
            files.put(name, Fingerprint.of(outputDir.resolve(name)));
        }
        Chain sealed = chain.extend(step, totalSteps, files);
        sealed.write(outputDir);
        return sealed;
    }
}
