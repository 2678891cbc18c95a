package io.lora4j.train.data;

/** What becomes of rows that are longer than {@code max_length}. */
public enum LongRows {
    /** The run stops and names the row. */
    ERROR,
    /** Their end is cut off. */
    TRUNCATE,
    /** They are left out. */
    DROP
}
