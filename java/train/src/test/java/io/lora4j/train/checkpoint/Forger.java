package io.lora4j.train.checkpoint;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/** Changes a checkpoint and writes a chain over it that looks right. */
public final class Forger {
    private Forger() {}

    /** Edits the state of a checkpoint and makes its last link anew. */
    public static void edit(Path checkpoint, UnaryOperator<String> edit) throws IOException {
        Chain old = Chain.read(checkpoint);
        Path state = checkpoint.resolve(TrainerState.FILE_NAME);
        String before = Files.readString(state);
        String after = edit.apply(before);
        if (after.equals(before)) {
            throw new IllegalArgumentException("the edit changes nothing in " + before);
        }
        Files.writeString(state, after);
        Map<String, Fingerprint> files = new LinkedHashMap<>(old.files());
        files.put(TrainerState.FILE_NAME, Fingerprint.of(state));
        List<Chain.Link> links = old.links();
        Chain.Link last = links.getLast();
        new Chain(old.identity(), links.subList(0, links.size() - 1), Map.of())
                .extend(last.step(), last.totalSteps(), files)
                .write(checkpoint);
    }
}
