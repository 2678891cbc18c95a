package io.lora4j.train.data;

/**
 * How rows are read from a file and how long they may be. Immutable.
 *
 * @param textField {@code dataset_text_field}: the field of rows that are just text
 * @param maxLength the most tokens of a row; 0 for no limit
 * @param onLong what becomes of longer rows, where {@code packing} does not keep all their tokens
 * @param packing BFD_SPLIT cuts longer rows into pieces, WRAPPED joins all rows and cuts them anew; BFD does neither
 */
public record RowOptions(String textField, int maxLength, LongRows onLong, PackingStrategy packing) {
    /** The field of rows that are just text, as TRL has it. */
    public static final String TEXT = "text";

    /** Returns the options that cut rows at their end. */
    public static RowOptions truncate(int maxLength) {
        return new RowOptions(TEXT, maxLength, LongRows.TRUNCATE, PackingStrategy.BFD);
    }
}
