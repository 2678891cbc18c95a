package io.lora4j.train.data;

import io.lora4j.formats.FormatException;
import io.lora4j.train.model.Batch;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/** Makes rows of at most {@code max_length} tokens, and counts what became of longer ones. One thread at a time. */
final class RowFitter {
    private final Path file;
    private final RowOptions options;
    private int cut;
    private int tooLong;
    private int split;

    /** A fitter of one file's rows. */
    RowFitter(Path file, RowOptions options) {
        this.file = file;
        this.options = options;
    }

    /** Returns how many rows lost their end. */
    int cut() {
        return cut;
    }

    /** Returns how many rows were left out because they are too long. */
    int tooLong() {
        return tooLong;
    }

    /** Returns how many rows were cut into pieces that are all there. */
    int split() {
        return split;
    }

    /**
     * Fits the rows of a file.
     *
     * @param whole the rows as they are encoded, in the order of the file
     * @throws FormatException if one is too long and that is to be an error
     */
    List<Row> fit(List<Row> whole) throws FormatException {
        if (options.maxLength() == 0) {
            return whole;
        }
        if (options.packing() == PackingStrategy.WRAPPED) {
            return wrapped(whole);
        }
        List<Row> fitted = new ArrayList<>();
        for (Row row : whole) {
            if (row.length() <= options.maxLength()) {
                fitted.add(row);
            } else if (options.packing() == PackingStrategy.BFD_SPLIT) {
                split++;
                for (int from = 0; from < row.length(); from += options.maxLength()) {
                    fitted.add(row.slice(from, Math.min(from + options.maxLength(), row.length())));
                }
            } else {
                fitLong(row, fitted);
            }
        }
        return fitted;
    }

    private void fitLong(Row row, List<Row> fitted) throws FormatException {
        switch (options.onLong()) {
            case ERROR ->
                throw new FormatException(file + ":" + row.line() + ": has " + row.length() + " tokens, max_length is "
                        + options.maxLength()
                        + " and on_long is error; raise max_length, shorten the row, or set on_long to"
                        + " truncate or drop");
            case TRUNCATE -> {
                cut++;
                fitted.add(row.slice(0, options.maxLength()));
            }
            case DROP -> tooLong++;
        }
    }

    /** The tokens of all rows one after the other, in sequences of max_length tokens; the last may have fewer. */
    private List<Row> wrapped(List<Row> whole) {
        List<Row> sequences = new ArrayList<>();
        int[] ids = new int[options.maxLength()];
        BitSet mask = new BitSet();
        int length = 0;
        int line = 0;
        for (Row row : whole) {
            int[] tokens = row.ids();
            int[] labels =
                    row.labels(); // Inside a sequence a row's first token is learned too: it follows the row before.
            for (int t = 0; t < tokens.length; t++) {
                line = length == 0 ? row.line() : line;
                ids[length] = tokens[t];
                mask.set(length++, labels[t] != Batch.IGNORE);
                if (length == ids.length) {
                    sequences.add(new Row(ids.clone(), (BitSet) mask.clone(), line));
                    mask.clear();
                    length = 0;
                }
            }
        }
        if (length > 0) {
            sequences.add(new Row(Arrays.copyOf(ids, length), mask, line));
        }
        return sequences;
    }
}
