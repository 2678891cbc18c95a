package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import tools.jackson.core.JacksonException;
import tools.jackson.core.JsonParser;
import tools.jackson.core.ObjectReadContext;
import tools.jackson.core.StreamReadFeature;
import tools.jackson.core.TokenStreamLocation;
import tools.jackson.core.json.JsonFactory;
import tools.jackson.core.type.TypeReference;
import tools.jackson.databind.DeserializationFeature;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ObjectNode;

/** Reads strict JSON: no duplicate keys, nothing after the document, nesting limited; failures name file and line. */
final class Json {
    /** Longer files are taken for damage (the largest real ones, tokenizers, have some 35 MB). */
    private static final long MAX_FILE = 1L << 28;

    private static final JsonFactory FACTORY = JsonFactory.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    private static final JsonMapper MAPPER = JsonMapper.builder(FACTORY)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    private Json() {}

    /** Reads a file that must hold one JSON object. */
    static ObjectNode readObject(Path file) throws IOException {
        InputFile.require(file);
        if (Files.size(file) > MAX_FILE) {
            throw new FormatException(file + ": has " + Files.size(file) + " bytes; JSON of a model has at most "
                    + MAX_FILE + ": this is another file, or it is damaged");
        }
        return parseObject(InputFile.bytes(file), file.toString());
    }

    /** Parses bytes that must be one JSON object; {@code where} begins every message. */
    static ObjectNode parseObject(byte[] bytes, String where) throws FormatException {
        JsonNode node;
        try {
            node = MAPPER.readTree(bytes);
        } catch (JacksonException e) {
            throw invalid(where, e);
        }
        if (node instanceof ObjectNode object) {
            return object;
        }
        throw new FormatException(where + ": holds a JSON " + kind(node) + "; expected an object");
    }

    /** Starts to read a document token by token; who does needs {@link #invalid}. */
    static JsonParser parser(byte[] bytes) {
        return FACTORY.createParser(ObjectReadContext.empty(), bytes);
    }

    /** Says what the parser did not like. */
    static FormatException invalid(String where, JacksonException e) {
        return new FormatException(
                where + line(e) + ": not valid JSON: " + InputFile.jsonProblem(e)
                        + "; correct it, or fetch the file again",
                e);
    }

    /** Returns an object as a map of plain values, its keys in their order. */
    static Map<String, Object> toMap(ObjectNode object) {
        return MAPPER.convertValue(object, new TypeReference<LinkedHashMap<String, Object>>() {});
    }

    /** Returns the word for a node's type in messages. */
    static String kind(JsonNode node) {
        return switch (node.getNodeType()) {
            case ARRAY -> "array";
            case OBJECT -> "object";
            case STRING -> "string";
            case NUMBER -> "number";
            case BOOLEAN -> "boolean";
            case NULL -> "null";
            default -> "nothing";
        };
    }

    private static String line(JacksonException e) {
        TokenStreamLocation location = e.getLocation();
        return location == null || location.getLineNr() < 1 ? "" : ":" + location.getLineNr();
    }
}
