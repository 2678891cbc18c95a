package io.lora4j.formats.template;

import java.util.List;
import java.util.Map;
import java.util.Set;

/** The tests of {@code x is …}. */
final class Tests {
    private static final Set<String> BINARY =
            Set.of("equalto eq ne in divisibleby sameas gt greaterthan ge lt lessthan le".split(" "));
    private static final Set<String> UNARY =
            Set.of(("defined undefined none string mapping iterable sequence number integer float boolean true "
                            + "false odd even lower upper callable")
                    .split(" "));

    private Tests() {}

    static void requireKnown(String name, int line) {
        if (!BINARY.contains(name) && !UNARY.contains(name)) {
            throw new TemplateError(line, "test '" + name + "' is not supported");
        }
    }

    static boolean test(String name, Object value, List<Object> arguments) {
        int expected = BINARY.contains(name) ? 1 : 0;
        if (arguments.size() != expected) {
            throw new TemplateError("test '" + name + "' takes " + expected + " arguments, not " + arguments.size());
        }
        return expected == 1 ? binary(name, value, arguments.getFirst()) : unary(name, value);
    }

    private static boolean binary(String name, Object value, Object other) {
        return switch (name) {
            case "equalto", "eq" -> Values.equal(value, other);
            case "ne" -> !Values.equal(value, other);
            case "in" -> Values.contains(other, value);
            case "divisibleby" -> Math.floorMod(Values.toLong(value), Values.toLong(other)) == 0;
            case "sameas" -> same(value, other);
            case "gt", "greaterthan" -> Values.compare(value, other) > 0;
            case "ge" -> Values.compare(value, other) >= 0;
            case "lt", "lessthan" -> Values.compare(value, other) < 0;
            default -> Values.compare(value, other) <= 0;
        };
    }

    /** Identity is only meaningful for the constants; equal texts of one template may or may not be one object in Python. */
    @SuppressWarnings("ReferenceEquality") // Identity is what the test asks for.
    private static boolean same(Object value, Object other) {
        boolean constant = value instanceof Boolean || value == None.NONE;
        return constant ? value.equals(other) : value == other;
    }

    private static boolean unary(String name, Object value) {
        return switch (name) {
            case "defined" -> !(value instanceof Undefined);
            case "undefined" -> value instanceof Undefined;
            case "none" -> value == None.NONE;
            case "string" -> value instanceof Text;
            case "mapping" -> value instanceof Map<?, ?>;
            case "iterable" ->
                value instanceof Text
                        || value instanceof Iterable<?>
                        || value instanceof Map<?, ?>
                        || value instanceof Undefined;
            case "sequence" ->
                value instanceof Text
                        || value instanceof List<?>
                        || value instanceof Map<?, ?>
                        || value instanceof Undefined;
            case "number" -> Values.isNumber(value);
            case "integer" -> value instanceof Long;
            case "float" -> value instanceof Double;
            case "boolean" -> value instanceof Boolean;
            case "true" -> Boolean.TRUE.equals(value);
            case "false" -> Boolean.FALSE.equals(value);
            case "odd" -> Math.floorMod(Values.toLong(value), 2L) == 1;
            case "even" -> Math.floorMod(Values.toLong(value), 2L) == 0;
            case "lower" -> {
                Text text = Values.text(value);
                yield Strings.lower(text).equals(text) && hasCase(text);
            }
            case "upper" -> {
                Text text = Values.text(value);
                yield Strings.upper(text).equals(text) && hasCase(text);
            }
            default ->
                value instanceof Callables.Function
                        || value instanceof Evaluator.Macro
                        || value instanceof Callables.BoundMethod;
        };
    }

    private static boolean hasCase(Text text) {
        return text.toString().codePoints().anyMatch(c -> Character.isUpperCase(c) || Character.isLowerCase(c));
    }
}
