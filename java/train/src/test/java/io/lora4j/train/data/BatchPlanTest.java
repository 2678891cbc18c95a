package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.train.model.Batch;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.SplittableRandom;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class BatchPlanTest {
    /** Checks 200 random cases; a failure names its seed. */
    private static void forAll(Consumer<SplittableRandom> check) {
        for (int seed = 0; seed < 200; seed++) {
            try {
                check.accept(new SplittableRandom(seed));
            } catch (RuntimeException | AssertionError e) {
                throw new AssertionError("seed " + seed + ": " + e, e);
            }
        }
    }

    /** 1 to {@code most} lengths from {@code least} to {@code longest}. */
    private static List<Integer> lengths(SplittableRandom random, int most, int least, int longest) {
        return random.ints(random.nextInt(1, most + 1), least, longest + 1)
                .boxed()
                .toList();
    }

    /** Rows that can be told apart: row r has the ids 1000 r, 1000 r + 1, …, and every token is learned. */
    static List<Row> rows(List<Integer> lengths) {
        List<Row> rows = new ArrayList<>();
        for (int r = 0; r < lengths.size(); r++) {
            int first = 1000 * r;
            BitSet mask = new BitSet();
            mask.set(0, lengths.get(r));
            rows.add(new Row(
                    IntStream.range(0, lengths.get(r)).map(t -> first + t).toArray(), mask, r + 1));
        }
        return rows;
    }

    @Test
    void packingKeepsEveryRowAndTheBudget() {
        forAll(random -> {
            List<Integer> lengths = lengths(random, 80, 1, 50);
            int budget = random.nextInt(50, 121);
            int[] array = lengths.stream().mapToInt(Integer::intValue).toArray();
            List<int[]> packed = Packing.pack(array, budget);
            int[] places = packed.stream().flatMapToInt(Arrays::stream).sorted().toArray();
            assertThat(places).isEqualTo(IntStream.range(0, array.length).toArray());
            int total = Arrays.stream(array).sum();
            for (int[] sequence : packed) {
                assertThat(sequence).isSorted();
                assertThat(Arrays.stream(sequence).map(p -> array[p]).sum()).isLessThanOrEqualTo(budget);
            }
            // Best fit decreasing leaves at most one sequence that is not more than half full.
            assertThat(packed.size()).isLessThanOrEqualTo(1 + 2 * total / budget);
            List<Integer> shuffled = new ArrayList<>(lengths);
            Collections.shuffle(shuffled, new Random(1));
            assertThat(Packing.pack(
                            shuffled.stream().mapToInt(Integer::intValue).toArray(), budget))
                    .hasSameSizeAs(packed);
        });
    }

    @Test
    void everyTokenComesOnceInEveryEpochWithItsIndex() {
        forAll(random -> {
            List<Row> rows = rows(lengths(random, 40, 2, 30));
            int batchSize = random.nextInt(1, 6);
            int accumulation = random.nextInt(1, 5);
            int packedLength = random.nextBoolean() ? 64 : 0;
            long seed = random.nextLong();
            BatchPlan plan = new BatchPlan(rows, seed, batchSize, accumulation, packedLength);
            for (int epoch = 0; epoch < 2; epoch++) {
                List<Integer> expected = Arrays.stream(RowOrder.of(rows.size(), seed, epoch))
                        .mapToObj(rows::get)
                        .flatMapToInt(row -> Arrays.stream(row.ids()))
                        .boxed()
                        .toList();
                assertThat(tokensByIndex(plan, epoch, accumulation, expected.size()))
                        .isEqualTo(expected);
            }
        });
    }

    /** The token ids of an epoch, each at its index; no index comes twice, no step is larger than planned. */
    private static List<Integer> tokensByIndex(BatchPlan plan, int epoch, int accumulation, int tokens) {
        Integer[] seen = new Integer[tokens];
        BatchPlan.Epoch steps = plan.epoch(epoch);
        for (int step = 0; step < plan.stepsPerEpoch(); step++) {
            List<MicroBatch> microBatches = steps.step(step);
            assertThat(microBatches).isNotEmpty().hasSizeLessThanOrEqualTo(accumulation);
            for (MicroBatch micro : microBatches) {
                Batch batch = micro.batch();
                assertThat(batch.tokens()).isLessThanOrEqualTo(plan.maxTokens());
                assertThat(batch.sequences()).isLessThanOrEqualTo(plan.maxRows());
                assertThat(micro.lines()).hasSize(batch.sequences());
                for (int m = 0; m < batch.tokens(); m++) {
                    int at = batch.tokenIndex()[m];
                    assertThat(seen[at]).isNull();
                    seen[at] = batch.ids()[m];
                }
            }
        }
        return Arrays.asList(seen);
    }

    @Test
    void batchSizeAndAccumulationTakeTheSameRowsInTheSameOrder() {
        List<Row> rows = rows(List.of(3, 4, 5, 6, 7, 8, 9, 10));
        BatchPlan.Epoch whole = new BatchPlan(rows, 7, 4, 1, 0).epoch(0);
        BatchPlan.Epoch parts = new BatchPlan(rows, 7, 1, 4, 0).epoch(0);
        for (int step = 0; step < 2; step++) {
            assertThat(ids(parts.step(step))).isEqualTo(ids(whole.step(step)));
        }
    }

    private static List<Integer> ids(List<MicroBatch> step) {
        return step.stream()
                .flatMapToInt(m -> Arrays.stream(m.batch().ids()))
                .boxed()
                .toList();
    }

    @Test
    void lastStepOfAnEpochIsShort() {
        BatchPlan plan = new BatchPlan(rows(Collections.nCopies(7, 4)), 1, 2, 3, 0);
        assertThat(plan.stepsPerEpoch()).isEqualTo(2);
        assertThat(plan.epoch(0).step(0)).hasSize(3);
        assertThat(plan.epoch(0).step(1)).hasSize(1);
        assertThat(plan.epoch(0).step(1).getFirst().batch().sequences()).isEqualTo(1);
    }

    @Test
    void labelsShiftInsideARow() {
        BitSet mask = new BitSet();
        mask.set(0);
        mask.set(2, 4);
        Row row = new Row(new int[] {5, 6, 7, 8}, mask, 1);
        assertThat(row.targetCount()).isEqualTo(2);
        assertThat(row.labels()).containsExactly(5, -100, 7, 8);
        Batch batch =
                MicroBatch.of(List.of(row, row), new long[] {0, 4_294_967_292L}).batch();
        assertThat(batch.targets()).containsExactly(-100, 7, 8, -100, -100, 7, 8, -100);
        assertThat(batch.tokenIndex()).containsExactly(0, 1, 2, 3, -4, -3, -2, -1);
    }

    @Test
    void noRowsAndRowsThatDoNotFitAreRefused() {
        assertThatThrownBy(() -> new BatchPlan(List.of(), 1, 1, 1, 0)).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> new BatchPlan(rows(List.of(9)), 1, 1, 1, 8))
                .hasMessageContaining("a row of 9 tokens does not fit into 8");
    }
}
