package io.lora4j.formats;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * Writes a model in Hugging Face's layout: config.json, safetensors files of at most 5 GB with their index, and the tokenizer's and
 * generation's files of the model that it was made from. The folder appears whole or not at all.
 */
public final class ModelFolder {
    /** transformers' {@code max_shard_size}. A larger tensor gets a shard of its own. */
    private static final long MAX_SHARD = 5_000_000_000L;

    private static final List<String> SIDE_FILES = List.of(
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "chat_template.json",
            "tokenizer.model",
            "vocab.json",
            "merges.txt",
            "LICENSE",
            "LICENSE.txt",
            "LICENSE.md",
            "NOTICE");

    private static final String TEMPLATES = "additional_chat_templates";

    private ModelFolder() {}

    /**
     * Writes a folder, replacing one that is there.
     *
     * @param source the model that it is made from
     * @param config the contents of config.json
     * @param tensors in the order in which the body is asked for them
     * @param check looks at the folder when it is complete but does not have its name yet
     */
    static void write(
            Path target,
            Path source,
            Map<String, Object> config,
            List<TensorSpec> tensors,
            SafetensorsWriter.Body body,
            AtomicFile.Check check)
            throws IOException {
        AtomicDirectory.write(target, dir -> {
            writeSideFiles(source, dir);
            json(dir.resolve("config.json"), config);
            writeTensors(dir, tensors, body);
            check.accept(dir);
        });
    }

    /**
     * Returns the files that make up a model: config.json, safetensors files with their index, tokenizer and generation. Of a model
     * that is one GGUF file, that file.
     *
     * @throws FormatException if one is missing
     */
    public static List<Path> files(Path model) throws IOException {
        if (!Files.isDirectory(model)) {
            InputFile.require(model);
            return List.of(model);
        }
        List<Path> files = new ArrayList<>(Checkpoint.files(model));
        if (Files.exists(model.resolve("config.json"))) {
            files.add(model.resolve("config.json"));
        }
        SIDE_FILES.stream().map(model::resolve).filter(Files::isRegularFile).forEach(files::add);
        return files;
    }

    /** Writes the files of tokenizer, generation and licence; those of a GGUF file are made from its metadata. */
    static void writeSideFiles(Path source, Path dir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(source);
        if (gguf.isPresent()) {
            try (GgufFile file = GgufFile.open(gguf.get())) {
                GgufTokenizer tokenizer = new GgufTokenizer(file);
                json(dir.resolve("tokenizer.json"), Json.toMap(tokenizer.json()));
                Map<String, Object> config = Json.toMap(tokenizer.config());
                config.put("tokenizer_class", "PreTrainedTokenizerFast");
                json(dir.resolve("tokenizer_config.json"), config);
            }
            return;
        }
        for (String name : SIDE_FILES) {
            copy(source.resolve(name), dir.resolve(name));
        }
        copyTemplates(source.resolve(TEMPLATES), dir.resolve(TEMPLATES));
    }

    /** Returns the contents of a model's config.json, or those that the metadata of a GGUF file come to. */
    static Map<String, Object> config(Path dir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(dir);
        if (gguf.isPresent()) {
            try (GgufFile file = GgufFile.open(gguf.get())) {
                return GgufConfig.toHuggingFace(file);
            }
        }
        return Json.toMap(Json.readObject(dir.resolve("config.json")));
    }

    private static void copy(Path from, Path to) throws IOException {
        if (Files.isRegularFile(from)) {
            AtomicFile.copy(from, to);
        }
    }

    private static void copyTemplates(Path from, Path to) throws IOException {
        if (!Files.isDirectory(from)) {
            return;
        }
        Files.createDirectory(to);
        try (Stream<Path> files = Files.list(from)) {
            for (Path file : files.toList()) {
                copy(file, to.resolve(file.getFileName()));
            }
        }
    }

    private static void json(Path file, Map<String, Object> values) throws IOException {
        AtomicFile.write(file, (PythonJson.pretty().write(values) + "\n").getBytes(StandardCharsets.UTF_8));
    }

    private static void writeTensors(Path dir, List<TensorSpec> tensors, SafetensorsWriter.Body body)
            throws IOException {
        List<List<TensorSpec>> shards = shards(tensors);
        if (shards.size() == 1) {
            SafetensorsWriter.stream(dir.resolve("model.safetensors"), tensors, Map.of(), body);
            return;
        }
        Map<String, Object> weightMap = new LinkedHashMap<>();
        for (int i = 0; i < shards.size(); i++) {
            String name = "model-%05d-of-%05d.safetensors".formatted(i + 1, shards.size());
            shards.get(i).forEach(tensor -> weightMap.put(tensor.name(), name));
            SafetensorsWriter.stream(dir.resolve(name), shards.get(i), Map.of(), body);
        }
        long total = tensors.stream().mapToLong(TensorSpec::bytes).sum();
        json(
                dir.resolve("model.safetensors.index.json"),
                Map.of("metadata", Map.of("total_size", total), "weight_map", weightMap));
    }

    private static List<List<TensorSpec>> shards(List<TensorSpec> tensors) {
        List<List<TensorSpec>> shards = new ArrayList<>(List.of(new ArrayList<>()));
        long bytes = 0;
        for (TensorSpec tensor : tensors) {
            if (bytes > 0 && bytes + tensor.bytes() > MAX_SHARD) {
                shards.add(new ArrayList<>());
                bytes = 0;
            }
            shards.getLast().add(tensor);
            bytes += tensor.bytes();
        }
        return shards;
    }
}
