package io.lora4j.train.data;

import io.lora4j.train.TrainException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Which rows make up which micro-batch of which step. It follows from the rows, the seed and the options alone, so a run that
 * goes on at step s needs nothing but s. Immutable.
 *
 * <p>In every epoch the rows are taken in {@link RowOrder}; with packing they are put into sequences first
 * (best fit decreasing). {@code batchSize} sequences make a micro-batch, {@code accumulation} micro-batches a step; the last
 * of an epoch may be smaller. Inside a micro-batch the rows keep the epoch's order: a step that has the same rows with and
 * without packing has the same bits.
 */
public final class BatchPlan {
    private static final long MAX_TOKENS = 1L << 32;

    private final List<Row> rows;
    private final long seed;
    private final int batchSize;
    private final int accumulation;
    private final int packLength;
    private final int microBatches;
    private final int maxTokens;
    private final int maxRows;

    /**
     * Makes a plan.
     *
     * @param rows the rows
     * @param seed the run's seed
     * @param batchSize sequences in a micro-batch
     * @param accumulation micro-batches in a step
     * @param packLength length of a packed sequence; 0 leaves every row a sequence of its own
     * @throws TrainException if there are more than 2³² tokens
     */
    public BatchPlan(List<Row> rows, long seed, int batchSize, int accumulation, int packLength) {
        if (rows.isEmpty() || batchSize < 1 || accumulation < 1) {
            throw new IllegalArgumentException(
                    rows.size() + " rows, batch size " + batchSize + ", accumulation " + accumulation);
        }
        long tokens = rows.stream().mapToLong(Row::length).sum();
        if (tokens > MAX_TOKENS) {
            throw new TrainException(
                    "the data has " + tokens + " tokens; dropout numbers at most 2^32 in an epoch: split the file");
        }
        this.rows = List.copyOf(rows);
        this.seed = seed;
        this.batchSize = batchSize;
        this.accumulation = accumulation;
        this.packLength = packLength;
        int[] lengths = rows.stream().mapToInt(Row::length).toArray();
        List<int[]> sequences = sequences(lengths);
        this.microBatches = Math.ceilDiv(sequences.size(), batchSize);
        this.maxTokens = largest(sequences.stream()
                .mapToInt(s -> Arrays.stream(s).map(row -> lengths[row]).sum()));
        this.maxRows = largest(sequences.stream().mapToInt(s -> s.length));
    }

    /** Returns the number of optimizer steps in an epoch. */
    public int stepsPerEpoch() {
        return Math.ceilDiv(microBatches, accumulation);
    }

    /** Returns the passes over the data done after a step, as transformers counts them: in micro-batches. */
    public double epochAfter(int step) {
        int whole = Math.max(0, step - 1) / stepsPerEpoch();
        int done = Math.min((step - whole * stepsPerEpoch()) * accumulation, microBatches);
        return whole + (double) done / microBatches;
    }

    /** Returns the most tokens that a micro-batch of any epoch can have. */
    public int maxTokens() {
        return maxTokens;
    }

    /** Returns the most rows that a micro-batch of any epoch can have. */
    public int maxRows() {
        return maxRows;
    }

    /** Returns the steps of an epoch, 0 for the first. */
    public Epoch epoch(int epoch) {
        int[] order = RowOrder.of(rows.size(), seed, epoch);
        int[] lengths = new int[order.length];
        long[] firstToken = new long[order.length];
        long next = 0;
        for (int place = 0; place < order.length; place++) {
            lengths[place] = rows.get(order[place]).length();
            firstToken[place] = next;
            next += lengths[place];
        }
        return new Epoch(order, firstToken, sequences(lengths));
    }

    private List<int[]> sequences(int[] lengths) {
        return packLength == 0 ? Packing.apart(lengths.length) : Packing.pack(lengths, packLength);
    }

    /** Sums the largest sizes that can meet in one micro-batch. */
    private int largest(IntStream sizes) {
        long sum = sizes.boxed()
                .sorted(Comparator.reverseOrder())
                .limit(batchSize)
                .mapToLong(n -> n)
                .sum();
        return Math.toIntExact(sum);
    }

    /** The steps of one epoch. */
    public final class Epoch {
        private final int[] order;
        private final long[] firstToken;
        private final List<int[]> sequences;

        private Epoch(int[] order, long[] firstToken, List<int[]> sequences) {
            this.order = order;
            this.firstToken = firstToken;
            this.sequences = sequences;
        }

        /** Returns the micro-batches of a step, 0 for the epoch's first. */
        public List<MicroBatch> step(int step) {
            int first = step * accumulation;
            int last = Math.min(first + accumulation, microBatches);
            List<MicroBatch> batches = new ArrayList<>();
            for (int batch = first; batch < last; batch++) {
                batches.add(microBatch(batch));
            }
            return batches;
        }

        private MicroBatch microBatch(int index) {
            int from = index * batchSize;
            int to = Math.min(from + batchSize, sequences.size());
            int[] places = sequences.subList(from, to).stream()
                    .flatMapToInt(Arrays::stream)
                    .sorted()
                    .toArray();
            List<Row> members = Arrays.stream(places)
                    .mapToObj(place -> rows.get(order[place]))
                    .toList();
            return MicroBatch.of(
                    members,
                    Arrays.stream(places).mapToLong(place -> firstToken[place]).toArray());
        }
    }
}
