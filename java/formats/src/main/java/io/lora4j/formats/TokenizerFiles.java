package io.lora4j.formats;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * What the files of a tokenizer say: the vocabulary, the special tokens, the chat template, and {@code tokenizer.json} with
 * truncation and padding taken out; or what the metadata of a GGUF file says of the same.
 */
final class TokenizerFiles {
    private final Path file;
    private final ObjectNode json;
    private final ObjectNode config;
    private final Path configFile;
    private final Map<String, Integer> vocabulary = new HashMap<>();
    private final Map<String, SpecialToken> special = new HashMap<>();
    private @Nullable String template;
    private String templateSource = "";

    private TokenizerFiles(Path file, ObjectNode json, Path configFile, ObjectNode config) {
        this.file = file;
        this.json = json;
        this.configFile = configFile;
        this.config = config;
    }

    static TokenizerFiles read(Path dir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(dir);
        if (gguf.isPresent()) {
            return readGguf(gguf.get());
        }
        Path file = dir.resolve("tokenizer.json");
        for (String other : List.of("tokenizer.model", "tekken.json", "vocab.json")) {
            if (!Files.exists(file) && Files.exists(dir.resolve(other))) {
                throw new FormatException(dir + ": has " + other + " but no tokenizer.json; convert it once with"
                        + " transformers: AutoTokenizer.from_pretrained(dir).save_pretrained(dir)");
            }
        }
        ObjectNode json = Json.readObject(file);
        Path configFile = dir.resolve("tokenizer_config.json");
        ObjectNode config = Files.exists(configFile)
                ? Json.readObject(configFile)
                : Json.parseObject("{}".getBytes(StandardCharsets.UTF_8), configFile.toString());
        TokenizerFiles files = new TokenizerFiles(file, json, configFile, config);
        files.readVocabulary();
        Path map = dir.resolve("special_tokens_map.json");
        files.readSpecialTokens(Files.exists(map) ? Json.readObject(map) : null);
        files.readTemplate(dir);
        files.checkAddedTokens();
        // Whether BOS is added is for tokenizer.json's post-processor to say; like transformers 5, add_bos_token is not
        // read.
        json.putNull("truncation");
        json.putNull("padding");
        return files;
    }

    private static TokenizerFiles readGguf(Path path) throws IOException {
        try (GgufFile gguf = GgufFile.open(path)) {
            GgufTokenizer tokenizer = new GgufTokenizer(gguf);
            TokenizerFiles files = new TokenizerFiles(path, tokenizer.json(), path, tokenizer.config());
            files.readVocabulary();
            files.readSpecialTokens(null);
            files.readTemplateOfConfig();
            return files;
        }
    }

    private void readVocabulary() throws FormatException {
        JsonNode vocab = json.path("model").path("vocab");
        if (vocab.isObject()) {
            for (Map.Entry<String, JsonNode> entry : vocab.properties()) {
                vocabulary.put(entry.getKey(), id(entry.getKey(), entry.getValue()));
            }
        } else if (vocab.isArray()) {
            int next = 0;
            for (JsonNode piece : vocab.values()) {
                vocabulary.put(piece.path(0).stringValue(""), next++);
            }
        } else {
            throw new FormatException(
                    file + ": has no model.vocab; expected a tokenizer.json of Hugging Face tokenizers");
        }
        for (JsonNode added : json.path("added_tokens").values()) {
            String content = added.path("content").stringValue("");
            vocabulary.put(content, id(content, added.path("id")));
        }
    }

    private int id(String token, JsonNode node) throws FormatException {
        if (!node.isIntegralNumber() || !node.canConvertToInt() || node.intValue() < 0) {
            throw new FormatException(
                    file + ": token \"" + token + "\" has the id " + node + "; expected an integer >= 0");
        }
        return node.intValue();
    }

    private void readSpecialTokens(@Nullable ObjectNode map) throws FormatException {
        for (String role : List.of("bos_token", "eos_token", "pad_token", "unk_token")) {
            JsonNode node = config.has(role) || map == null ? config.path(role) : map.path(role);
            String text = node.isObject() ? node.path("content").stringValue(null) : node.stringValue(null);
            if (text == null) {
                continue;
            }
            Integer id = vocabulary.get(text);
            if (id == null) {
                throw new FormatException(configFile + ": " + role + " \"" + text + "\" is not in the vocabulary of "
                        + file + "; the files are of different models");
            }
            special.put(role, new SpecialToken(text, id));
        }
    }

    /**
     * As transformers: files before the field of the config, and of several templates the one named default. Those for tools
     * and retrieval have no use here.
     */
    private void readTemplate(Path dir) throws IOException {
        Path templateFile = dir.resolve("chat_template.jinja");
        Path more = dir.resolve("additional_chat_templates");
        List<String> additional = Files.isDirectory(more) ? templateNames(more) : List.of();
        if (additional.contains("default")) {
            templateFile = more.resolve("default.jinja");
        } else if (!additional.isEmpty() && !Files.exists(templateFile)) {
            throw new FormatException(more + ": has the templates " + additional
                    + " but none named \"default\", and there is no " + templateFile);
        }
        if (Files.exists(templateFile)) {
            template = InputFile.text(templateFile);
            templateSource = templateFile.toString();
            return;
        }
        readTemplateOfConfig();
    }

    private void readTemplateOfConfig() throws FormatException {
        JsonNode node = config.path("chat_template");
        templateSource = configFile + ": chat_template";
        if (node.isArray()) {
            List<String> names = new ArrayList<>();
            for (JsonNode named : node.values()) {
                names.add(named.path("name").stringValue(""));
                if (names.getLast().equals("default")) {
                    template = named.path("template").stringValue(null);
                }
            }
            if (template == null) {
                throw new FormatException(
                        templateSource + " has the templates " + names + " but none named \"default\"");
            }
        } else {
            template = node.stringValue(null);
        }
    }

    private static List<String> templateNames(Path dir) throws IOException {
        try (Stream<Path> files = Files.list(dir)) {
            return files.map(file -> file.getFileName().toString())
                    .filter(name -> name.endsWith(".jinja"))
                    .map(name -> name.substring(0, name.length() - ".jinja".length()))
                    .sorted()
                    .toList();
        }
    }

    /** transformers adds tokens of the config that tokenizer.json lacks; ids would shift, so they are refused instead. */
    private void checkAddedTokens() throws FormatException {
        for (Map.Entry<String, JsonNode> entry :
                config.path("added_tokens_decoder").properties()) {
            String content = entry.getValue().path("content").stringValue("");
            Integer id = vocabulary.get(content);
            if (id == null || !id.toString().equals(entry.getKey())) {
                throw new FormatException(configFile + ": added_tokens_decoder gives \"" + content + "\" the id "
                        + entry.getKey() + ", " + file + " " + (id == null ? "does not have it" : "the id " + id)
                        + "; save the tokenizer again with transformers");
            }
        }
    }

    Path file() {
        return file;
    }

    /** Returns the text of the tokenizer.json to load. */
    byte[] effectiveJson() {
        return json.toString().getBytes(StandardCharsets.UTF_8);
    }

    Map<String, Integer> vocabulary() {
        return vocabulary;
    }

    @Nullable
    SpecialToken special(String role) {
        return special.get(role);
    }

    @Nullable
    String template() {
        return template;
    }

    String templateSource() {
        return templateSource;
    }
}
