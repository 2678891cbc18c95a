package io.lora4j.formats;

/**
 * A range of a text in UTF-16 units, as {@link String#substring(int, int)} takes them.
 *
 * @param start index of the first unit
 * @param end index after the last unit; not before {@code start}
 */
public record Span(int start, int end) {
    /** Checks the order of the bounds. */
    public Span {
        if (start < 0 || end < start) {
            throw new IllegalArgumentException("span [" + start + "," + end + ") is no range");
        }
    }

    /** Returns the part of {@code text} that this span covers. */
    public String of(String text) {
        return text.substring(start, end);
    }
}
