package io.lora4j.train.checkpoint;

import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;

/**
 * Reads everything that a run has left in its folder and compares it with the run's hash chain. Writes nothing. Immutable once it is
 * made.
 */
public final class ChainCheck {
    private final Path run;
    private final List<String> problems = new ArrayList<>();
    private final Set<Path> named = new HashSet<>();
    private final TreeMap<Integer, CheckpointStore.Saved> checkpoints = new TreeMap<>();

    private Optional<Chain> finished = Optional.empty();

    private ChainCheck(Path run) {
        this.run = run;
    }

    /**
     * Checks a run.
     *
     * @param run its output directory
     * @throws FormatException if it has no checkpoint
     */
    public static ChainCheck of(Path run) throws IOException {
        ChainCheck check = new ChainCheck(run);
        NavigableMap<Integer, Path> found = new CheckpointStore(run, 1).list();
        if (found.isEmpty()) {
            throw new FormatException(run + ": has no checkpoint; expected the output_dir of lora4j train");
        }
        for (Map.Entry<Integer, Path> checkpoint : found.entrySet()) {
            check.checkpoint(checkpoint.getKey(), checkpoint.getValue());
        }
        check.order();
        check.adapter();
        return check;
    }

    /** Returns what is wrong; each text names a file, and the part of it where that is known. */
    public List<String> problems() {
        return List.copyOf(problems);
    }

    /** Returns the checkpoints whose own files are as they were, by step. */
    public NavigableMap<Integer, CheckpointStore.Saved> checkpoints() {
        return Collections.unmodifiableNavigableMap(checkpoints);
    }

    /** Returns the chain that binds the finished adapter, if there is one. */
    public Optional<Chain> finished() {
        return finished;
    }

    private void checkpoint(int step, Path dir) throws IOException {
        Optional<Chain> chain = chain(dir);
        if (chain.isEmpty()) {
            return;
        }
        if (chain.get().step() != step) {
            problems.add(dir.resolve(Chain.FILE_NAME) + ": is of step "
                    + chain.get().step() + ", in a folder of step " + step);
        }
        try (Stream<Path> entries = Files.list(dir)) {
            entries.map(entry -> entry.getFileName().toString())
                    .filter(name -> !name.equals(Chain.FILE_NAME)
                            && !chain.get().files().containsKey(name))
                    .sorted()
                    .forEach(name -> problems.add(dir.resolve(name) + ": was not part of the checkpoint"));
        }
        if (files(dir, chain.get())) {
            checkpoints.put(step, new CheckpointStore.Saved(TrainerState.read(dir), chain.get()));
        }
    }

    private Optional<Chain> chain(Path dir) throws IOException {
        try {
            return Optional.of(Chain.read(dir));
        } catch (FormatException e) {
            problems.add(String.valueOf(e.getMessage()));
            return Optional.empty();
        }
    }

    /** Returns whether the files in the folder itself are as they were. */
    private boolean files(Path dir, Chain chain) throws IOException {
        boolean whole = true;
        for (Map.Entry<String, Fingerprint> entry : chain.files().entrySet()) {
            Path file = dir.resolve(entry.getKey()).normalize();
            boolean outside = entry.getKey().startsWith("..");
            boolean log = outside && file.endsWith(MetricsLog.FILE_NAME); // Has grown since.
            Optional<String> difference = outside && named.contains(file)
                    ? Optional.empty()
                    : entry.getValue().differenceOf(file, log);
            if (difference.isPresent()) {
                problems.add(file + " " + difference.get());
                named.add(file);
            }
            whole &= outside || difference.isEmpty();
        }
        return whole;
    }

    /** Every chain is the beginning of the newest one. */
    private void order() {
        if (checkpoints.isEmpty()) {
            return;
        }
        List<Chain.Link> newest = checkpoints.lastEntry().getValue().chain().links();
        checkpoints.forEach((step, saved) -> {
            List<Chain.Link> links = saved.chain().links();
            if (!agree(newest, links)) {
                problems.add(run.resolve("checkpoint-" + step).resolve(Chain.FILE_NAME) + ": its links are not those of"
                        + " checkpoint-" + checkpoints.lastKey() + "; the checkpoints are of different runs");
            }
        });
    }

    /** Returns whether one is the beginning of the other. */
    private static boolean agree(List<Chain.Link> one, List<Chain.Link> other) {
        int common = Math.min(one.size(), other.size());
        return one.subList(0, common).equals(other.subList(0, common));
    }

    /** The finished adapter, if there is one. */
    private void adapter() throws IOException {
        boolean adapter = Files.exists(run.resolve("adapter_model.safetensors"));
        if (!Files.exists(run.resolve(Chain.FILE_NAME))) {
            if (adapter) {
                problems.add(run.resolve("adapter_model.safetensors") + ": no link binds it to the run, for "
                        + run.resolve(Chain.FILE_NAME)
                        + " is missing; resume the run, and it will be written again");
            }
            return;
        }
        finished = chain(run);
        if (finished.isEmpty()) {
            return;
        }
        files(run, finished.get());
        List<Chain.Link> links = finished.get().links();
        if (!checkpoints.isEmpty()
                && !agree(checkpoints.lastEntry().getValue().chain().links(), links.subList(0, links.size() - 1))) {
            problems.add(run.resolve(Chain.FILE_NAME) + ": its links are not those of checkpoint-"
                    + checkpoints.lastKey() + "; the adapter is of another run");
        }
    }
}
