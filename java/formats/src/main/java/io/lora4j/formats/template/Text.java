package io.lora4j.formats.template;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A string whose characters carry marks: from which message's content they come, which message's turn they were printed in,
 * and whether inside a generation block. The marks survive cutting, joining and replacing, so that the rendered text still
 * knows them. Immutable; equality is that of the characters.
 *
 * <p>A text is markup once it went through the filter {@code safe}: what is then added to it is escaped as for HTML, as in
 * Jinja, where a few templates hit upon it.
 */
final class Text implements CharSequence, Comparable<Text> {
    static final Text EMPTY = new Text("", null, false);

    /** Largest message index that the marks can hold. */
    static final int MAX_MESSAGES = (1 << 14) - 2;

    private static final int FIELD = (1 << 14) - 1;
    private static final int OWNER_SHIFT = 14;
    private static final int GENERATION = 1 << 28;

    private final String string;
    private final int @Nullable [] marks;
    private final boolean markup;

    private Text(String string, int @Nullable [] marks, boolean markup) {
        this.string = string;
        this.marks = marks;
        this.markup = markup;
    }

    static Text of(String string) {
        return string.isEmpty() ? EMPTY : new Text(string, null, false);
    }

    /** Returns {@code string} marked as content of a message. */
    static Text content(String string, int message) {
        int[] marks = new int[string.length()];
        Arrays.fill(marks, message + 1);
        return new Text(string, marks, false);
    }

    private int mark(int index) {
        return marks == null ? 0 : marks[index];
    }

    /** Returns the message whose content the character is, or -1. */
    int origin(int index) {
        return (mark(index) & FIELD) - 1;
    }

    /** Returns the message in whose turn the character was printed, or -1. */
    int owner(int index) {
        return (mark(index) >> OWNER_SHIFT & FIELD) - 1;
    }

    /** Returns whether the character was printed inside a generation block. */
    boolean generated(int index) {
        return (mark(index) & GENERATION) != 0;
    }

    /** Returns a copy in which characters that have no owner yet belong to {@code message}. */
    Text ownedBy(int message) {
        int[] owned = copyOfMarks();
        for (int i = 0; i < owned.length; i++) {
            if ((owned[i] >> OWNER_SHIFT & FIELD) == 0) {
                owned[i] |= (message + 1) << OWNER_SHIFT;
            }
        }
        return new Text(string, owned, false);
    }

    /** Returns a copy marked as printed inside a generation block. */
    Text asGenerated() {
        int[] generated = copyOfMarks();
        for (int i = 0; i < generated.length; i++) {
            generated[i] |= GENERATION;
        }
        return new Text(string, generated, false);
    }

    private int[] copyOfMarks() {
        return marks == null ? new int[string.length()] : marks.clone();
    }

    Text substring(int start, int end) {
        if (start == 0 && end == string.length()) {
            return this;
        }
        return new Text(
                string.substring(start, end), marks == null ? null : Arrays.copyOfRange(marks, start, end), markup);
    }

    boolean isMarkup() {
        return markup;
    }

    /** Returns this as markup. */
    Text asMarkup() {
        return new Text(string, marks, true);
    }

    /** As Python's {@code +}; of a text and markup, the text is escaped and the outcome is markup. */
    Text concat(Text other) {
        if (markup || other.markup) {
            Text joined =
                    new Builder().append(escaped()).append(other.escaped()).build();
            return joined.asMarkup();
        }
        return string.isEmpty()
                ? other
                : other.string.isEmpty()
                        ? this
                        : new Builder().append(this).append(other).build();
    }

    private Text escaped() {
        if (markup) {
            return this;
        }
        Builder out = new Builder();
        for (int i = 0; i < string.length(); i++) {
            String c = string.substring(i, i + 1);
            out.appendAs(
                    switch (c) {
                        case "&" -> "&amp;";
                        case "<" -> "&lt;";
                        case ">" -> "&gt;";
                        case "'" -> "&#39;";
                        case "\"" -> "&#34;";
                        default -> c;
                    },
                    this,
                    i);
        }
        return out.build();
    }

    /** Returns the number of code points, Python's {@code len}. */
    int codePointCount() {
        return string.codePointCount(0, string.length());
    }

    @Override
    public int length() {
        return string.length();
    }

    @Override
    public char charAt(int index) {
        return string.charAt(index);
    }

    @Override
    public CharSequence subSequence(int start, int end) {
        return substring(start, end);
    }

    @Override
    public String toString() {
        return string;
    }

    @Override
    public int compareTo(Text other) {
        return string.compareTo(other.string);
    }

    @Override
    public boolean equals(@Nullable Object other) {
        return other instanceof Text text && text.string.equals(string);
    }

    @Override
    public int hashCode() {
        return string.hashCode();
    }

    /** Joins texts. */
    static final class Builder {
        private final StringBuilder string = new StringBuilder();
        private int @Nullable [] marks;

        Builder append(Text text) {
            if (text.marks != null) {
                int[] to = reserve(text.length());
                System.arraycopy(text.marks, 0, to, string.length(), text.length());
            }
            string.append(text.string);
            return this;
        }

        Builder append(String plain) {
            string.append(plain);
            return this;
        }

        /** Appends plain characters with the marks that {@code from} has at {@code index}. */
        Builder appendAs(String plain, Text from, int index) {
            if (from.mark(index) != 0) {
                int[] to = reserve(plain.length());
                Arrays.fill(to, string.length(), string.length() + plain.length(), from.mark(index));
            }
            string.append(plain);
            return this;
        }

        private int[] reserve(int more) {
            int needed = string.length() + more;
            if (marks == null) {
                marks = new int[Math.max(needed, 64)];
            } else if (marks.length < needed) {
                marks = Arrays.copyOf(marks, Math.max(needed, 2 * marks.length));
            }
            return marks;
        }

        int length() {
            return string.length();
        }

        Text build() {
            return new Text(string.toString(), marks == null ? null : Arrays.copyOf(marks, string.length()), false);
        }
    }
}
