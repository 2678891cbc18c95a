package io.lora4j.formats.template;

import io.lora4j.formats.PythonJson;
import io.lora4j.formats.template.Callables.Args;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** The filters of {@code x | …}, with Jinja's names, arguments and meaning. */
final class Filters {
    private static final Map<String, BiFunction<Object, Args, Object>> FILTERS = new LinkedHashMap<>();

    static {
        FILTERS.put("trim", (x, a) -> Strings.strip(Values.text(x), chars(a), true, true));
        FILTERS.put("upper", (x, a) -> Strings.upper(Values.text(x)));
        FILTERS.put("lower", (x, a) -> Strings.lower(Values.text(x)));
        FILTERS.put("capitalize", (x, a) -> Strings.capitalize(Values.text(x)));
        FILTERS.put(
                "title", (x, a) -> Strings.title(Values.text(x), c -> Strings.isSpace(c) || "-({[<".indexOf(c) >= 0));
        FILTERS.put("length", (x, a) -> Values.length(x));
        FILTERS.put("count", (x, a) -> Values.length(x));
        FILTERS.put("string", (x, a) -> Values.text(x));
        FILTERS.put("safe", (x, a) -> Values.text(x).asMarkup());
        FILTERS.put("list", (x, a) -> Values.items(x));
        FILTERS.put("join", Filters::join);
        FILTERS.put("first", (x, a) -> end(x, true));
        FILTERS.put("last", (x, a) -> end(x, false));
        FILTERS.put("default", Filters::otherwise);
        FILTERS.put("d", Filters::otherwise);
        FILTERS.put("replace", Filters::replace);
        FILTERS.put("tojson", Filters::toJson);
        FILTERS.put("int", Filters::toInt);
        FILTERS.put("float", Filters::toFloat);
        FILTERS.put(
                "abs",
                (x, a) -> x instanceof Double d ? (Object) Math.abs(d) : (Object) Math.absExact(Values.toLong(x)));
        FILTERS.put("indent", Filters::indent);
        FILTERS.put("items", Filters::items);
        FILTERS.put("dictsort", Filters::dictSort);
        FILTERS.put("reverse", Filters::reverse);
        FILTERS.put("sort", Filters::sort);
        FILTERS.put("unique", Filters::unique);
        FILTERS.put("min", (x, a) -> extreme(x, Comparator.naturalOrder()));
        FILTERS.put("max", (x, a) -> extreme(x, Comparator.reverseOrder()));
        FILTERS.put("sum", Filters::sum);
        FILTERS.put("map", Filters::map);
        FILTERS.put("select", (x, a) -> pick(x, a, false, true));
        FILTERS.put("reject", (x, a) -> pick(x, a, false, false));
        FILTERS.put("selectattr", (x, a) -> pick(x, a, true, true));
        FILTERS.put("rejectattr", (x, a) -> pick(x, a, true, false));
    }

    private Filters() {}

    static void requireKnown(String name, int line) {
        if (!FILTERS.containsKey(name)) {
            throw new TemplateError(line, "filter '" + name + "' is not supported");
        }
    }

    static Object apply(String name, Object value, Args args) {
        BiFunction<Object, Args, Object> filter = FILTERS.get(name);
        if (filter == null) {
            throw new TemplateError("filter '" + name + "' is not supported");
        }
        return filter.apply(value, args);
    }

    private static @Nullable String chars(Args args) {
        args.atMost("trim", "chars");
        Object chars = args.get(0, "chars", None.NONE);
        return chars == None.NONE ? null : Values.requireText(chars, "'trim'").toString();
    }

    private static Object join(Object value, Args args) {
        args.atMost("join", "d", "attribute");
        Object attribute = args.get(1, "attribute", None.NONE);
        Text separator = Values.text(args.get(0, "d", Text.EMPTY));
        List<Object> texts = new ArrayList<>();
        for (Object item : Values.items(value)) {
            texts.add(Values.text(attribute == None.NONE ? item : path(item, attribute)));
        }
        return Methods.join(separator, texts);
    }

    private static Object end(Object value, boolean first) {
        if (value instanceof Generator && !first) {
            throw new TemplateError("'last' of a generator is not possible; use '| list' before it");
        }
        List<Object> items = Values.items(value);
        return items.isEmpty()
                ? new Undefined("the " + (first ? "first" : "last") + " item of an empty sequence")
                : first ? items.getFirst() : items.getLast();
    }

    private static Object otherwise(Object value, Args args) {
        args.atMost("default", "default_value", "boolean");
        boolean falsy = Values.truth(args.get(1, "boolean", false)) && !Values.truth(value);
        return value instanceof Undefined || falsy ? args.get(0, "default_value", Text.EMPTY) : value;
    }

    private static Object replace(Object value, Args args) {
        args.atMost("replace", "old", "new", "count");
        Object count = args.get(2, "count", None.NONE);
        return Strings.replace(
                Values.text(value),
                Values.text(args.require(0, "old", "replace")).toString(),
                Values.text(args.require(1, "new", "replace")),
                count == None.NONE ? -1 : Values.toLong(count));
    }

    /** transformers' own {@code tojson}: plain {@code json.dumps} without ASCII escapes. */
    private static Object toJson(Object value, Args args) {
        args.atMost("tojson", "ensure_ascii", "indent", "separators", "sort_keys");
        Object indent = args.get(1, "indent", None.NONE);
        Object separators = args.get(2, "separators", None.NONE);
        String unit = indent == None.NONE
                ? null
                : indent instanceof Text text ? text.toString() : " ".repeat(Math.clamp(Values.toLong(indent), 0, 64));
        String item = unit == null ? ", " : ",";
        String key = ": ";
        if (separators != None.NONE) {
            List<Object> pair = Values.items(separators);
            if (pair.size() != 2) {
                throw new TemplateError("'tojson' needs two separators");
            }
            item = Values.text(pair.get(0)).toString();
            key = Values.text(pair.get(1)).toString();
        }
        boolean ascii = Values.truth(args.get(0, "ensure_ascii", false));
        boolean sorted = Values.truth(args.get(3, "sort_keys", false));
        try {
            return Text.of(new PythonJson(ascii, unit, item, key, sorted).write(plain(value)));
        } catch (IllegalArgumentException e) {
            throw new TemplateError("'tojson': " + e.getMessage());
        }
    }

    private static @Nullable Object plain(Object value) {
        return switch (value) {
            case None n -> null;
            case Undefined u -> throw u.error();
            case Text text -> text.toString();
            case Map<?, ?> map -> {
                Map<String, @Nullable Object> copy = new LinkedHashMap<>();
                map.forEach((k, v) ->
                        copy.put(k instanceof String s ? s : Values.repr(k).toLowerCase(Locale.ROOT), plain(v)));
                yield copy;
            }
            case List<?> list -> {
                List<@Nullable Object> copy = new ArrayList<>();
                list.forEach(item -> copy.add(plain(item)));
                yield copy;
            }
            case Boolean b -> b;
            case Long l -> l;
            case Double d -> d;
            default -> throw new TemplateError("'tojson' does not take " + Values.described(value));
        };
    }

    private static Object toInt(Object value, Args args) {
        args.atMost("int", "default");
        Object otherwise = args.get(0, "default", 0L);
        return switch (value) {
            case Double d when Double.isFinite(d) -> (long) (double) d;
            case Text text -> {
                try {
                    yield Long.parseLong(text.toString().strip());
                } catch (NumberFormatException e) {
                    Object number = toFloat(value, new Args(List.of(None.NONE), Map.of()));
                    yield number instanceof Double d && Double.isFinite(d) ? (Object) (long) (double) d : otherwise;
                }
            }
            default -> Values.isIntegral(value) ? (Object) Values.toLong(value) : otherwise;
        };
    }

    private static Object toFloat(Object value, Args args) {
        args.atMost("float", "default");
        if (Values.isNumber(value)) {
            return Values.toDouble(value);
        }
        try {
            return Double.valueOf(Values.text(value).toString().strip());
        } catch (NumberFormatException e) {
            return args.get(0, "default", 0.0);
        }
    }

    private static Object indent(Object value, Args args) {
        args.atMost("indent", "width", "first", "blank");
        Object width = args.get(0, "width", 4L);
        Text unit = width instanceof Text text ? text : Text.of(" ".repeat(Math.clamp(Values.toLong(width), 0, 256)));
        boolean first = Values.truth(args.get(1, "first", false));
        boolean blank = Values.truth(args.get(2, "blank", false));
        return Strings.indent(Values.text(value), unit, first, blank);
    }

    private static Object items(Object value, Args args) {
        return value instanceof Undefined
                ? Generator.of(List.of())
                : Generator.of(Values.items(Methods.call(requireMap(value, "items"), "items", args)));
    }

    private static Map<?, ?> requireMap(Object value, String filter) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw Values.error("'" + filter + "' needs a mapping, not " + Values.described(value), value);
    }

    private static Object dictSort(Object value, Args args) {
        args.atMost("dictsort");
        List<Object> items = new ArrayList<>();
        requireMap(value, "dictsort").forEach((k, v) -> items.add(new Tuple(List.of(Values.fromKey(k), v))));
        items.sort((a, b) -> Values.compare(ignoreCase(((Tuple) a).get(0)), ignoreCase(((Tuple) b).get(0))));
        return items;
    }

    private static Object ignoreCase(Object value) {
        return value instanceof Text text ? Strings.lower(text) : value;
    }

    private static Object reverse(Object value, Args args) {
        args.atMost("reverse");
        List<Object> items = new ArrayList<>(Values.items(value)).reversed();
        if (value instanceof Text) {
            Text.Builder out = new Text.Builder();
            items.forEach(c -> out.append(Values.text(c)));
            return out.build();
        }
        return Generator.of(items);
    }

    private static Object sort(Object value, Args args) {
        args.atMost("sort", "reverse", "case_sensitive", "attribute");
        boolean reversed = Values.truth(args.get(0, "reverse", false));
        boolean sensitive = Values.truth(args.get(1, "case_sensitive", false));
        Object attribute = args.get(2, "attribute", None.NONE);
        Function<Object, Object> key = item -> {
            Object field = attribute == None.NONE ? item : path(item, attribute);
            return sensitive ? field : ignoreCase(field);
        };
        List<Object> items = new ArrayList<>(Values.items(value));
        Comparator<Object> order = (a, b) -> Values.compare(key.apply(a), key.apply(b));
        items.sort(reversed ? order.reversed() : order);
        return items;
    }

    private static Object unique(Object value, Args args) {
        args.atMost("unique");
        List<Object> unique = new ArrayList<>();
        List<Object> keys = new ArrayList<>();
        for (Object item : Values.items(value)) {
            Object key = ignoreCase(item);
            if (keys.stream().noneMatch(k -> Values.equal(k, key))) {
                keys.add(key);
                unique.add(item);
            }
        }
        return Generator.of(unique);
    }

    private static Object extreme(Object value, Comparator<Integer> order) {
        return Values.items(value).stream()
                .min((a, b) -> order.compare(Values.compare(ignoreCase(a), ignoreCase(b)), 0))
                .orElseGet(() -> new Undefined("the extreme of an empty sequence"));
    }

    private static Object sum(Object value, Args args) {
        args.atMost("sum", "attribute", "start");
        Object attribute = args.get(0, "attribute", None.NONE);
        Object total = args.get(1, "start", 0L);
        for (Object item : Values.items(value)) {
            total = Operators.binary("+", total, attribute == None.NONE ? item : path(item, attribute));
        }
        return total;
    }

    /** Jinja's own rule for {@code map}, {@code select} and their kin: what is false has no items, {@code none} too. */
    private static List<Object> truthy(Object value) {
        return Values.truth(value) ? Values.items(value) : List.of();
    }

    private static Object map(Object value, Args args) {
        List<Object> mapped = new ArrayList<>();
        if (args.positional().isEmpty()) {
            args.atMost("map", "attribute", "default");
            Object attribute = args.require(0, "attribute", "map");
            Object otherwise = args.named().get("default");
            for (Object item : truthy(value)) {
                Object field = path(item, attribute);
                mapped.add(field instanceof Undefined && otherwise != null ? otherwise : field);
            }
        } else {
            String filter =
                    Values.requireText(args.positional().getFirst(), "'map'").toString();
            Args rest = new Args(args.positional().subList(1, args.positional().size()), args.named());
            for (Object item : truthy(value)) {
                mapped.add(apply(filter, item, rest));
            }
        }
        return Generator.of(mapped);
    }

    private static Object pick(Object value, Args args, boolean byAttribute, boolean wanted) {
        List<Object> p = args.positional();
        if ((byAttribute && p.isEmpty()) || !args.named().isEmpty()) {
            throw new TemplateError("'selectattr' and its kin need an attribute and take no named arguments");
        }
        int test = byAttribute ? 1 : 0;
        List<Object> picked = new ArrayList<>();
        for (Object item : truthy(value)) {
            Object field = byAttribute ? path(item, p.getFirst()) : item;
            boolean passes;
            if (p.size() > test) {
                String name = Values.requireText(p.get(test), "'select'").toString();
                Tests.requireKnown(name, 0);
                passes = Tests.test(name, field, p.subList(test + 1, p.size()));
            } else {
                passes = Values.truth(field);
            }
            if (passes == wanted) {
                picked.add(item);
            }
        }
        return Generator.of(picked);
    }

    /** Follows a dotted attribute path. */
    private static Object path(Object item, Object attribute) {
        if (!(attribute instanceof Text)) {
            return Expressions.item(item, attribute);
        }
        Object value = item;
        for (String part : attribute.toString().split("\\.", -1)) {
            boolean index = !part.isEmpty() && part.chars().allMatch(c -> c >= '0' && c <= '9');
            value = Expressions.item(value, index ? (Object) Long.valueOf(part) : (Object) Text.of(part));
        }
        return value;
    }
}
