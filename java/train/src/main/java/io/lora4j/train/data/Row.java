package io.lora4j.train.data;

import io.lora4j.train.model.Batch;
import java.util.Arrays;
import java.util.BitSet;

/**
 * One training row: token ids and which of them are learned. Immutable.
 *
 * <p>Token t is predicted from tokens 0 to t − 1, so token 0 never counts in the loss, whatever the mask says.
 */
public final class Row {
    private final int[] ids;
    private final BitSet mask;
    private final int line;

    /**
     * Creates a row.
     *
     * @param ids token ids; not copied, not to be changed any more
     * @param mask bit t is set if token t is to be learned; not copied, not to be changed any more
     * @param line the line of the file it comes from, 1 for the first
     */
    public Row(int[] ids, BitSet mask, int line) {
        if (mask.length() > ids.length) {
            throw new IllegalArgumentException("a mask of " + mask.length() + " tokens for a row of " + ids.length);
        }
        this.ids = ids;
        this.mask = mask;
        this.line = line;
    }

    /** Returns the number of tokens. */
    public int length() {
        return ids.length;
    }

    /** Returns the token ids; a copy. */
    public int[] ids() {
        return ids.clone();
    }

    /** Returns {@code labels} as Hugging Face lays them out: the token's own id where it is learned, otherwise −100. */
    public int[] labels() {
        int[] labels = new int[ids.length];
        for (int t = 0; t < ids.length; t++) {
            labels[t] = mask.get(t) ? ids[t] : Batch.IGNORE;
        }
        return labels;
    }

    /** Returns whether a token counts in the loss. */
    public boolean isTarget(int t) {
        return t > 0 && mask.get(t);
    }

    /** Returns the number of tokens that count in the loss. */
    public int targetCount() {
        return mask.cardinality() - (mask.get(0) ? 1 : 0);
    }

    /** Returns the line of the file it comes from. */
    public int line() {
        return line;
    }

    /** Returns the tokens from one place to before another as a row of their own. */
    Row slice(int from, int to) {
        return new Row(Arrays.copyOfRange(ids, from, to), mask.get(from, to), line);
    }
}
