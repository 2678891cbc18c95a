package io.lora4j.formats.template;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** Python's string operations on {@link Text}, marks kept. */
final class Strings {
    private Strings() {}

    /** As {@code str.isspace} of one character. */
    static boolean isSpace(int c) {
        return (c >= 0x09 && c <= 0x0D)
                || (c >= 0x1C && c <= 0x20)
                || c == 0x85
                || c == 0xA0
                || c == 0x1680
                || (c >= 0x2000 && c <= 0x200A)
                || c == 0x2028
                || c == 0x2029
                || c == 0x202F
                || c == 0x205F
                || c == 0x3000;
    }

    /** As {@code str.strip}, {@code lstrip} and {@code rstrip}; {@code chars} null means whitespace. */
    static Text strip(Text text, @Nullable String chars, boolean left, boolean right) {
        int start = 0;
        int end = text.length();
        while (left && start < end && strippable(text.charAt(start), chars)) {
            start++;
        }
        while (right && end > start && strippable(text.charAt(end - 1), chars)) {
            end--;
        }
        return text.substring(start, end);
    }

    private static boolean strippable(char c, @Nullable String chars) {
        return chars == null ? isSpace(c) : chars.indexOf(c) >= 0;
    }

    /** As {@code str.split(sep, limit)}; {@code separator} null splits at runs of whitespace, limit -1 has no limit. */
    static List<Object> split(Text text, @Nullable String separator, long limit) {
        if (separator == null) {
            return splitSpaces(text, limit);
        }
        requireSeparator(separator);
        List<Object> parts = new ArrayList<>();
        int from = 0;
        String string = text.toString();
        for (int i = string.indexOf(separator); i >= 0 && limit != 0; i = string.indexOf(separator, from), limit--) {
            parts.add(text.substring(from, i));
            from = i + separator.length();
        }
        parts.add(text.substring(from, text.length()));
        return parts;
    }

    /** As {@code str.rsplit(sep, limit)} with a separator. */
    static List<Object> splitFromRight(Text text, String separator, long limit) {
        requireSeparator(separator);
        List<Object> parts = new ArrayList<>();
        int to = text.length();
        String string = text.toString();
        while (limit-- != 0) {
            int i = string.lastIndexOf(separator, to - separator.length());
            if (i < 0 || to < separator.length()) {
                break;
            }
            parts.addFirst(text.substring(i + separator.length(), to));
            to = i;
        }
        parts.addFirst(text.substring(0, to));
        return parts;
    }

    private static void requireSeparator(String separator) {
        if (separator.isEmpty()) {
            throw new TemplateError("empty separator");
        }
    }

    private static List<Object> splitSpaces(Text text, long limit) {
        List<Object> parts = new ArrayList<>();
        int at = 0;
        while (true) {
            while (at < text.length() && isSpace(text.charAt(at))) {
                at++;
            }
            if (at == text.length()) {
                return parts;
            }
            if (limit-- == 0) {
                parts.add(strip(text.substring(at, text.length()), null, false, true));
                return parts;
            }
            int end = at;
            while (end < text.length() && !isSpace(text.charAt(end))) {
                end++;
            }
            parts.add(text.substring(at, end));
            at = end;
        }
    }

    private static boolean isLineEnd(char c) {
        return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    }

    /** As {@code str.splitlines()}. */
    static List<Text> lines(Text text) {
        List<Text> lines = new ArrayList<>();
        int from = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (isLineEnd(c)) {
                lines.add(text.substring(from, i));
                if (c == '\r' && i + 1 < text.length() && text.charAt(i + 1) == '\n') {
                    i++;
                }
                from = i + 1;
            }
        }
        if (from < text.length()) {
            lines.add(text.substring(from, text.length()));
        }
        return lines;
    }

    /** As {@code str.format}: fields are empty, an index or a name; attributes, conversions and formats are refused. */
    static Text format(Text text, Callables.Args args) {
        Text.Builder out = new Text.Builder();
        int automatic = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c != '{' && c != '}') {
                out.append(text.substring(i, i + 1));
                continue;
            }
            if (i + 1 < text.length() && text.charAt(i + 1) == c) {
                out.append(text.substring(i, ++i));
                continue;
            }
            int end = text.toString().indexOf('}', i);
            if (c == '}' || end < 0) {
                throw new TemplateError("'format' found a single '" + c + "'; a brace itself is written twice");
            }
            String field = text.toString().substring(i + 1, end);
            boolean index = field.isEmpty() || field.chars().allMatch(d -> d >= '0' && d <= '9');
            if (!index && !field.chars().allMatch(d -> Character.isLetterOrDigit(d) || d == '_')) {
                throw new TemplateError(
                        "'format' with the field {" + field + "} is not supported; expected an index or a name");
            }
            int place = field.isEmpty() ? automatic++ : index ? Integer.parseInt(field) : Integer.MAX_VALUE;
            out.append(Values.text(args.require(place, index ? "" : field, "format")));
            i = end;
        }
        return out.build();
    }

    /** As {@code str.replace(old, new, count)}; count -1 replaces all. */
    static Text replace(Text text, String old, Text with, long count) {
        Text.Builder out = new Text.Builder();
        String string = text.toString();
        int from = 0;
        int search = 0;
        while (count != 0) {
            int i = string.indexOf(old, search);
            if (i < 0 || search > string.length()) {
                break;
            }
            out.append(text.substring(from, i)).append(with);
            from = i + old.length();
            // An empty pattern matches between all characters.
            search = old.isEmpty() ? i + (i < string.length() ? Character.charCount(string.codePointAt(i)) : 1) : from;
            count--;
        }
        return out.append(text.substring(from, text.length())).build();
    }

    static Text upper(Text text) {
        return mapCodePoints(text, s -> s.toUpperCase(Locale.ROOT));
    }

    static Text lower(Text text) {
        return mapCodePoints(text, s -> s.toLowerCase(Locale.ROOT));
    }

    /** As {@code str.capitalize}: the first character upper case, the others lower case. */
    static Text capitalize(Text text) {
        if (text.length() == 0) {
            return text;
        }
        int first = Character.charCount(text.toString().codePointAt(0));
        return upper(text.substring(0, first)).concat(lower(text.substring(first, text.length())));
    }

    /** Upper case after every character that {@code boundary} accepts (and at the start), lower case elsewhere. */
    static Text title(Text text, java.util.function.IntPredicate boundary) {
        Text.Builder out = new Text.Builder();
        boolean start = true;
        for (int i = 0; i < text.length(); ) {
            int c = text.toString().codePointAt(i);
            int next = i + Character.charCount(c);
            Text one = text.substring(i, next);
            out.append(start ? upper(one) : lower(one));
            start = boundary.test(c);
            i = next;
        }
        return out.build();
    }

    private static Text mapCodePoints(Text text, java.util.function.UnaryOperator<String> map) {
        String mapped = map.apply(text.toString());
        if (mapped.equals(text.toString())) {
            return text;
        }
        Text.Builder out = new Text.Builder();
        for (int i = 0; i < text.length(); ) {
            int next = i + Character.charCount(text.toString().codePointAt(i));
            out.appendAs(map.apply(text.toString().substring(i, next)), text, i);
            i = next;
        }
        // Context-dependent mappings (a final sigma) differ from the sum of their characters.
        return out.build().toString().equals(mapped) ? out.build() : Text.of(mapped);
    }

    /** As the filter {@code indent}: {@code width} before every line but the first, unless told otherwise. */
    static Text indent(Text text, Text width, boolean first, boolean blank) {
        // Jinja adds a newline before splitting, so that a trailing one survives.
        List<Text> lines = lines(text.concat(Text.of("\n")));
        Text.Builder out = new Text.Builder();
        for (int i = 0; i < lines.size(); i++) {
            boolean indented = i == 0 ? first : blank || lines.get(i).length() > 0;
            out.append(i > 0 ? "\n" : "").append(indented ? width : Text.EMPTY).append(lines.get(i));
        }
        return out.build();
    }

    /** Resolves the escapes of a string literal. */
    static String unescape(String literal, int line) {
        if (literal.indexOf('\\') < 0) {
            return literal;
        }
        StringBuilder out = new StringBuilder();
        int i = 0;
        while (i < literal.length()) {
            char c = literal.charAt(i++);
            if (c != '\\') {
                out.append(c);
                continue;
            }
            char e = literal.charAt(i++);
            switch (e) {
                case 'n' -> out.append('\n');
                case 't' -> out.append('\t');
                case 'r' -> out.append('\r');
                case 'b' -> out.append('\b');
                case 'f' -> out.append('\f');
                case 'a' -> out.append('\u0007');
                case 'v' -> out.append('\u000B');
                case '\\', '\'', '"' -> out.append(e);
                case '\n' -> {} // A continued line.
                case 'x', 'u', 'U' -> {
                    int digits = e == 'x' ? 2 : e == 'u' ? 4 : 8;
                    out.append(hex(literal, i, digits, line));
                    i += digits;
                }
                case '0', '1', '2', '3', '4', '5', '6', '7', 'N' ->
                    throw new TemplateError(line, "escape '\\" + e + "' in a string is not supported; use \\x or \\u");
                default -> out.append('\\').append(e);
            }
        }
        return out.toString();
    }

    private static String hex(String literal, int from, int digits, int line) {
        try {
            return Character.toString(Integer.parseUnsignedInt(literal, from, from + digits, 16));
        } catch (IllegalArgumentException | IndexOutOfBoundsException e) {
            throw new TemplateError(
                    line, "escape in string \"" + literal + "\" needs " + digits + " hexadecimal digits");
        }
    }
}
