package io.lora4j.cli;

import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.InputFile;
import io.lora4j.formats.ModelFolder;
import io.lora4j.formats.PythonJson;
import io.lora4j.train.checkpoint.Sha256;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.core.type.TypeReference;
import tools.jackson.databind.json.JsonMapper;

/**
 * What a model was merged from: written with it, so that {@code unmerge} can find the base again and prove that it is, byte for byte,
 * what it was.
 *
 * @param base where the base model lay
 * @param baseFiles the SHA-256 of each of its files, by name
 * @param adapter where the adapter lay
 * @param adapterFiles the SHA-256 of each of its files, by name
 */
record MergeRecord(String base, Map<String, String> baseFiles, String adapter, Map<String, String> adapterFiles) {
    /** In a merged folder; of a GGUF file it is appended to the file's name. */
    static final String FILE_NAME = "lora4j_merge.json";

    static MergeRecord of(Path base, Path adapter) throws IOException {
        Map<String, String> adapterFiles = new LinkedHashMap<>();
        for (String name : new String[] {"adapter_config.json", "adapter_model.safetensors"}) {
            adapterFiles.put(name, Sha256.of(adapter.resolve(name)));
        }
        return new MergeRecord(
                base.toRealPath().toString(), hashes(base), adapter.toRealPath().toString(), adapterFiles);
    }

    /** Returns the SHA-256 of each file of a model. */
    static Map<String, String> hashes(Path model) throws IOException {
        Map<String, String> hashes = new LinkedHashMap<>();
        for (Path file : ModelFolder.files(model)) {
            hashes.put(String.valueOf(file.getFileName()), Sha256.of(file));
        }
        return hashes;
    }

    /** Returns where the record of a merged model lies. */
    static Path file(Path merged) {
        return Files.isDirectory(merged)
                ? merged.resolve(FILE_NAME)
                : merged.resolveSibling(merged.getFileName() + "." + FILE_NAME);
    }

    void write(Path file) throws IOException {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("base", base);
        json.put("base_sha256", baseFiles);
        json.put("adapter", adapter);
        json.put("adapter_sha256", adapterFiles);
        AtomicFile.write(file, (PythonJson.pretty().write(json) + "\n").getBytes(StandardCharsets.UTF_8));
    }

    /**
     * Reads the record of a merged model.
     *
     * @throws FormatException if there is none, or it is not one
     */
    static MergeRecord read(Path merged) throws IOException {
        Path file = file(merged);
        if (Files.notExists(file)) {
            throw new FormatException(file + ": no such file; it tells what " + merged
                    + " was merged from: only models that lora4j merge wrote can be unmerged");
        }
        try {
            Map<String, Object> json = new JsonMapper()
                    .readValue(InputFile.bytes(file), new TypeReference<LinkedHashMap<String, Object>>() {});
            return new MergeRecord(
                    text(json.get("base")),
                    texts(json.get("base_sha256")),
                    text(json.get("adapter")),
                    texts(json.get("adapter_sha256")));
        } catch (JacksonException | IllegalArgumentException e) {
            throw new FormatException(file + ": is not a record of lora4j merge; fetch or merge the model again", e);
        }
    }

    private static String text(@Nullable Object value) {
        if (value instanceof String text) {
            return text;
        }
        throw new IllegalArgumentException("expected a text");
    }

    private static Map<String, String> texts(@Nullable Object value) {
        if (!(value instanceof Map<?, ?> map) || map.isEmpty()) {
            throw new IllegalArgumentException("expected file names and hashes");
        }
        Map<String, String> texts = new LinkedHashMap<>();
        map.forEach((name, hash) -> {
            String file = text(name);
            if (file.contains("/") || file.contains("\\") || file.startsWith(".")) {
                throw new IllegalArgumentException("expected names of files in the folder");
            }
            texts.put(file, text(hash));
        });
        return texts;
    }
}
