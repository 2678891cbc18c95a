package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.train.model.Batch;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class RowFitterTest {
    private static final Path FILE = Path.of("rows.jsonl");

    private static JsonNode golden() throws IOException {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data/train/packing.json");
        return new JsonMapper().readTree(Files.readAllBytes(file));
    }

    private static int[] ints(JsonNode list) {
        return list.values().stream().mapToInt(JsonNode::asInt).toArray();
    }

    private static List<Row> rows(JsonNode golden) {
        List<Row> rows = new ArrayList<>();
        for (int r = 0; r < golden.path("input_ids").size(); r++) {
            int[] labels = ints(golden.path("labels").get(r));
            BitSet mask = new BitSet();
            for (int t = 0; t < labels.length; t++) {
                mask.set(t, labels[t] != Batch.IGNORE);
            }
            rows.add(new Row(ints(golden.path("input_ids").get(r)), mask, r + 1));
        }
        return rows;
    }

    private static RowFitter fitter(int maxLength, LongRows onLong, PackingStrategy packing) {
        return new RowFitter(FILE, new RowOptions("text", maxLength, onLong, packing));
    }

    private static List<List<Integer>> boxed(List<int[]> lists) {
        return lists.stream().map(list -> Arrays.stream(list).boxed().toList()).toList();
    }

    @Test
    void wrappedIsTrls() throws IOException {
        JsonNode golden = golden();
        JsonNode packed = golden.path("packed").path("wrapped");
        List<Row> sequences = fitter(golden.path("max_length").asInt(), LongRows.TRUNCATE, PackingStrategy.WRAPPED)
                .fit(rows(golden));
        assertThat(boxed(sequences.stream().map(Row::ids).toList()))
                .isEqualTo(boxed(packed.path("input_ids").values().stream()
                        .map(RowFitterTest::ints)
                        .toList()));
        assertThat(boxed(sequences.stream().map(Row::labels).toList()))
                .isEqualTo(boxed(packed.path("labels").values().stream()
                        .map(RowFitterTest::ints)
                        .toList()));
        assertThat(sequences.get(2).line()).isEqualTo(2);
    }

    /** The pieces are TRL's with their labels, and so are the sizes of the sequences; which equal sizes share one may differ. */
    @Test
    void bfdAndBfdSplitAreTrls() throws IOException {
        JsonNode golden = golden();
        int length = golden.path("max_length").asInt();
        for (PackingStrategy strategy : List.of(PackingStrategy.BFD, PackingStrategy.BFD_SPLIT)) {
            JsonNode packed = golden.path("packed").path(strategy.name().toLowerCase());
            List<List<Integer>> ids = new ArrayList<>();
            List<List<Integer>> labels = new ArrayList<>();
            List<Integer> sizes = new ArrayList<>();
            for (int s = 0; s < packed.path("input_ids").size(); s++) {
                List<Integer> all =
                        boxed(List.of(ints(packed.path("input_ids").get(s)))).getFirst();
                List<Integer> learned =
                        boxed(List.of(ints(packed.path("labels").get(s)))).getFirst();
                sizes.add(all.size());
                int from = 0;
                for (int size : ints(packed.path("seq_lengths").get(s))) {
                    ids.add(all.subList(from, from + size));
                    labels.add(learned.subList(from, from + size));
                    from += size;
                }
            }
            RowFitter fitter = fitter(length, LongRows.TRUNCATE, strategy);
            List<Row> fitted = fitter.fit(rows(golden));
            assertThat(boxed(fitted.stream().map(Row::ids).toList())).containsExactlyInAnyOrderElementsOf(ids);
            assertThat(boxed(fitted.stream().map(Row::labels).toList())).containsExactlyInAnyOrderElementsOf(labels);
            int[] lengths = fitted.stream().mapToInt(Row::length).toArray();
            assertThat(Packing.pack(lengths, length).stream()
                            .map(places ->
                                    Arrays.stream(places).map(p -> lengths[p]).sum()))
                    .containsExactlyInAnyOrderElementsOf(sizes);
            long tooLong =
                    rows(golden).stream().filter(r -> r.length() > length).count();
            boolean splits = strategy == PackingStrategy.BFD_SPLIT;
            assertThat(fitter.split()).isEqualTo(splits ? (int) tooLong : 0);
            assertThat(fitter.cut()).isEqualTo(splits ? 0 : (int) tooLong);
        }
    }

    @Test
    void longRowsAreCutDroppedOrRefused() throws IOException {
        List<Row> rows = BatchPlanTest.rows(List.of(3, 5, 4));
        RowFitter cut = fitter(4, LongRows.TRUNCATE, PackingStrategy.BFD);
        assertThat(cut.fit(rows)).extracting(Row::length).containsExactly(3, 4, 4);
        assertThat(List.of(cut.cut(), cut.tooLong(), cut.split())).containsExactly(1, 0, 0);
        RowFitter drop = fitter(4, LongRows.DROP, PackingStrategy.BFD);
        assertThat(drop.fit(rows)).extracting(Row::length).containsExactly(3, 4);
        assertThat(List.of(drop.cut(), drop.tooLong(), drop.split())).containsExactly(0, 1, 0);
        assertThatThrownBy(() -> fitter(4, LongRows.ERROR, PackingStrategy.BFD).fit(rows))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith("rows.jsonl:2: has 5 tokens, max_length is 4 and on_long is error");
        assertThat(fitter(5, LongRows.ERROR, PackingStrategy.BFD).fit(rows)).hasSize(3);
        assertThat(fitter(0, LongRows.ERROR, PackingStrategy.BFD).fit(rows)).isEqualTo(rows);
    }
}
