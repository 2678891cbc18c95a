package io.lora4j.train.data;

/** How rows are put into sequences, as TRL's strategies of these names do it. */
public enum PackingStrategy {
    /** Whole rows, best fit decreasing; long ones are dealt with by {@code on_long} first. */
    BFD,
    /** Best fit decreasing, of rows that were cut into pieces of at most {@code max_length}; no token is lost. */
    BFD_SPLIT,
    /** All rows one after the other, cut every {@code max_length} tokens: a sequence sees the row before. */
    WRAPPED
}
