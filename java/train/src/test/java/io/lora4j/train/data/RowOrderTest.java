package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** The order of rows, against {@code test-data/train/row_order.py}, which was written from the Javadoc. */
class RowOrderTest {
    static Stream<JsonNode> cases() throws Exception {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data/train/row_orders.json");
        return new JsonMapper().readTree(Files.readAllBytes(file)).path("cases").values().stream();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void equalsPython(JsonNode expected) throws Exception {
        int[] order = RowOrder.of(
                expected.path("rows").intValue(),
                expected.path("seed").longValue(),
                expected.path("epoch").intValue());
        if (expected.has("order")) {
            assertThat(order)
                    .containsExactly(expected.path("order").values().stream()
                            .mapToInt(JsonNode::intValue)
                            .toArray());
        } else {
            String text = Arrays.stream(order).mapToObj(Integer::toString).collect(Collectors.joining(","));
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.US_ASCII));
            assertThat(HexFormat.of().formatHex(hash))
                    .isEqualTo(expected.path("sha256").asString());
        }
    }

    @Test
    void orderIsAPermutation() {
        SplittableRandom random = new SplittableRandom(5);
        for (int i = 0; i < 200; i++) {
            int rows = random.nextInt(301);
            int[] order = RowOrder.of(rows, random.nextLong(), random.nextInt(10));
            assertThat(Arrays.stream(order).sorted().toArray())
                    .isEqualTo(IntStream.range(0, rows).toArray());
        }
    }

    @Test
    void everyOrderIsEquallyLikely() {
        Map<String, Integer> counts = new HashMap<>();
        int draws = 24_000;
        for (int seed = 0; seed < draws; seed++) {
            counts.merge(Arrays.toString(RowOrder.of(4, seed, 0)), 1, Integer::sum);
        }
        assertThat(counts).hasSize(24);
        double chi2 = counts.values().stream()
                .mapToDouble(n -> (n - 1000.0) * (n - 1000.0) / 1000)
                .sum();
        assertThat(chi2).isLessThan(49.7); // 23 degrees of freedom, p = 0.001
    }
}
