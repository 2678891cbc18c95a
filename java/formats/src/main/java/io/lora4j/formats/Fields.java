package io.lora4j.formats;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * Typed access to the fields of one JSON object; remembers which were asked for, so that the rest can be refused. A field
 * that is null counts as absent.
 */
final class Fields {
    private final String where;
    private final ObjectNode json;
    private final Set<String> asked = new HashSet<>();

    Fields(String where, ObjectNode json) {
        this.where = where;
        this.json = json;
    }

    static Fields of(Path file, ObjectNode json) {
        return new Fields(file.toString(), json);
    }

    FormatException error(String message) {
        return new FormatException(where + ": " + message);
    }

    private FormatException wrong(String name, JsonNode node, String expected) {
        return error("\"" + name + "\" is " + show(node) + "; expected " + expected);
    }

    /** Returns a field's value or null, and counts it as understood. */
    @Nullable
    JsonNode get(String name) {
        asked.add(name);
        JsonNode node = json.get(name);
        return node == null || node.isNull() ? null : node;
    }

    /** Returns whether a field is there, maybe null. */
    boolean has(String name) {
        return json.has(name);
    }

    /** Returns whether a field is there and null. */
    boolean isNull(String name) {
        return json.path(name).isNull();
    }

    /** Counts fields as understood that have no effect. */
    void ignore(String... names) {
        asked.addAll(List.of(names));
    }

    int count(String name) throws FormatException {
        Integer value = countOrNull(name);
        if (value == null) {
            throw error("\"" + name + "\" is missing; expected a positive integer");
        }
        return value;
    }

    int count(String name, int otherwise) throws FormatException {
        Integer value = countOrNull(name);
        return value == null ? otherwise : value;
    }

    @Nullable
    Integer countOrNull(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        if (!node.isIntegralNumber() || !node.canConvertToInt() || node.intValue() <= 0) {
            throw wrong(name, node, "a positive integer");
        }
        return node.intValue();
    }

    double number(String name) throws FormatException {
        Double value = numberOrNull(name);
        if (value == null) {
            throw error("\"" + name + "\" is missing; expected a number");
        }
        return value;
    }

    double number(String name, double otherwise) throws FormatException {
        Double value = numberOrNull(name);
        return value == null ? otherwise : value;
    }

    @Nullable
    Double numberOrNull(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        double number = node.isNumber() ? node.doubleValue(Double.NaN) : Double.NaN;
        if (!Double.isFinite(number)) {
            throw wrong(name, node, "a number");
        }
        return number;
    }

    boolean flag(String name, boolean otherwise) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return otherwise;
        }
        if (!node.isBoolean()) {
            throw wrong(name, node, "true or false");
        }
        return node.booleanValue();
    }

    @Nullable
    String text(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        if (!node.isString()) {
            throw wrong(name, node, "a string");
        }
        return node.stringValue();
    }

    /** Returns a token id or a list of them, as a list; empty if absent. */
    List<Integer> ids(String name) throws FormatException {
        JsonNode node = get(name);
        List<Integer> ids = new ArrayList<>();
        if (node != null) {
            for (JsonNode id : node.isArray() ? node.values() : List.of(node)) {
                if (!id.isIntegralNumber() || !id.canConvertToInt() || id.intValue() < 0) {
                    throw wrong(name, node, "a token id >= 0 or a list of them");
                }
                ids.add(id.intValue());
            }
        }
        return List.copyOf(ids);
    }

    @Nullable
    Integer idOrNull(String name) throws FormatException {
        JsonNode node = get(name);
        // -1 is an old way of saying "none".
        if (node == null || (node.isIntegralNumber() && node.canConvertToInt() && node.intValue() == -1)) {
            return null;
        }
        if (!node.isIntegralNumber() || !node.canConvertToInt() || node.intValue() < 0) {
            throw wrong(name, node, "a token id >= 0");
        }
        return node.intValue();
    }

    /** Returns a list of sizes, maybe empty; null if absent. */
    @Nullable
    List<Long> sizes(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        List<Long> sizes = new ArrayList<>();
        for (JsonNode size : node.values()) {
            if (!node.isArray() || !size.isIntegralNumber() || !size.canConvertToLong() || size.longValue() < 0) {
                throw wrong(name, node, "a list of integers >= 0");
            }
            sizes.add(size.longValue());
        }
        return List.copyOf(sizes);
    }

    /** Returns a list of strings; null if absent. */
    @Nullable
    List<String> texts(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        List<String> texts = new ArrayList<>();
        for (JsonNode item : node.isArray() ? node.values() : List.of(node)) {
            if (!node.isArray() || !item.isString()) {
                throw wrong(name, node, "a list of strings");
            }
            texts.add(item.stringValue());
        }
        return List.copyOf(texts);
    }

    @Nullable
    Fields object(String name) throws FormatException {
        JsonNode node = get(name);
        if (node == null) {
            return null;
        }
        if (!(node instanceof ObjectNode object)) {
            throw wrong(name, node, "an object");
        }
        return new Fields(where + ": " + name, object);
    }

    Iterable<String> names() {
        return json.propertyNames();
    }

    /** Refuses fields whose value is anything but off (null, false, empty): they ask for something that is not done. */
    void refuseUnlessOff(String... names) throws FormatException {
        for (String name : names) {
            JsonNode node = get(name);
            if (node != null && !isOff(node)) {
                throw error("\"" + name + "\" is " + show(node)
                        + ", which lora4j does not support; remove it, or use a model" + " or adapter without it");
            }
        }
    }

    /** Refuses every field that nobody asked for, unless it is off. */
    void refuseTheRest() throws FormatException {
        for (String name : json.propertyNames()) {
            if (!asked.contains(name) && !isOff(json.get(name))) {
                throw error("unknown field \"" + name + "\" with the value " + show(json.get(name))
                        + ", which may change the result; remove it if it has no effect");
            }
        }
    }

    private static boolean isOff(JsonNode node) {
        return node.isNull() || (node.isBoolean() && !node.booleanValue()) || (node.isContainer() && node.isEmpty());
    }

    private static String show(JsonNode node) {
        String text = node.toString();
        return text.length() <= 100 ? text : text.substring(0, 100) + "…";
    }
}
