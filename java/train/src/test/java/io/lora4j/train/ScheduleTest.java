package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class ScheduleTest {
    static Stream<JsonNode> cases() throws Exception {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data/train/schedules.json");
        return new JsonMapper().readTree(Files.readAllBytes(file)).path("cases").values().stream();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void equalsTransformers(JsonNode expected) {
        Schedule.Type type =
                Schedule.Type.valueOf(expected.path("type").asString().toUpperCase(Locale.ROOT));
        double rate = expected.path("learning_rate").asDouble();
        int total = expected.path("total_steps").asInt();
        Schedule schedule =
                new Schedule(type, rate, expected.path("warmup_steps").asInt(), total);
        JsonNode rates = expected.path("rates");
        assertThat(rates.size()).isEqualTo(total);
        for (int step = 1; step <= total; step++) {
            assertThat(schedule.at(step)).isCloseTo(rates.path(step - 1).asDouble(), within(1e-12 * rate));
        }
    }
}
