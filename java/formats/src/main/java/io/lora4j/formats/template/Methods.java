package io.lora4j.formats.template;

import io.lora4j.formats.template.Callables.Args;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/** The methods of strings, lists and mappings that do not change them; the others the sandbox of transformers refuses too. */
final class Methods {
    private static final Set<String> TEXT =
            Set.of(("strip lstrip rstrip split rsplit splitlines startswith endswith upper lower title "
                            + "capitalize replace join find rfind index count removeprefix removesuffix partition "
                            + "rpartition format isdigit isalpha isalnum isspace isupper islower")
                    .split(" "));
    private static final Set<String> LIST = Set.of("index", "count");
    private static final Set<String> MAP = Set.of("items", "keys", "values", "get", "copy");
    /** Methods that exist in Python and not here: asked for, they are an error and not a missing key. */
    private static final Set<String> OTHER_TEXT =
            Set.of(("format_map encode center ljust rjust zfill swapcase casefold translate expandtabs "
                            + "isnumeric isdecimal isidentifier isprintable istitle isascii rindex")
                    .split(" "));

    private static final Set<String> CHANGING =
            Set.of("append extend insert pop remove clear sort reverse update setdefault popitem".split(" "));

    private Methods() {}

    static boolean exists(Object self, String name) {
        return switch (self) {
            case Text t -> TEXT.contains(name) || OTHER_TEXT.contains(name);
            case List<?> l -> LIST.contains(name) || CHANGING.contains(name) || name.equals("copy");
            case Map<?, ?> m -> MAP.contains(name) || CHANGING.contains(name) || name.equals("fromkeys");
            default -> false;
        };
    }

    static Object call(Object self, String name, Args args) {
        boolean supported = switch (self) {
            case Text t -> TEXT.contains(name);
            case List<?> l -> LIST.contains(name);
            default -> MAP.contains(name);
        };
        if (!supported) {
            throw new TemplateError("method '" + name + "' of " + Values.described(self)
                    + (CHANGING.contains(name)
                            ? " changes it, which the sandbox of chat templates forbids"
                            : " is not supported"));
        }
        return switch (self) {
            case Text text -> ofText(text, name, args);
            case Map<?, ?> map -> ofMap(map, name, args);
            default -> ofList((List<?>) self, name, args);
        };
    }

    private static Object ofMap(Map<?, ?> map, String name, Args args) {
        if (name.equals("get")) {
            args.atMost(name, "key", "default");
            Object value = map.get(Values.toKey(args.require(0, "key", name)));
            return value == null ? args.get(1, "default", None.NONE) : value;
        }
        args.atMost(name);
        return switch (name) {
            case "keys" -> Values.items(map);
            case "values" -> new ArrayList<Object>(map.values());
            case "copy" -> new LinkedHashMap<Object, Object>(map);
            default -> {
                List<Object> items = new ArrayList<>();
                map.forEach((key, value) -> items.add(new Tuple(List.of(Values.fromKey(key), value))));
                yield items;
            }
        };
    }

    private static Object ofList(List<?> list, String name, Args args) {
        args.atMost(name, "value");
        Object value = args.require(0, "value", name);
        long count = 0;
        for (int i = 0; i < list.size(); i++) {
            if (Values.equal(list.get(i), value)) {
                if (name.equals("index")) {
                    return (long) i;
                }
                count++;
            }
        }
        if (name.equals("index")) {
            throw new TemplateError(Values.repr(value) + " is not in the list");
        }
        return count;
    }

    private static Object ofText(Text text, String name, Args args) {
        return switch (name) {
            case "strip", "lstrip", "rstrip" -> {
                args.atMost(name, "chars");
                yield Strings.strip(
                        text, optional(args, 0, "chars", name), !name.equals("rstrip"), !name.equals("lstrip"));
            }
            case "split", "rsplit" -> split(text, name, args);
            case "splitlines" -> {
                args.atMost(name);
                yield new ArrayList<Object>(Strings.lines(text));
            }
            case "startswith", "endswith" -> {
                args.atMost(name, "prefix");
                Object affix = args.require(0, "prefix", name);
                List<Object> candidates = affix instanceof Tuple ? Values.items(affix) : List.of(affix);
                yield candidates.stream().anyMatch(c -> {
                    String part = Values.requireText(c, "'" + name + "'").toString();
                    return name.equals("startswith")
                            ? text.toString().startsWith(part)
                            : text.toString().endsWith(part);
                });
            }
            case "replace" -> {
                args.atMost(name, "old", "new", "count");
                yield Strings.replace(
                        text,
                        text(args, 0, "old", name).toString(),
                        text(args, 1, "new", name),
                        Values.toLong(args.get(2, "count", -1L)));
            }
            case "join" -> {
                args.atMost(name, "iterable");
                yield join(text, Values.items(args.require(0, "iterable", name)));
            }
            case "find", "rfind", "index", "count" -> search(text, name, args);
            case "removeprefix", "removesuffix" -> {
                args.atMost(name, "affix");
                String affix = text(args, 0, "affix", name).toString();
                boolean prefix = name.equals("removeprefix");
                boolean has = prefix
                        ? text.toString().startsWith(affix)
                        : text.toString().endsWith(affix);
                yield !has
                        ? text
                        : prefix
                                ? text.substring(affix.length(), text.length())
                                : text.substring(0, text.length() - affix.length());
            }
            case "format" -> Strings.format(text, args);
            case "partition", "rpartition" -> {
                args.atMost(name, "separator");
                yield partition(text, text(args, 0, "separator", name), name.equals("partition"));
            }
            default -> {
                args.atMost(name);
                yield plain(text, name);
            }
        };
    }

    /** The methods without arguments. */
    private static Object plain(Text text, String name) {
        return switch (name) {
            case "upper" -> Strings.upper(text);
            case "lower" -> Strings.lower(text);
            case "capitalize" -> Strings.capitalize(text);
            case "title" -> Strings.title(text, c -> !Character.isLetter(c));
            case "isdigit" -> every(text, Character::isDigit);
            case "isalpha" -> every(text, Character::isLetter);
            case "isalnum" -> every(text, Character::isLetterOrDigit);
            case "isspace" -> every(text, Strings::isSpace);
            case "isupper" -> Tests.test("upper", text, List.of());
            default -> Tests.test("lower", text, List.of());
        };
    }

    private static boolean every(Text text, IntPredicate predicate) {
        return text.length() > 0 && text.toString().codePoints().allMatch(predicate);
    }

    private static Object split(Text text, String name, Args args) {
        args.atMost(name, "sep", "maxsplit");
        String separator = optional(args, 0, "sep", name);
        long limit = Values.toLong(args.get(1, "maxsplit", -1L));
        if (name.equals("split")) {
            return Strings.split(text, separator, limit);
        }
        if (separator == null) {
            if (limit >= 0) {
                throw new TemplateError("'rsplit' with a limit needs a separator here");
            }
            return Strings.split(text, null, -1);
        }
        return Strings.splitFromRight(text, separator, limit);
    }

    private static Object search(Text text, String name, Args args) {
        args.atMost(name, "sub");
        String part = text(args, 0, "sub", name).toString();
        String string = text.toString();
        if (name.equals("count")) {
            return part.isEmpty()
                    ? text.codePointCount() + 1L
                    : (long) Strings.split(text, part, -1).size() - 1;
        }
        int i = name.equals("rfind") ? string.lastIndexOf(part) : string.indexOf(part);
        if (i < 0 && name.equals("index")) {
            throw new TemplateError("substring not found");
        }
        return i < 0 ? -1L : (long) string.codePointCount(0, i);
    }

    private static Object partition(Text text, Text separator, boolean first) {
        if (separator.length() == 0) {
            throw new TemplateError("empty separator");
        }
        int i = first
                ? text.toString().indexOf(separator.toString())
                : text.toString().lastIndexOf(separator.toString());
        if (i < 0) {
            return new Tuple(first ? List.of(text, Text.EMPTY, Text.EMPTY) : List.of(Text.EMPTY, Text.EMPTY, text));
        }
        Text after = text.substring(i + separator.length(), text.length());
        return new Tuple(List.of(text.substring(0, i), separator, after));
    }

    static Text join(Text separator, List<Object> items) {
        Text.Builder out = new Text.Builder();
        for (int i = 0; i < items.size(); i++) {
            out.append(i > 0 ? separator : Text.EMPTY).append(Values.requireText(items.get(i), "'join'"));
        }
        return out.build();
    }

    private static Text text(Args args, int index, String name, String method) {
        return Values.requireText(args.require(index, name, method), "'" + method + "'");
    }

    private static @Nullable String optional(Args args, int index, String name, String method) {
        Object value = args.get(index, name, None.NONE);
        return value == None.NONE
                ? null
                : Values.requireText(value, "'" + method + "'").toString();
    }
}
