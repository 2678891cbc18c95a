package io.lora4j.formats;

import java.math.BigDecimal;
import java.math.MathContext;
import java.util.Iterator;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Writes JSON byte for byte as Python's {@code json.dumps} does, because files and prompts are compared with what Python
 * tools wrote. Thread-safe: an immutable record of options.
 *
 * @param ensureAscii whether characters beyond ASCII are written as escapes
 * @param indent what one level of nesting is indented by; null writes everything on one line
 * @param itemSeparator between items
 * @param keySeparator between key and value
 * @param sortKeys whether the keys of objects are sorted
 */
public record PythonJson(
        boolean ensureAscii, @Nullable String indent, String itemSeparator, String keySeparator, boolean sortKeys) {

    private static final int MAX_DEPTH = 200;

    /** As {@code json.dumps(x, indent=2, sort_keys=True)}, the form of PEFT's and transformers' config files. */
    public static PythonJson pretty() {
        return new PythonJson(true, "  ", ",", ": ", true);
    }

    /** As {@code json.dumps(x, ensure_ascii=False, separators=(",", ":"))}. */
    public static PythonJson compact() {
        return new PythonJson(false, null, ",", ":", false);
    }

    /**
     * Writes a value: null, Boolean, Number, CharSequence, Map or Iterable of these.
     *
     * @throws IllegalArgumentException for any other type, or nesting without end
     */
    public String write(@Nullable Object value) {
        StringBuilder out = new StringBuilder();
        write(out, value, 0);
        return out.toString();
    }

    private void write(StringBuilder out, @Nullable Object value, int depth) {
        if (depth > MAX_DEPTH) {
            throw new IllegalArgumentException("JSON nested deeper than " + MAX_DEPTH);
        }
        switch (value) {
            case null -> out.append("null");
            case Boolean b -> out.append(b.booleanValue());
            case Double d -> out.append(number(d));
            case Float f -> out.append(number(f));
            case Number n -> out.append(n);
            case CharSequence text -> quote(out, text);
            case Map<?, ?> map -> writeMap(out, sortKeys ? new TreeMap<>(map) : map, depth);
            case Iterable<?> list -> writeList(out, list, depth);
            default ->
                throw new IllegalArgumentException("a " + value.getClass().getSimpleName() + " has no JSON form");
        }
    }

    private void writeMap(StringBuilder out, Map<?, ?> map, int depth) {
        out.append('{');
        String separator = "";
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            out.append(separator);
            newLine(out, depth + 1);
            quote(out, String.valueOf(entry.getKey()));
            out.append(keySeparator);
            write(out, entry.getValue(), depth + 1);
            separator = itemSeparator;
        }
        if (!map.isEmpty()) {
            newLine(out, depth);
        }
        out.append('}');
    }

    private void writeList(StringBuilder out, Iterable<?> list, int depth) {
        out.append('[');
        Iterator<?> items = list.iterator();
        boolean any = items.hasNext();
        while (items.hasNext()) {
            newLine(out, depth + 1);
            write(out, items.next(), depth + 1);
            if (items.hasNext()) {
                out.append(itemSeparator);
            }
        }
        if (any) {
            newLine(out, depth);
        }
        out.append(']');
    }

    private void newLine(StringBuilder out, int depth) {
        if (indent != null) {
            out.append('\n').repeat(indent, depth);
        }
    }

    private void quote(StringBuilder out, CharSequence text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\f' -> out.append("\\f");
                case '\b' -> out.append("\\b");
                default -> {
                    if (c < ' ' || (ensureAscii && c > '~')) {
                        out.append("\\u");
                        String hex = Integer.toHexString(c);
                        out.repeat('0', 4 - hex.length()).append(hex);
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }

    /** Returns a number as Python's {@code repr(float)} writes it: the shortest text that reads back as the same value. */
    public static String number(double value) {
        if (Double.isNaN(value)) {
            return "NaN";
        }
        if (Double.isInfinite(value)) {
            return value > 0 ? "Infinity" : "-Infinity";
        }
        if (value == 0) {
            return 1 / value < 0 ? "-0.0" : "0.0";
        }
        BigDecimal decimal = new BigDecimal(Double.toString(value)).stripTrailingZeros();
        // Java writes at least two digits where Python is content with one (4.9E-324).
        BigDecimal oneDigit = decimal.round(new MathContext(1));
        decimal = oneDigit.doubleValue() == value ? oneDigit : decimal;
        String digits = decimal.unscaledValue().abs().toString();
        int exponent = digits.length() - 1 - decimal.scale();
        String sign = value < 0 ? "-" : "";
        if (exponent < -4 || exponent >= 16) {
            String fraction = digits.length() > 1 ? "." + digits.substring(1) : "";
            String power = Math.abs(exponent) < 10 ? "0" + Math.abs(exponent) : String.valueOf(Math.abs(exponent));
            return sign + digits.charAt(0) + fraction + "e" + (exponent < 0 ? "-" : "+") + power;
        }
        String plain = decimal.abs().toPlainString();
        return sign + (plain.contains(".") ? plain : plain + ".0");
    }
}
