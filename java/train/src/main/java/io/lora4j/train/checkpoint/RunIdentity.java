package io.lora4j.train.checkpoint;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.train.ChatOptions;
import io.lora4j.train.Option;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** What a run's result depends on beside its options, as SHA-256; a run only goes on where all of it is the same. */
public final class RunIdentity {
    private static final List<String> TOKENIZER_FILES =
            List.of("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json");

    private RunIdentity() {}

    /**
     * Returns the hashes of base (config and weights), data, tokenizer and chat template.
     *
     * @param modelDir the base model's folder
     * @param data the training file
     * @param template the chat template, if it is not the model's own
     */
    public static Map<String, String> of(Path modelDir, Path data, Optional<Path> template) throws IOException {
        Map<String, String> hashes = new LinkedHashMap<>();
        hashes.put("base", Sha256.of(baseFiles(modelDir)));
        hashes.put("data", Sha256.of(data));
        hashes.put("tokenizer", Sha256.of(existing(modelDir, TOKENIZER_FILES)));
        List<Path> own = existing(modelDir, List.of(ChatOptions.TEMPLATE_FILE));
        hashes.put("template", Sha256.of(template.map(List::of).orElse(own)));
        return hashes;
    }

    /** Returns the files of a base model that are trained on: its config and its weights, all shards of them. */
    public static List<Path> baseFiles(Path modelDir) throws IOException {
        List<Path> files = new ArrayList<>();
        files.add(modelDir.resolve("config.json"));
        files.addAll(Checkpoint.files(modelDir));
        return files;
    }

    /** Returns the files of a tokenizer that there are, chat template included: what goes with an adapter. */
    public static List<Path> tokenizerFiles(Path modelDir) {
        List<Path> files = new ArrayList<>(existing(modelDir, TOKENIZER_FILES));
        files.addAll(existing(modelDir, List.of(ChatOptions.TEMPLATE_FILE)));
        return files;
    }

    private static List<Path> existing(Path dir, List<String> names) {
        return names.stream().map(dir::resolve).filter(Files::exists).toList();
    }

    /**
     * Checks that a run is the one that a checkpoint is from.
     *
     * @throws TrainException naming everything that differs, as it was and as it is
     * @throws FormatException if the checkpoint is incomplete
     */
    public static void requireSame(Path checkpoint, TrainerState saved, Settings now, Map<String, String> hashes)
            throws FormatException {
        List<String> differences = new ArrayList<>();
        Map<String, String> options = now.toMap();
        for (Option<?> option : now.table().options()) {
            String then = saved.options().get(option.name());
            String here = options.get(option.name());
            if (!option.mayChange() && here != null && !here.equals(then)) {
                differences.add(option.name() + " was " + (then == null ? "not set" : then) + ", is " + here);
            }
        }
        for (Map.Entry<String, String> hash : hashes.entrySet()) {
            String then = saved.hashes().get(hash.getKey());
            if (then == null) {
                throw new FormatException(
                        checkpoint.resolve(TrainerState.FILE_NAME) + ": has no sha256 of " + hash.getKey());
            }
            if (!then.equals(hash.getValue())) {
                differences.add(hash.getKey() + " had the sha256 " + then + ", has " + hash.getValue());
            }
        }
        if (!differences.isEmpty()) {
            throw new TrainException(checkpoint + ": is from a run that differs from this one:\n  "
                    + String.join("\n  ", differences)
                    + "\nrestore what it was, or start a new run in another output_dir");
        }
    }
}
