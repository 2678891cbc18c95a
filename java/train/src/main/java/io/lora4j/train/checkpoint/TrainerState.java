package io.lora4j.train.checkpoint;

import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.InputFile;
import io.lora4j.formats.PythonJson;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Where a run stands beside the numbers of the adapter and the optimizer: {@code trainer_state.json} of a checkpoint. The
 * rows of a step follow from the data, the seed and the step, so the step is all that the data side needs. Immutable.
 *
 * @param globalStep optimizer steps done
 * @param epoch passes over the data done, with a fraction
 * @param progress running sums of the metrics, by name, so that they go on as if nothing had happened
 * @param options the options of the run as users write them, defaults included
 * @param given the names of the options that the user gave
 * @param evalData the evaluation file as it was; null if there is none
 * @param workingDirectory the folder that relative paths among the options start from
 */
public record TrainerState(
        int globalStep,
        double epoch,
        Map<String, Double> progress,
        Map<String, String> options,
        List<String> given,
        @Nullable Fingerprint evalData,
        String workingDirectory) {

    /** The name of the file. */
    public static final String FILE_NAME = "trainer_state.json";

    private static final int VERSION = 2;
    private static final JsonMapper MAPPER = new JsonMapper();

    /** Copies the maps, keeping their order. */
    public TrainerState {
        progress = Collections.unmodifiableMap(new LinkedHashMap<>(progress));
        options = Collections.unmodifiableMap(new LinkedHashMap<>(options));
        given = List.copyOf(given);
    }

    /** Writes the file into a directory. */
    void write(Path dir) throws IOException {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("version", VERSION);
        json.put("global_step", globalStep);
        json.put("epoch", epoch);
        json.put("progress", progress);
        json.put("options", options);
        json.put("given", given);
        json.put("eval_data", evalData == null ? null : evalData.toJson());
        json.put("working_directory", workingDirectory);
        PythonJson form = new PythonJson(true, "  ", ",", ": ", false);
        AtomicFile.write(dir.resolve(FILE_NAME), (form.write(json) + "\n").getBytes(StandardCharsets.UTF_8));
    }

    /**
     * Reads the file from a checkpoint.
     *
     * @throws FormatException if it is missing, damaged or of another version
     */
    static TrainerState read(Path dir) throws IOException {
        Path file = dir.resolve(FILE_NAME);
        JsonNode json = parse(dir, file);
        if (!isOurs(json) || json.path("version").intValue() != VERSION) {
            throw new FormatException(
                    file + ": has version " + json.path("version") + "; this release reads version " + VERSION);
        }
        return of(json, file);
    }

    /** Returns whether a directory is a checkpoint of any release of lora4j; other tools write a file of this name too. */
    static boolean isIn(Path dir) throws IOException {
        try {
            return isOurs(parse(dir, dir.resolve(FILE_NAME)));
        } catch (FormatException e) {
            return false;
        }
    }

    private static boolean isOurs(JsonNode json) {
        return json.path("version").isInt() && json.path("global_step").isInt();
    }

    private static JsonNode parse(Path dir, Path file) throws IOException {
        try {
            return MAPPER.readTree(Files.readAllBytes(file));
        } catch (NoSuchFileException e) {
            throw new FormatException(
                    dir + ": is not a checkpoint of lora4j, it has no " + FILE_NAME
                            + "; expected a folder checkpoint-<step>",
                    e);
        } catch (JacksonException e) {
            throw new FormatException(
                    file + ": not valid JSON: " + InputFile.jsonProblem(e) + "; the checkpoint is damaged", e);
        }
    }

    private static TrainerState of(JsonNode json, Path file) throws FormatException {
        Map<String, Double> progress = new LinkedHashMap<>();
        json.path("progress")
                .properties()
                .forEach(e -> progress.put(e.getKey(), e.getValue().asDouble()));
        Map<String, String> options = new LinkedHashMap<>();
        json.path("options")
                .properties()
                .forEach(e -> options.put(e.getKey(), e.getValue().asString()));
        JsonNode eval = json.path("eval_data");
        return new TrainerState(
                json.path("global_step").intValue(),
                json.path("epoch").asDouble(),
                progress,
                options,
                json.path("given").values().stream().map(JsonNode::asString).toList(),
                eval.isObject() ? Fingerprint.ofJson(eval, file + ": eval_data") : null,
                json.path("working_directory").asString(""));
    }
}
