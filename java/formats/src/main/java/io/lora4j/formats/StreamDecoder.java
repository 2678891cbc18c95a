package io.lora4j.formats;

import java.util.Arrays;

/**
 * Turns tokens into text as they are generated. A character that several tokens make up is held back until it is whole, so
 * that no half of it (U+FFFD, or a lone surrogate) is ever given out; bytes that never become a character are given out as
 * U+FFFD once a later token or {@link #finish} shows it. The pieces together are the decoded text.
 *
 * <p>Not thread-safe: one decoder per generated sequence.
 */
public final class StreamDecoder {
    private static final char REPLACEMENT = '\uFFFD';

    private final Tokenizer tokenizer;
    private final boolean skipSpecial;
    /** Tokens whose text may still change, after those kept as context. */
    private int[] window = new int[16];

    private int size;
    /** Length of the window's beginning that is context only: its text was given out before. */
    private int context;
    /** Text of this window that was given out. */
    private int given;

    /**
     * Creates a decoder at the start of a sequence.
     *
     * @param skipSpecial whether special tokens give no text
     */
    public StreamDecoder(Tokenizer tokenizer, boolean skipSpecial) {
        this.tokenizer = tokenizer;
        this.skipSpecial = skipSpecial;
    }

    /** Takes the next token and returns the text that is certain now, maybe none. */
    public String add(int id) {
        if (size == window.length) {
            window = Arrays.copyOf(window, 2 * size);
        }
        window[size++] = id;
        String text = decode(size);
        int whole = text.length();
        while (whole > 0 && text.charAt(whole - 1) == REPLACEMENT) {
            whole--;
        }
        String piece = whole > given ? text.substring(given, whole) : "";
        given = Math.max(given, whole);
        if (whole == text.length() && !piece.isEmpty()) {
            shrink();
        }
        return piece;
    }

    /** Returns what was held back. The decoder then begins a new sequence. */
    public String finish() {
        String text = decode(size);
        String rest = text.length() > given ? text.substring(given) : "";
        size = 0;
        context = 0;
        given = 0;
        return rest;
    }

    /**
     * Keeps only the tokens since the last time that everything was given out: decoders look at the token before (a space at
     * the start of a text is dropped, one inside is kept), never further back.
     */
    private void shrink() {
        System.arraycopy(window, context, window, 0, size - context);
        size -= context;
        context = size;
        given = decode(size).length();
    }

    private String decode(int count) {
        return tokenizer.decode(Arrays.copyOf(window, count), skipSpecial);
    }
}
