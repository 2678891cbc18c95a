package io.lora4j.formats.template;

import java.util.ArrayList;
import java.util.List;

/** Python's operators. */
final class Operators {
    private static final int MAX_REPEAT = 1 << 20;

    private Operators() {}

    static boolean compare(String operator, Object left, Object right) {
        return switch (operator) {
            case "==" -> Values.equal(left, right);
            case "!=" -> !Values.equal(left, right);
            case "<" -> Values.compare(left, right) < 0;
            case "<=" -> Values.compare(left, right) <= 0;
            case ">" -> Values.compare(left, right) > 0;
            case ">=" -> Values.compare(left, right) >= 0;
            case "in" -> Values.contains(right, left);
            case "not in" -> !Values.contains(right, left);
            default -> throw new IllegalStateException(operator);
        };
    }

    static Object binary(String operator, Object left, Object right) {
        if (operator.equals("~")) {
            return new Text.Builder()
                    .append(Values.text(left))
                    .append(Values.text(right))
                    .build();
        }
        if (operator.equals("+") && left instanceof Text a && right instanceof Text b) {
            return a.concat(b);
        }
        if (operator.equals("+")
                && left instanceof List<?> a
                && right instanceof List<?> b
                && left instanceof Tuple == right instanceof Tuple) {
            List<Object> joined = new ArrayList<>(a);
            joined.addAll(b);
            return left instanceof Tuple ? new Tuple(joined) : joined;
        }
        if (operator.equals("*") && (left instanceof Text || right instanceof Text)) {
            return left instanceof Text text ? repeat(text, right) : repeat((Text) right, left);
        }
        if (operator.equals("%") && left instanceof Text) {
            throw new TemplateError("formatting strings with '%' is not supported");
        }
        if (!Values.isNumber(left) || !Values.isNumber(right)) {
            throw Values.error(
                    "operator '" + operator + "' does not take " + Values.described(left) + " and "
                            + Values.described(right),
                    left,
                    right);
        }
        boolean floating = left instanceof Double || right instanceof Double || operator.equals("/");
        return floating
                ? (Object) doubles(operator, Values.toDouble(left), Values.toDouble(right))
                : longs(operator, Values.toLong(left), Values.toLong(right));
    }

    private static Text repeat(Text text, Object times) {
        long count = Values.toLong(times);
        if (count * text.length() > MAX_REPEAT) {
            throw new TemplateError("a string repeated " + count + " times is too long");
        }
        Text.Builder out = new Text.Builder();
        for (long i = 0; i < count; i++) {
            out.append(text);
        }
        return out.build();
    }

    private static double doubles(String operator, double a, double b) {
        if (b == 0 && "/%//".contains(operator)) {
            throw new ArithmeticException("division by zero");
        }
        return switch (operator) {
            case "+" -> a + b;
            case "-" -> a - b;
            case "*" -> a * b;
            case "/" -> a / b;
            case "//" -> Math.floor(a / b);
            case "%" -> a - Math.floor(a / b) * b;
            case "**" -> Math.pow(a, b);
            default -> throw new IllegalStateException(operator);
        };
    }

    private static Object longs(String operator, long a, long b) {
        return switch (operator) {
            case "+" -> Math.addExact(a, b);
            case "-" -> Math.subtractExact(a, b);
            case "*" -> Math.multiplyExact(a, b);
            case "//" -> Math.floorDiv(a, b);
            case "%" -> Math.floorMod(a, b);
            case "**" -> power(a, b);
            default -> throw new IllegalStateException(operator);
        };
    }

    private static Object power(long base, long exponent) {
        if (exponent < 0) {
            return Math.pow((double) base, (double) exponent);
        }
        if (exponent > 64) {
            throw new TemplateError("'**' with an exponent over 64 is not supported");
        }
        long result = 1;
        for (long i = 0; i < exponent; i++) {
            result = Math.multiplyExact(result, base);
        }
        return result;
    }

    /** As {@code items[start:stop:step]}; {@code None} is an open bound. */
    static List<Object> slice(List<Object> items, Object start, Object stop, long step) {
        if (step == 0) {
            throw new TemplateError("slice step cannot be zero");
        }
        int size = items.size();
        long from = bound(start, size, step > 0 ? 0 : size - 1, step);
        long to = bound(stop, size, step > 0 ? size : -1, step);
        List<Object> picked = new ArrayList<>();
        for (long i = from; step > 0 ? i < to : i > to; i += step) {
            picked.add(items.get((int) i));
        }
        return picked;
    }

    private static long bound(Object bound, int size, long open, long step) {
        if (bound == None.NONE) {
            return open;
        }
        long value = Values.toLong(bound);
        value = value < 0 ? value + size : value;
        return step > 0 ? Math.clamp(value, 0, size) : Math.clamp(value, -1, size - 1);
    }
}
