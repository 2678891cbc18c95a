package io.lora4j.formats.template;

import io.lora4j.formats.template.Callables.Args;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.TextStyle;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The functions of transformers' template environment. */
final class Functions {
    /** Jinja's sandbox allows no longer ranges. */
    private static final long MAX_RANGE = 100_000;

    private Functions() {}

    /** {@code dict(**names)} and {@code dict(mapping)}, also the attributes of {@code namespace(…)}. */
    static Map<Object, Object> dictOf(Args args) {
        Map<Object, Object> dict = new LinkedHashMap<>();
        if (args.positional().size() > 1) {
            throw new TemplateError("'dict' takes one mapping");
        }
        for (Object base : args.positional()) {
            if (!(base instanceof Map<?, ?> map)) {
                throw Values.error("'dict' needs a mapping, not " + Values.described(base), base);
            }
            dict.putAll(map);
        }
        dict.putAll(args.named());
        return dict;
    }

    static Map<String, Object> dict(Args args) {
        Map<String, Object> dict = new LinkedHashMap<>();
        dictOf(args).forEach((key, value) -> dict.put(String.valueOf(key), value));
        return dict;
    }

    static Object range(Args args) {
        args.atMost("range", "start", "stop", "step");
        List<Object> p = args.positional();
        if (p.isEmpty() || !args.named().isEmpty()) {
            throw new TemplateError("'range' needs one to three integers");
        }
        long start = p.size() > 1 ? Values.toLong(p.get(0)) : 0;
        long stop = Values.toLong(p.size() > 1 ? p.get(1) : p.get(0));
        long step = p.size() > 2 ? Values.toLong(p.get(2)) : 1;
        if (step == 0) {
            throw new TemplateError("'range' needs a step other than 0");
        }
        List<Object> items = new ArrayList<>();
        for (long i = start; step > 0 ? i < stop : i > stop; i += step) {
            if (items.size() == MAX_RANGE) {
                throw new TemplateError("range is longer than " + MAX_RANGE);
            }
            items.add(i);
        }
        return items;
    }

    static Object raise(Args args) {
        args.atMost("raise_exception", "message");
        throw new TemplateError(
                "the template refuses the messages: " + Values.text(args.require(0, "message", "raise_exception")));
    }

    /** {@code strftime_now(format)} at the caller's time, in C's locale. */
    static Object strftime(Args args, ZonedDateTime now) {
        args.atMost("strftime_now", "format");
        String format = Values.requireText(args.require(0, "format", "strftime_now"), "'strftime_now'")
                .toString();
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%' || i + 1 == format.length()) {
                out.append(c);
                continue;
            }
            char code = format.charAt(++i);
            boolean unpadded = code == '-' && i + 1 < format.length();
            if (unpadded) {
                code = format.charAt(++i);
            }
            String value = field(code, now);
            out.append(
                    unpadded && value.length() > 1 && value.startsWith("0")
                            ? value.replaceFirst("^0+(?=.)", "")
                            : value);
        }
        return Text.of(out.toString());
    }

    private static String field(char code, ZonedDateTime now) {
        return switch (code) {
            case 'Y' -> String.valueOf(now.getYear());
            case 'm' -> pattern("MM", now);
            case 'd' -> pattern("dd", now);
            case 'e' -> String.format(Locale.ROOT, "%2d", now.getDayOfMonth());
            case 'y' -> pattern("uu", now);
            case 'H' -> pattern("HH", now);
            case 'I' -> pattern("hh", now);
            case 'M' -> pattern("mm", now);
            case 'S' -> pattern("ss", now);
            case 'j' -> pattern("DDD", now);
            case 'p' -> now.getHour() < 12 ? "AM" : "PM";
            case 'b', 'h' -> now.getMonth().getDisplayName(TextStyle.SHORT, Locale.US);
            case 'B' -> now.getMonth().getDisplayName(TextStyle.FULL, Locale.US);
            case 'a' -> now.getDayOfWeek().getDisplayName(TextStyle.SHORT, Locale.US);
            case 'A' -> now.getDayOfWeek().getDisplayName(TextStyle.FULL, Locale.US);
            case 'F' -> pattern("uuuu-MM-dd", now);
            case 'T' -> pattern("HH:mm:ss", now);
            case '%' -> "%";
            default -> throw new TemplateError("time format '%" + code + "' is not supported");
        };
    }

    private static String pattern(String pattern, ZonedDateTime now) {
        return DateTimeFormatter.ofPattern(pattern, Locale.ROOT).format(now);
    }
}
