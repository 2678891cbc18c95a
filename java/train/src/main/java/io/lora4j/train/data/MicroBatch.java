package io.lora4j.train.data;

import io.lora4j.train.model.Batch;
import java.util.ArrayList;
import java.util.List;

/**
 * Rows that go through the model together, and where they come from.
 *
 * @param batch the rows' tokens, one row after the other
 * @param lines the line of the data file that each row comes from
 */
public record MicroBatch(Batch batch, List<Integer> lines) {

    /** Copies the list. */
    public MicroBatch {
        lines = List.copyOf(lines);
    }

    /**
     * Puts rows together.
     *
     * @param rows the rows, in order
     * @param firstToken index of each row's first token in the epoch's row order, below 2³²
     */
    static MicroBatch of(List<Row> rows, long[] firstToken) {
        List<Batch.Sequence> sequences = new ArrayList<>();
        for (int r = 0; r < rows.size(); r++) {
            Row row = rows.get(r);
            sequences.add(new Batch.Sequence(row.ids(), row.labels(), firstToken[r]));
        }
        return new MicroBatch(Batch.of(sequences), rows.stream().map(Row::line).toList());
    }
}
