package io.lora4j.train.model;

import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Token sequences of any lengths, packed one after another without padding. M is the number of tokens of all sequences.
 *
 * <p>Sequences do not see each other: each has its own positions from 0, and attention stays inside it. What the model computes
 * for a token has the same bits whatever else is in the batch.
 *
 * <p>The arrays are shared with the caller, who does not change them afterwards. Otherwise immutable and thread-safe.
 *
 * @param ids token ids, [M]
 * @param targets the id that each token is to predict, or {@link #IGNORE}, [M]
 * @param positions place of each token in its sequence, [M]
 * @param tokenIndex place of each token in the row order of its epoch, an unsigned number that dropout masks depend on, [M]
 * @param offsets where each sequence begins, and M at the end, ascending, [sequences + 1]
 * @param rowWeight factor of each token's loss and gradient, [M]; null for 1
 */
public record Batch(
        int[] ids, int[] targets, int[] positions, int[] tokenIndex, int[] offsets, float @Nullable [] rowWeight) {

    /** Marks a token that predicts nothing that counts: the loss leaves it out. The value of PyTorch's {@code ignore_index}. */
    public static final int IGNORE = -100;

    /**
     * One sequence of a batch.
     *
     * @param ids token ids, at least one
     * @param labels as many: the token's own id where it is a target of the token before it, or {@link #IGNORE}, as Hugging Face
     *     lays out {@code labels}; the first one is never a target
     * @param firstTokenIndex the first token's place in the row order of its epoch; later tokens follow it one by one
     */
    public record Sequence(int[] ids, int[] labels, long firstTokenIndex) {

        /** Checks the lengths. */
        public Sequence {
            if (ids.length == 0 || ids.length != labels.length) {
                throw new IllegalArgumentException(
                        "a sequence needs at least one token and as many labels as tokens, but has " + ids.length
                                + " tokens and " + labels.length + " labels");
            }
        }
    }

    /** Checks that the arrays fit together. */
    public Batch {
        int tokens = ids.length;
        boolean fit = targets.length == tokens && positions.length == tokens && tokenIndex.length == tokens;
        if (!fit || rowWeight != null && rowWeight.length != tokens) {
            throw new IllegalArgumentException(
                    "ids, targets, positions, tokenIndex and rowWeight of a batch differ in length: "
                            + tokens + ", " + targets.length + ", " + positions.length + ", " + tokenIndex.length + ", "
                            + (rowWeight == null ? "none" : rowWeight.length));
        }
        if (offsets.length < 2 || offsets[0] != 0 || offsets[offsets.length - 1] != tokens) {
            throw new IllegalArgumentException("the offsets of a batch must lead from 0 to its " + tokens + " tokens");
        }
        for (int b = 1; b < offsets.length; b++) {
            if (offsets[b] <= offsets[b - 1]) {
                throw new IllegalArgumentException("sequence " + (b - 1) + " of a batch is empty: it begins at "
                        + offsets[b - 1] + " and ends at " + offsets[b]);
            }
        }
    }

    /** Packs sequences. Labels move one place: a token's target is the label of the token after it. */
    public static Batch of(List<Sequence> sequences) {
        int tokens = sequences.stream().mapToInt(s -> s.ids().length).sum();
        int[] ids = new int[tokens];
        int[] targets = new int[tokens];
        int[] positions = new int[tokens];
        int[] tokenIndex = new int[tokens];
        int[] offsets = new int[sequences.size() + 1];
        int row = 0;
        for (int b = 0; b < sequences.size(); b++) {
            Sequence s = sequences.get(b);
            int length = s.ids().length;
            for (int i = 0; i < length; i++, row++) {
                ids[row] = s.ids()[i];
                targets[row] = i + 1 < length ? s.labels()[i + 1] : IGNORE;
                positions[row] = i;
                tokenIndex[row] = (int) (s.firstTokenIndex() + i);
            }
            offsets[b + 1] = row;
        }
        return new Batch(ids, targets, positions, tokenIndex, offsets, null);
    }

    /** Packs sequences that nothing is predicted for: to read logits from. */
    public static Batch ofIds(List<int[]> sequences) {
        return of(sequences.stream()
                .map(ids -> {
                    int[] labels = new int[ids.length];
                    Arrays.fill(labels, IGNORE);
                    return new Sequence(ids, labels, 0);
                })
                .toList());
    }

    /** Returns M, the number of tokens. */
    public int tokens() {
        return ids.length;
    }

    /** Returns the number of sequences. */
    public int sequences() {
        return offsets.length - 1;
    }

    /** Returns the number of tokens of the longest sequence. */
    public int maxLength() {
        int max = 0;
        for (int b = 0; b < sequences(); b++) {
            max = Math.max(max, offsets[b + 1] - offsets[b]);
        }
        return max;
    }

    /** Returns the number of tokens that have a target. */
    public int targetTokens() {
        int count = 0;
        for (int target : targets) {
            count += target != IGNORE ? 1 : 0;
        }
        return count;
    }

    /** Names a token for a message. */
    String describe(int row) {
        int b = 0;
        while (offsets[b + 1] <= row) {
            b++;
        }
        return "token " + (row - offsets[b]) + " of sequence " + b + " of the batch";
    }

    /** Returns the row of the last token of each sequence. */
    public int[] lastRows() {
        int[] rows = new int[sequences()];
        for (int b = 0; b < rows.length; b++) {
            rows[b] = offsets[b + 1] - 1;
        }
        return rows;
    }
}
