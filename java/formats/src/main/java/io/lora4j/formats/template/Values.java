package io.lora4j.formats.template;

import io.lora4j.formats.PythonJson;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Python's view of the values in a template: {@link None}, Boolean, Long, Double, {@link Text}, List, {@link Tuple}, Map with
 * String or scalar keys, {@link Undefined}, {@link Generator}, {@link Namespace}, and what can be called.
 */
final class Values {
    private Values() {}

    /** Turns a Java value of the caller into a template value. */
    static Object of(@Nullable Object value) {
        return switch (value) {
            case null -> None.NONE;
            case Boolean b -> b;
            case Integer i -> (long) i;
            case Long l -> l;
            case Short s -> (long) s;
            case Float f -> (double) f;
            case Double d -> d;
            case Text text -> text;
            case CharSequence text -> Text.of(text.toString());
            case Map<?, ?> map -> {
                Map<Object, Object> copy = new LinkedHashMap<>();
                map.forEach((k, v) -> copy.put(String.valueOf(k), of(v)));
                yield copy;
            }
            case Iterable<?> list -> {
                List<Object> copy = new ArrayList<>();
                list.forEach(item -> copy.add(of(item)));
                yield copy;
            }
            default ->
                throw new IllegalArgumentException("a " + value.getClass().getName() + " cannot be used in a template");
        };
    }

    static boolean truth(Object value) {
        return switch (value) {
            case None n -> false;
            case Undefined u -> false;
            case Boolean b -> b;
            case Long l -> l != 0;
            case Double d -> d != 0;
            case Text text -> text.length() > 0;
            case List<?> list -> !list.isEmpty();
            case Map<?, ?> map -> !map.isEmpty();
            default -> true;
        };
    }

    /** As Python's {@code str}. */
    static Text text(Object value) {
        return switch (value) {
            case Text text -> text;
            case Undefined u -> Text.EMPTY;
            default -> Text.of(repr(value));
        };
    }

    /** As Python's {@code repr}. */
    static String repr(Object value) {
        return switch (value) {
            case None n -> "None";
            case Boolean b -> b ? "True" : "False";
            case Double d ->
                Double.isNaN(d) ? "nan" : Double.isInfinite(d) ? (d > 0 ? "inf" : "-inf") : PythonJson.number(d);
            case Long l -> l.toString();
            case String key -> reprOf(key);
            case Text text -> reprOf(text.toString());
            case Undefined u -> "Undefined";
            case Tuple tuple -> {
                String items = joined(tuple);
                yield "(" + items + (tuple.size() == 1 ? ",)" : ")");
            }
            case List<?> list -> "[" + joined(list) + "]";
            case Map<?, ?> map -> {
                StringBuilder out = new StringBuilder("{");
                map.forEach((k, v) -> out.append(out.length() > 1 ? ", " : "")
                        .append(repr(k))
                        .append(": ")
                        .append(repr(v)));
                yield out.append('}').toString();
            }
            default -> throw new TemplateError(described(value) + " cannot be printed");
        };
    }

    private static String joined(List<?> items) {
        StringBuilder out = new StringBuilder();
        for (Object item : items) {
            out.append(out.isEmpty() ? "" : ", ").append(repr(item));
        }
        return out.toString();
    }

    private static String reprOf(String string) {
        char quote = string.indexOf('\'') >= 0 && string.indexOf('"') < 0 ? '"' : '\'';
        StringBuilder out = new StringBuilder().append(quote);
        string.codePoints().forEach(c -> {
            switch (c) {
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\\' -> out.append("\\\\");
                default -> {
                    if (c == quote) {
                        out.append('\\').append(quote);
                    } else if (isPrintable(c)) {
                        out.appendCodePoint(c);
                    } else {
                        String format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
                        out.append(String.format(java.util.Locale.ROOT, format, c));
                    }
                }
            }
        });
        return out.append(quote).toString();
    }

    private static boolean isPrintable(int c) {
        return switch (Character.getType(c)) {
            case Character.CONTROL,
                    Character.FORMAT,
                    Character.SURROGATE,
                    Character.PRIVATE_USE,
                    Character.UNASSIGNED,
                    Character.LINE_SEPARATOR,
                    Character.PARAGRAPH_SEPARATOR -> false;
            case Character.SPACE_SEPARATOR -> c == ' ';
            default -> true;
        };
    }

    /** As Python's {@code ==}. */
    static boolean equal(Object a, Object b) {
        if (isNumber(a) && isNumber(b)) {
            boolean exact = !(a instanceof Double) && !(b instanceof Double);
            return exact ? toLong(a) == toLong(b) : toDouble(a) == toDouble(b);
        }
        if (a instanceof Undefined && b instanceof Undefined) {
            return true;
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            if (a instanceof Tuple != b instanceof Tuple || x.size() != y.size()) {
                return false;
            }
            for (int i = 0; i < x.size(); i++) {
                if (!equal(x.get(i), y.get(i))) {
                    return false;
                }
            }
            return true;
        }
        if (a instanceof Map<?, ?> x && b instanceof Map<?, ?> y) {
            return x.size() == y.size()
                    && x.entrySet().stream()
                            .allMatch(e -> y.containsKey(e.getKey()) && equal(e.getValue(), y.get(e.getKey())));
        }
        return a.equals(b);
    }

    /** As Python's {@code <}: negative, zero or positive. */
    static int compare(Object a, Object b) {
        if (isNumber(a) && isNumber(b)) {
            return a instanceof Double || b instanceof Double
                    ? Double.compare(toDouble(a), toDouble(b))
                    : Long.compare(toLong(a), toLong(b));
        }
        if (a instanceof Text x && b instanceof Text y) {
            return compareCodePoints(x.toString(), y.toString());
        }
        throw error("cannot order " + described(a) + " and " + described(b), a, b);
    }

    private static int compareCodePoints(String a, String b) {
        int[] x = a.codePoints().toArray();
        int[] y = b.codePoints().toArray();
        return java.util.Arrays.compare(x, y);
    }

    /** Returns an error that says so if one of the values is undefined. */
    static TemplateError error(String message, Object... values) {
        for (Object value : values) {
            if (value instanceof Undefined undefined) {
                return undefined.error();
            }
        }
        return new TemplateError(message);
    }

    static boolean isNumber(Object value) {
        return value instanceof Long || value instanceof Double || value instanceof Boolean;
    }

    static double toDouble(Object value) {
        return value instanceof Double d ? d : toLong(value);
    }

    static long toLong(Object value) {
        return switch (value) {
            case Long l -> l;
            case Boolean b -> b ? 1 : 0;
            default -> throw error("expected an integer, not " + described(value), value);
        };
    }

    static boolean isIntegral(Object value) {
        return value instanceof Long || value instanceof Boolean;
    }

    /** As Python's {@code len}. */
    static long length(Object value) {
        return switch (value) {
            case Undefined u -> 0;
            case Text text -> text.codePointCount();
            case List<?> list -> list.size();
            case Map<?, ?> map -> map.size();
            default -> throw error(described(value) + " has no length", value);
        };
    }

    /** Returns what a loop over a value visits. */
    static List<Object> items(Object value) {
        return switch (value) {
            case Undefined u -> List.of();
            case Text text -> characters(text);
            case Map<?, ?> map ->
                new ArrayList<>(map.keySet().stream().map(Values::fromKey).toList());
            case Iterable<?> list -> {
                List<Object> copy = new ArrayList<>();
                list.forEach(copy::add);
                yield copy;
            }
            default -> throw error(described(value) + " cannot be looped over", value);
        };
    }

    private static List<Object> characters(Text text) {
        List<Object> characters = new ArrayList<>();
        for (int i = 0; i < text.length(); ) {
            int next = i + Character.charCount(Character.codePointAt(text, i));
            characters.add(text.substring(i, next));
            i = next;
        }
        return characters;
    }

    /** As Python's {@code in}. */
    static boolean contains(Object container, Object item) {
        if (container instanceof Text text) {
            if (item instanceof Text part) {
                return text.toString().contains(part.toString());
            }
            throw error("'in' on a string needs a string, not " + described(item), item);
        }
        if (container instanceof Map<?, ?> map) {
            return map.containsKey(toKey(item));
        }
        return items(container).stream().anyMatch(x -> equal(x, item));
    }

    /** Turns a value into a key of a map: texts become plain strings. */
    static Object toKey(Object value) {
        return switch (value) {
            case Text text -> text.toString();
            case Map<?, ?> m -> throw new TemplateError("a mapping cannot be a key");
            case List<?> l when !(l instanceof Tuple) -> throw new TemplateError("a list cannot be a key");
            case Undefined u -> throw u.error();
            default -> value;
        };
    }

    static Object fromKey(Object key) {
        return key instanceof String string ? Text.of(string) : key;
    }

    static Text requireText(Object value, String what) {
        if (value instanceof Text text) {
            return text;
        }
        throw error(what + " needs a string, not " + described(value), value);
    }

    /** Returns what a value is, with its article, for messages. */
    static String described(Object value) {
        String name = typeName(value);
        return ("aeiou".indexOf(name.charAt(0)) >= 0 ? "an " : "a ") + name;
    }

    private static String typeName(Object value) {
        return switch (value) {
            case None n -> "none";
            case Boolean b -> "boolean";
            case Long l -> "integer";
            case Double d -> "float";
            case Text t -> "string";
            case Tuple t -> "tuple";
            case List<?> l -> "list";
            case Map<?, ?> m -> "mapping";
            case Generator g -> "generator";
            case Namespace n -> "namespace";
            case Undefined u -> "undefined value";
            default -> "function";
        };
    }
}
