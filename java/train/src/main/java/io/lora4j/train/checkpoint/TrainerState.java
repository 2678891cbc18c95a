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
import java.util.Map;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Where a run stands beside the numbers of the adapter and the optimizer: {@code trainer_state.json} of a checkpoint. The
 * rows of a step follow from the data, the seed and the step, so the step is all that the data side needs. Immutable.
 *
 * @param globalStep optimizer steps done
 * @param epoch passes over the data done, with a fraction
 * @param clock the time that chat templates with a date in them show, in ISO 8601
 * @param progress running sums of the metrics, by name, so that they go on as if nothing had happened
 * @param options the options of the run as users write them
 * @param hashes SHA-256 of what the run depends on (base, data, tokenizer, …), by name
 * @param files SHA-256 of the other files of the checkpoint, by file name
 */
public record TrainerState(
        int globalStep,
        double epoch,
        String clock,
        Map<String, Double> progress,
        Map<String, String> options,
        Map<String, String> hashes,
        Map<String, String> files) {

    /** The name of the file. */
    public static final String FILE_NAME = "trainer_state.json";

    private static final int VERSION = 1;
    private static final JsonMapper MAPPER = new JsonMapper();

    /** Copies the maps, keeping their order. */
    public TrainerState {
        progress = Collections.unmodifiableMap(new LinkedHashMap<>(progress));
        options = Collections.unmodifiableMap(new LinkedHashMap<>(options));
        hashes = Collections.unmodifiableMap(new LinkedHashMap<>(hashes));
        files = Collections.unmodifiableMap(new LinkedHashMap<>(files));
    }

    /** Returns a copy that records the checkpoint's other files. */
    TrainerState withFiles(Map<String, String> hashesOfFiles) {
        return new TrainerState(globalStep, epoch, clock, progress, options, hashes, hashesOfFiles);
    }

    /** Writes the file into a directory. */
    void write(Path dir) throws IOException {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("version", VERSION);
        json.put("global_step", globalStep);
        json.put("epoch", epoch);
        json.put("clock", clock);
        json.put("progress", progress);
        json.put("options", options);
        json.put("sha256", hashes);
        json.put("files", files);
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
        JsonNode json;
        try {
            json = MAPPER.readTree(Files.readAllBytes(file));
        } catch (NoSuchFileException e) {
            throw new FormatException(
                    dir + ": is not a checkpoint of lora4j, it has no " + FILE_NAME
                            + "; expected a folder checkpoint-<step>",
                    e);
        } catch (JacksonException e) {
            throw new FormatException(
                    file + ": not valid JSON: " + InputFile.jsonProblem(e) + "; the checkpoint is damaged", e);
        }
        if (json.path("version").asInt(-1) != VERSION
                || !json.path("global_step").isInt()) {
            throw new FormatException(
                    file + ": has version " + json.path("version") + "; this release reads version " + VERSION);
        }
        Map<String, Double> progress = new LinkedHashMap<>();
        json.path("progress")
                .properties()
                .forEach(e -> progress.put(e.getKey(), e.getValue().asDouble()));
        return new TrainerState(
                json.path("global_step").intValue(),
                json.path("epoch").asDouble(),
                json.path("clock").asString(),
                progress,
                strings(json.path("options")),
                strings(json.path("sha256")),
                strings(json.path("files")));
    }

    private static Map<String, String> strings(JsonNode object) {
        Map<String, String> map = new LinkedHashMap<>();
        object.properties().forEach(e -> map.put(e.getKey(), e.getValue().asString()));
        return map;
    }
}
