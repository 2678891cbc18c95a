package io.lora4j.formats;

import java.util.List;

/**
 * The tokens of a text and where each comes from. Immutable; arrays are copied on the way out.
 */
public final class Encoding {
    private final int[] ids;
    private final int[] starts;
    private final int[] ends;

    /** Takes ownership of three arrays of equal length. */
    Encoding(int[] ids, int[] starts, int[] ends) {
        this.ids = ids;
        this.starts = starts;
        this.ends = ends;
    }

    /** Returns the number of tokens. */
    public int size() {
        return ids.length;
    }

    /** Returns the token ids. */
    public int[] ids() {
        return ids.clone();
    }

    /**
     * Returns which part of the text, in UTF-16 units, token {@code index} stands for. Several tokens share the span of a
     * character that they make up together; a token that the text does not contain (an added BOS) has an empty span.
     */
    public Span span(int index) {
        return new Span(starts[index], ends[index]);
    }

    /**
     * Returns, for each token, whether it covers any part of the given spans. A token that reaches across a border, as when
     * a tokenizer joins the space before an answer with its first word, counts as inside.
     */
    public boolean[] covers(List<Span> spans) {
        boolean[] inside = new boolean[ids.length];
        for (int i = 0; i < ids.length; i++) {
            for (Span span : spans) {
                inside[i] |= starts[i] < span.end() && ends[i] > span.start();
            }
        }
        return inside;
    }
}
