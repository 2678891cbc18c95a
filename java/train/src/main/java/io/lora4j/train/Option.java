package io.lora4j.train;

import io.lora4j.formats.ModuleFilter;
import java.math.BigDecimal;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.json.JsonMapper;

/**
 * An option of a command: its name as TRL and PEFT spell it, its default, and how its value is read from a command line (text)
 * or a YAML file (text, number, boolean, list or map). Everything that shows or reads options is derived from these.
 * Immutable.
 *
 * @param name snake_case name; {@code -} and {@code _} are the same to users
 * @param aliases short names
 * @param type what a value looks like, for {@code --help}: {@code INT}, {@code PATH}, {@code linear|cosine}
 * @param defaultValue the value when nothing is given; null if there is none
 * @param absent what happens when nothing is given, for an option without a default; empty if it must be given
 * @param whenNull the value that {@code null} in a YAML file means; null if it means that nothing is given
 * @param trlDefault TRL's default where it differs, with the reason; empty if it is the same
 * @param help one or two sentences
 * @param mayChange whether a resumed run may have another value than the one it goes on from
 * @param reader makes a value of what was given, or throws IllegalArgumentException saying what is expected
 */
public record Option<T>(
        String name,
        List<String> aliases,
        String type,
        @Nullable T defaultValue,
        String absent,
        @Nullable T whenNull,
        String trlDefault,
        String help,
        boolean mayChange,
        Function<Object, T> reader) {

    private static final Pattern PLAIN_NAME = Pattern.compile("[A-Za-z0-9_.]+");
    private static final JsonMapper JSON = new JsonMapper();

    /**
     * Returns an option of any type.
     *
     * @param reader makes a value of what was given, or throws IllegalArgumentException saying what is expected
     */
    public static <T> Option<T> of(
            String name, String type, @Nullable T defaultValue, String help, Function<Object, T> reader) {
        return new Option<>(name, List.of(), type, defaultValue, "", null, "", help, false, reader);
    }

    /** Returns an option for any text. */
    public static Option<String> ofString(String name, @Nullable String defaultValue, String help) {
        return of(name, "TEXT", defaultValue, help, Option::text);
    }

    /** Returns an option for a path, without a default. */
    public static Option<Path> ofPath(String name, String help) {
        return of(name, "PATH", null, help, given -> {
            try {
                return Path.of(text(given));
            } catch (InvalidPathException e) {
                throw new IllegalArgumentException("a path", e);
            }
        });
    }

    /** Returns an option for a whole number of at least {@code min}. */
    public static Option<Integer> ofInt(String name, int defaultValue, int min, String help) {
        return of(name, "INT", defaultValue, help, given -> {
            long value = integer(given);
            if (value < min || value > Integer.MAX_VALUE) {
                throw new IllegalArgumentException("a whole number from " + min + " to " + Integer.MAX_VALUE);
            }
            return (int) value;
        });
    }

    /**
     * Returns an option for a number of steps of at least {@code min}, or a part of the run's steps below 1, as transformers has
     * them: an Integer or a Double.
     */
    public static Option<Number> ofSteps(String name, @Nullable Number defaultValue, int min, String help) {
        return of(name, "INT|RATIO", defaultValue, help, given -> {
            double value = number(given);
            if (value > 0 && value < 1) {
                return value;
            }
            if (value != (int) value || value < min) {
                throw new IllegalArgumentException(
                        "a whole number of at least " + min + ", or a part of all steps between 0 and 1");
            }
            return (int) value;
        });
    }

    /** Returns an option for a list of whole numbers of at least 0, without a default. */
    public static Option<List<Integer>> ofInts(String name, String help) {
        return of(name, "INTS", null, help, given -> {
            List<?> items = given instanceof Collection<?> list
                    ? List.copyOf(list)
                    : List.of(text(given).split("[,\\s]+"));
            List<Integer> values = new ArrayList<>();
            for (Object item : items) {
                long value = integer(item);
                if (value < 0 || value > Integer.MAX_VALUE) {
                    throw new IllegalArgumentException("whole numbers from 0, separated by commas");
                }
                values.add((int) value);
            }
            if (values.isEmpty()) {
                throw new IllegalArgumentException("at least one whole number");
            }
            return List.copyOf(values);
        });
    }

    /** Returns an option for a whole number of 64 bits. */
    public static Option<Long> ofLong(String name, long defaultValue, String help) {
        return of(name, "INT", defaultValue, help, Option::integer);
    }

    /** Returns an option for a number from {@code min} to {@code max}; {@code open} leaves out {@code max} itself. */
    public static Option<Double> ofDouble(
            String name, double defaultValue, double min, double max, boolean open, String help) {
        return of(name, "NUMBER", defaultValue, help, given -> {
            double value = number(given);
            if (!(value >= min && (open ? value < max : value <= max))) {
                // The smallest double stands for: anything above 0.
                throw new IllegalArgumentException(
                        (min == Double.MIN_VALUE ? "a number above 0" : "a number of at least " + min)
                                + (open ? " and below " + max : max < Double.MAX_VALUE ? " and at most " + max : ""));
            }
            return value;
        });
    }

    /** Returns an option that is true or false; a flag without a value means true. */
    public static Option<Boolean> ofBoolean(String name, @Nullable Boolean defaultValue, String help) {
        return of(name, "true|false", defaultValue, help, given -> switch (given) {
            case Boolean b -> b;
            case String s when s.equalsIgnoreCase("true") -> true;
            case String s when s.equalsIgnoreCase("false") -> false;
            default -> throw new IllegalArgumentException("true or false");
        });
    }

    /** Returns an option for one constant of an enum, by its name in lower case. */
    public static <E extends Enum<E>> Option<E> ofEnum(
            String name, Class<E> type, @Nullable E defaultValue, String help) {
        E[] constants = type.getEnumConstants();
        String choices = List.of(constants).stream().map(Option::show).collect(Collectors.joining("|"));
        return of(name, choices, defaultValue, help, given -> {
            for (E constant : constants) {
                if (show(constant).equals(given)) {
                    return constant;
                }
            }
            throw new IllegalArgumentException("one of " + choices);
        });
    }

    /** Returns an option for a set of modules by PEFT's rules: names, a regular expression, or {@code all-linear}. */
    public static Option<ModuleFilter> ofModules(String name, @Nullable ModuleFilter defaultValue, String help) {
        return of(name, "NAMES|REGEX|all-linear", defaultValue, help, Option::modules);
    }

    /** Returns an option for numbers by module name or pattern; whole numbers only if {@code whole}. */
    public static Option<Map<String, Double>> ofPattern(String name, boolean whole, String help) {
        return of(name, "JSON", Map.of(), help, given -> pattern(given, whole));
    }

    /** Returns an option for variables by name, none of them {@code reserved}; nothing by default. */
    public static Option<Map<String, Object>> ofJson(String name, List<String> reserved, String help) {
        return of(name, "JSON", Map.of(), help, given -> {
            Map<String, Object> values = new LinkedHashMap<>();
            map(given, "a map of name to value, such as {\"name\": true}")
                    .forEach((key, value) -> values.put(String.valueOf(key), value));
            for (String key : reserved) {
                if (values.containsKey(key)) {
                    throw new IllegalArgumentException("a map without " + key + ", which is set otherwise");
                }
            }
            return Collections.unmodifiableMap(values);
        });
    }

    /** Returns a copy with short names. */
    public Option<T> alias(String... names) {
        return new Option<>(
                name, List.of(names), type, defaultValue, absent, whenNull, trlDefault, help, mayChange, reader);
    }

    /** Returns a copy that says what TRL's default is. */
    public Option<T> trl(String other) {
        return new Option<>(name, aliases, type, defaultValue, absent, whenNull, other, help, mayChange, reader);
    }

    /** Returns a copy that says what happens without a value. */
    public Option<T> otherwise(String without) {
        return new Option<>(name, aliases, type, defaultValue, without, whenNull, trlDefault, help, mayChange, reader);
    }

    /** Returns a copy of which {@code null} in a YAML file is a value: TRL's null is not always the default here. */
    public Option<T> nullMeans(T value) {
        return new Option<>(name, aliases, type, defaultValue, absent, value, trlDefault, help, mayChange, reader);
    }

    /** Returns a copy that a resumed run may change. */
    public Option<T> changeable() {
        return new Option<>(name, aliases, type, defaultValue, absent, whenNull, trlDefault, help, true, reader);
    }

    /**
     * Reads a value.
     *
     * @param given text from a command line, or what a YAML parser made of it
     * @throws OptionException if it is not one
     */
    public T read(Object given) {
        try {
            return reader.apply(given);
        } catch (IllegalArgumentException e) {
            throw new OptionException("option " + name + ": found " + quoted(given) + ", expected " + e.getMessage());
        }
    }

    /** Returns the line about defaults that {@code --help} shows. */
    public String describeDefault() {
        String without = absent.isEmpty() ? "required" : "default: " + absent;
        String ours = defaultValue == null
                ? without
                : "default: " + (defaultValue instanceof Double number ? plain(number) : show(defaultValue));
        return trlDefault.isEmpty() ? ours : ours + "; TRL: " + trlDefault;
    }

    /** Returns a value as users write it. */
    public static String show(Object value) {
        return switch (value) {
            case Enum<?> e -> e.name().toLowerCase(Locale.ROOT);
            case ModuleFilter.Names(List<String> names) -> String.join(",", names);
            case ModuleFilter.Regex(String source) -> source;
            case ModuleFilter.AllLinear() -> "all-linear";
            case Map<?, ?> map when map.isEmpty() -> "none";
            case Map<?, ?> map -> JSON.writeValueAsString(map);
            case Collection<?> list when list.isEmpty() -> "none";
            case Collection<?> list -> list.stream().map(Option::show).collect(Collectors.joining(","));
            default -> value.toString();
        };
    }

    /** As people write numbers: 32, 0.0002, 1e-8. */
    private static String plain(double number) {
        if (number == Math.rint(number)) {
            return Long.toString((long) number);
        }
        return number >= 1e-5
                ? new BigDecimal(Double.toString(number)).stripTrailingZeros().toPlainString()
                : Double.toString(number).toLowerCase(Locale.ROOT).replace(".0e", "e");
    }

    private static String quoted(Object given) {
        return given instanceof CharSequence ? "\"" + given + "\"" : given.toString();
    }

    private static String text(Object given) {
        if (given instanceof Collection<?>
                || given instanceof Map<?, ?>
                || given.toString().isEmpty()) {
            throw new IllegalArgumentException("a text");
        }
        return given.toString();
    }

    private static long integer(Object given) {
        try {
            return Long.parseLong(text(given));
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException("a whole number", e);
        }
    }

    private static double number(Object given) {
        try {
            double value = Double.parseDouble(text(given));
            if (Double.isFinite(value)) {
                return value;
            }
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException("a number", e);
        }
        throw new IllegalArgumentException("a finite number");
    }

    /**
     * A list is a list of names. Text is {@code all-linear}, one or more plain names separated by commas or spaces, or else a
     * regular expression: PEFT itself would take a single name for an expression that matches nothing.
     */
    private static ModuleFilter modules(Object given) {
        if (given instanceof Collection<?> list) {
            List<String> names = list.stream().map(Object::toString).toList();
            if (names.isEmpty()) {
                throw new IllegalArgumentException("at least one module name");
            }
            return names.size() == 1 ? modules(names.getFirst()) : new ModuleFilter.Names(names);
        }
        String text = text(given).strip();
        if (text.equals("all-linear")) {
            return new ModuleFilter.AllLinear();
        }
        String[] names = text.split("[,\\s]+");
        for (String name : names) {
            if (!PLAIN_NAME.matcher(name).matches()) {
                return new ModuleFilter.Regex(text);
            }
        }
        return new ModuleFilter.Names(List.of(names));
    }

    private static Map<String, Double> pattern(Object given, boolean whole) {
        String expected = "a map of module name to " + (whole ? "rank" : "number") + ", such as {\"q_proj\": 16}";
        Map<String, Double> values = new LinkedHashMap<>();
        for (Map.Entry<?, ?> entry : map(given, expected).entrySet()) {
            double value = entry.getValue() instanceof Number n ? n.doubleValue() : Double.NaN;
            if (!(entry.getKey() instanceof String name) || !(value > 0) || (whole && value != (int) value)) {
                throw new IllegalArgumentException(expected);
            }
            values.put(name, value);
        }
        return Collections.unmodifiableMap(values);
    }

    private static Map<?, ?> map(Object given, String expected) {
        Object tree = given;
        if ("none".equals(given)) {
            tree = Map.of(); // As an empty one is shown.
        } else if (given instanceof String json) {
            try {
                tree = JSON.readValue(json, Map.class);
            } catch (JacksonException e) {
                throw new IllegalArgumentException(expected, e);
            }
        }
        if (tree instanceof Map<?, ?> map) {
            return map;
        }
        throw new IllegalArgumentException(expected);
    }
}
