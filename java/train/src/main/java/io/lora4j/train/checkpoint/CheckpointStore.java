package io.lora4j.train.checkpoint;

import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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

    /** Returns whether a folder is a checkpoint of lora4j; other tools name theirs the same way. */
    public static boolean isCheckpoint(Path dir) throws IOException {
        try {
            TrainerState.read(dir);
            return true;
        } catch (FormatException e) {
            return false;
        }
    }

    /** Returns the newest checkpoint. */
    public Optional<Path> newest() throws IOException {
        return Optional.ofNullable(list().lastEntry()).map(Map.Entry::getValue);
    }

    /**
     * Saves a checkpoint, replacing one of the same step, and deletes those that are too many.
     *
     * @param state where the run stands; the hashes of the files are filled in
     * @param body writes the other files
     * @param needed steps whose checkpoints stay, as the new one does, even if these are more than are to be kept
     * @return the checkpoint
     * @throws FormatException if the disk is full; then the older checkpoints are as they were
     */
    public Path save(TrainerState state, AtomicDirectory.Body body, Set<Integer> needed) throws IOException {
        Path target = outputDir.resolve("checkpoint-" + state.globalStep());
        AtomicDirectory.write(target, dir -> {
            body.writeTo(dir);
            state.withFiles(hashes(dir)).write(dir);
        });
        NavigableMap<Integer, Path> all = list();
        int tooMany = keep == 0 ? 0 : all.size() - keep;
        for (Map.Entry<Integer, Path> old : all.entrySet()) {
            if (tooMany > 0 && old.getKey() != state.globalStep() && !needed.contains(old.getKey())) {
                AtomicDirectory.delete(old.getValue());
                tooMany--;
            }
        }
        return target;
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
     * Reads where a checkpoint stands and checks that its files are as they were written.
     *
     * @throws FormatException if it is none, or a file is missing or has changed
     */
    public static TrainerState read(Path checkpoint) throws IOException {
        TrainerState state = TrainerState.read(checkpoint);
        for (Map.Entry<String, String> file : state.files().entrySet()) {
            String now = Sha256.of(checkpoint.resolve(file.getKey()));
            if (!now.equals(file.getValue())) {
                throw new FormatException(
                        checkpoint.resolve(file.getKey()) + ": has changed since it was saved: sha256 " + now
                                + ", saved with " + file.getValue() + "; resume from another checkpoint");
            }
        }
        return state;
    }

    private static Map<String, String> hashes(Path dir) throws IOException {
        List<Path> files;
        try (Stream<Path> entries = Files.list(dir)) {
            files = entries.sorted().toList();
        }
        Map<String, String> hashes = new LinkedHashMap<>();
        for (Path file : files) {
            hashes.put(file.getFileName().toString(), Sha256.of(file));
        }
        return hashes;
    }
}
