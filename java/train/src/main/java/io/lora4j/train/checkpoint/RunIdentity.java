package io.lora4j.train.checkpoint;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.train.ChatOptions;
import io.lora4j.train.Option;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;

/**
 * What a run's result depends on beside its options: the bytes of its input files, and the time that chat templates show. A run
 * only goes on where all of it is the same. Immutable.
 *
 * <p>The evaluation file is not part of it, for it changes no step; {@link TrainerState} has it.
 *
 * @param clock when the run was first started, in ISO 8601: the time that chat templates with a date in them show
 * @param files the files by role ({@code base}, {@code data}, {@code tokenizer}, {@code template}, {@code adapter}) and name
 */
public record RunIdentity(String clock, Map<String, Map<String, Fingerprint>> files) {
    private static final String ADAPTER = "adapter";
    private static final List<String> TOKENIZER_FILES =
            List.of("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json");
    private static final List<String> TEMPLATE_FILES = List.of(ChatOptions.TEMPLATE_FILE);

    /** Copies the maps, keeping their order. */
    public RunIdentity {
        Map<String, Map<String, Fingerprint>> copy = new LinkedHashMap<>();
        files.forEach((role, names) -> copy.put(role, Collections.unmodifiableMap(new LinkedHashMap<>(names))));
        files = Collections.unmodifiableMap(copy);
    }

    /**
     * Where the input files of a run are.
     *
     * @param model the base model's folder
     * @param data the training file
     * @param adapter the folder of the adapter that the run began with, if it began with one
     * @param template the chat template, if it is not the model's own
     */
    public record Inputs(Path model, Path data, Optional<Path> adapter, Optional<Path> template) {
        private Map<String, List<Path>> byRole() throws IOException {
            Map<String, List<Path>> paths = new LinkedHashMap<>();
            paths.put("base", baseFiles(model));
            paths.put("data", List.of(data));
            paths.put("tokenizer", existing(model, TOKENIZER_FILES));
            paths.put("template", template.map(List::of).orElse(existing(model, TEMPLATE_FILES)));
            if (adapter.isPresent()) {
                paths.put(ADAPTER, existing(adapter.get(), List.of(AdapterConfig.FILE_NAME, PeftAdapter.FILE_NAME)));
            }
            return paths;
        }
    }

    /**
     * Reads all the files of a run.
     *
     * @param inputs the files
     * @param clock when the run was first started
     */
    public static RunIdentity of(Inputs inputs, String clock) throws IOException {
        Map<String, Map<String, Fingerprint>> files = new LinkedHashMap<>();
        for (Map.Entry<String, List<Path>> role : inputs.byRole().entrySet()) {
            Map<String, Fingerprint> names = new LinkedHashMap<>();
            for (Path file : role.getValue()) {
                names.put(name(file), Fingerprint.of(file));
            }
            files.put(role.getKey(), names);
        }
        return new RunIdentity(clock, files);
    }

    private static String name(Path file) {
        return String.valueOf(file.getFileName());
    }

    /** Returns the files of a base model that are trained on: its config and its weights, all shards of them; or its GGUF file. */
    public static List<Path> baseFiles(Path modelDir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(modelDir);
        if (gguf.isPresent()) {
            return List.of(gguf.get());
        }
        List<Path> files = new ArrayList<>();
        files.add(modelDir.resolve("config.json"));
        if (Files.isDirectory(modelDir)) {
            files.addAll(Checkpoint.files(modelDir));
        }
        return files;
    }

    /** Returns the files of a tokenizer that there are, chat template included: what goes with an adapter. */
    public static List<Path> tokenizerFiles(Path modelDir) {
        List<Path> files = new ArrayList<>(existing(modelDir, TOKENIZER_FILES));
        files.addAll(existing(modelDir, TEMPLATE_FILES));
        return files;
    }

    private static List<Path> existing(Path dir, List<String> names) {
        return names.stream().map(dir::resolve).filter(Files::exists).toList();
    }

    /**
     * Returns what is different in the files now, for people: each text names the role, the file, and the part of it.
     *
     * @param inputs where the files are
     */
    public List<String> differences(Inputs inputs) throws IOException {
        return differences(inputs, files.keySet());
    }

    private List<String> differences(Inputs inputs, Set<String> roles) throws IOException {
        List<String> differences = new ArrayList<>();
        Map<String, List<Path>> paths = inputs.byRole();
        for (Map.Entry<String, Map<String, Fingerprint>> role : files.entrySet()) {
            if (!roles.contains(role.getKey())) {
                continue;
            }
            Map<String, Fingerprint> gone = new LinkedHashMap<>(role.getValue());
            List<Path> now = paths.getOrDefault(role.getKey(), List.of());
            for (Path file : now) {
                // A single file may have been renamed.
                boolean single = gone.size() == 1 && now.size() == 1;
                String name = single ? gone.keySet().iterator().next() : name(file);
                Fingerprint then = gone.remove(name);
                Optional<String> difference =
                        then == null ? Optional.of("was not there when the run began") : then.differenceOf(file, false);
                difference.ifPresent(text -> differences.add(role.getKey() + ": " + file + " " + text));
            }
            gone.keySet().forEach(name -> differences.add(role.getKey() + ": " + name + " was part of it, is missing"));
        }
        return differences;
    }

    /**
     * Checks that a run is the one that a checkpoint is from.
     *
     * @throws TrainException naming everything that differs, as it was and as it is
     */
    public static void requireSame(Path checkpoint, CheckpointStore.Saved saved, Settings now, Inputs inputs)
            throws IOException {
        List<String> differences = new ArrayList<>();
        Map<String, String> options = now.toMap();
        Map<String, String> before = saved.state().options();
        for (Option<?> option : now.table().options()) {
            String then = shown(before.get(option.name()));
            String here = shown(options.get(option.name()));
            if (!option.mayChange() && !here.equals(then)) {
                differences.add(option.name() + " was " + then + ", is " + here);
            }
        }
        // The checkpoint has all that became of the adapter that the run began with.
        Set<String> needed = new HashSet<>(saved.chain().identity().files().keySet());
        needed.remove(ADAPTER);
        differences.addAll(saved.chain().identity().differences(inputs, needed));
        if (!differences.isEmpty()) {
            throw new TrainException(checkpoint + ": is from a run that differs from this one:\n  "
                    + String.join("\n  ", differences)
                    + "\nrestore what it was, or start a new run in another output_dir");
        }
    }

    private static String shown(@Nullable String value) {
        return value == null ? "not set" : value;
    }

    /** Returns this as an object of JSON. */
    Map<String, Object> toJson() {
        Map<String, Object> roles = new LinkedHashMap<>();
        files.forEach((role, names) -> roles.put(role, filesToJson(names)));
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("clock", clock);
        json.put("files", roles);
        return json;
    }

    static RunIdentity ofJson(JsonNode json, String where) throws FormatException {
        Map<String, Map<String, Fingerprint>> files = new LinkedHashMap<>();
        for (Map.Entry<String, JsonNode> role : json.path("files").properties()) {
            files.put(role.getKey(), filesOfJson(role.getValue(), where));
        }
        return new RunIdentity(json.path("clock").asString(""), files);
    }

    static Map<String, Object> filesToJson(Map<String, Fingerprint> files) {
        Map<String, Object> json = new LinkedHashMap<>();
        files.forEach((name, fingerprint) -> json.put(name, fingerprint.toJson()));
        return json;
    }

    static Map<String, Fingerprint> filesOfJson(JsonNode json, String where) throws FormatException {
        Map<String, Fingerprint> files = new LinkedHashMap<>();
        for (Map.Entry<String, JsonNode> file : json.properties()) {
            files.put(file.getKey(), Fingerprint.ofJson(file.getValue(), where + ": " + file.getKey()));
        }
        return files;
    }
}
