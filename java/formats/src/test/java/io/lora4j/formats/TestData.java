package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** Finds and reads the committed test data. */
public final class TestData {
    private static final JsonMapper MAPPER = new JsonMapper();

    private TestData() {}

    /** Returns a file under {@code test-data/}. */
    public static Path path(String relative) {
        for (Path dir = Path.of("").toAbsolutePath(); dir != null; dir = dir.getParent()) {
            Path candidate = dir.resolve("test-data").resolve(relative);
            if (Files.exists(candidate)) {
                return candidate;
            }
        }
        throw new AssertionError(
                "test-data/" + relative + " not found above " + Path.of("").toAbsolutePath());
    }

    /** Reads a JSON file under {@code test-data/}. */
    public static JsonNode json(String relative) throws IOException {
        return parse(Files.readString(path(relative)));
    }

    /** Parses JSON. */
    public static JsonNode parse(String json) {
        return MAPPER.readTree(json);
    }

    /** Turns JSON into Maps, Lists, Strings, Numbers, Booleans and null. */
    public static Object plain(JsonNode node) {
        return MAPPER.convertValue(node, Object.class);
    }
}
