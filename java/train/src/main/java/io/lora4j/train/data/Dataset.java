package io.lora4j.train.data;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.Tokenizer;
import io.lora4j.train.model.Batch;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The rows of a file that can be learned from, and what became of the others. Immutable.
 *
 * @param file the file
 * @param rows the rows, in the order of the file
 * @param kind what the rows are, such as {@code messages}
 * @param rowsRead how many rows the file has
 * @param rowsCut how many of them were longer than {@code max_length} and lost their end
 * @param rowsTooLong how many were left out because they were longer
 * @param rowsSplit how many were longer and were cut into pieces, which are rows now
 * @param rowsDropped how many rows, or pieces, had nothing to learn, maybe because it was cut off
 */
public record Dataset(
        Path file,
        List<Row> rows,
        String kind,
        int rowsRead,
        int rowsCut,
        int rowsTooLong,
        int rowsSplit,
        int rowsDropped) {

    private static final int MAX_RANGES = 10;
    private static final int[] NICE = {1, 2, 5};

    /** Copies the list. */
    public Dataset {
        rows = List.copyOf(rows);
    }

    /**
     * Reads a file.
     *
     * @param encoder makes the rows
     * @param options how they are read and how long they may be
     * @param model the model that is to learn from them
     * @throws FormatException if the file is missing, empty or invalid, nothing in it can be learned, a token is not in the
     *     model's vocabulary, or a row is longer than it may be or than the model's context
     */
    public static Dataset load(Path file, RowEncoder encoder, RowOptions options, ModelConfig model)
            throws IOException {
        List<Example> examples = JsonlReader.read(file, options.textField());
        List<Row> whole = new ArrayList<>();
        for (Example example : examples) {
            whole.add(encoder.encode(file, example));
        }
        RowFitter fitter = new RowFitter(file, options);
        List<Row> fitted = fitter.fit(whole);
        List<Row> rows = new ArrayList<>();
        for (Row row : fitted) {
            check(file, row, model);
            if (row.targetCount() > 0) {
                rows.add(row);
            }
        }
        if (rows.isEmpty()) {
            throw new FormatException(file + ": none of its " + examples.size() + " rows has a token to learn ("
                    + fitter.cut() + " were cut to max_length " + options.maxLength()
                    + (fitter.tooLong() > 0 ? ", " + fitter.tooLong() + " longer ones left out" : "")
                    + "): raise max_length, or check that the answers are not empty"
                    + " and that the roles are spelled as the chat template spells them");
        }
        return new Dataset(
                file,
                rows,
                examples.getFirst().kind(),
                examples.size(),
                fitter.cut(),
                fitter.tooLong(),
                fitter.split(),
                fitted.size() - rows.size());
    }

    private static void check(Path file, Row row, ModelConfig model) throws FormatException {
        for (int id : row.ids()) {
            if (id >= model.vocabSize()) {
                throw new FormatException(
                        file + ":" + row.line() + ": has the token id " + id + ", but the model's vocabulary has "
                                + model.vocabSize() + " entries; the tokenizer is of another model");
            }
        }
        if (row.length() > model.maxPositionEmbeddings()) {
            throw new FormatException(
                    file + ":" + row.line() + ": has " + row.length() + " tokens, but the model's context is "
                            + model.maxPositionEmbeddings()
                            + " (max_position_embeddings); set max_length to at most that, or shorten"
                            + " the row");
        }
    }

    /** Returns the number of tokens of all rows. */
    public long tokens() {
        return rows.stream().mapToLong(Row::length).sum();
    }

    /** Returns the number of tokens that count in the loss. */
    public long targetTokens() {
        return rows.stream().mapToLong(Row::targetCount).sum();
    }

    /** Returns the number of tokens of the longest row. */
    public int longest() {
        return rows.stream().mapToInt(Row::length).max().orElse(0);
    }

    /** Returns the rows in the order of the file, in batches of at most {@code batchSize}: for an evaluation. */
    public List<Batch> batches(int batchSize) {
        List<Batch> batches = new ArrayList<>();
        for (int from = 0; from < rows.size(); from += batchSize) {
            List<Row> part = rows.subList(from, Math.min(from + batchSize, rows.size()));
            batches.add(MicroBatch.of(part, new long[part.size()]).batch());
        }
        return batches;
    }

    /**
     * Rows of about the same length.
     *
     * @param from the least number of tokens
     * @param to the largest number of tokens
     * @param rows how many rows there are
     */
    public record Lengths(int from, int to, int rows) {}

    /** Returns how many rows have how many tokens, in at most ten ranges of one width: 1, 2 or 5 times a power of ten. */
    public List<Lengths> histogram() {
        int longest = longest();
        int width = 1;
        for (int tens = 1; Math.ceilDiv(longest, width) > MAX_RANGES; tens *= 10) {
            for (int nice : NICE) {
                width = nice * tens;
                if (Math.ceilDiv(longest, width) <= MAX_RANGES) {
                    break;
                }
            }
        }
        int[] counts = new int[Math.ceilDiv(longest, width)];
        for (Row row : rows) {
            counts[(row.length() - 1) / width]++;
        }
        List<Lengths> ranges = new ArrayList<>();
        for (int i = 0; i < counts.length; i++) {
            ranges.add(new Lengths(i * width + 1, (i + 1) * width, counts[i]));
        }
        return ranges;
    }

    /** Returns a row as the model gets it. */
    public static List<Piece> preview(Row row, Tokenizer tokenizer) {
        List<Piece> pieces = new ArrayList<>();
        int[] ids = row.ids();
        int from = 0;
        for (int t = 1; t <= ids.length; t++) {
            if (t == ids.length || row.isTarget(t) != row.isTarget(from)) {
                String text = tokenizer.decode(Arrays.copyOfRange(ids, from, t), false);
                pieces.add(new Piece(text, t - from, row.isTarget(from)));
                from = t;
            }
        }
        return pieces;
    }

    /**
     * A part of a row.
     *
     * @param text its tokens decoded, special tokens included
     * @param tokens how many tokens
     * @param learned whether they are learned
     */
    public record Piece(String text, int tokens, boolean learned) {}
}
