package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;

class PythonJsonTest {

    @Test
    void writesFloatsAsPythonDoes() throws IOException {
        for (JsonNode pair :
                TestData.json("formats/files/python_json.json").get("floats").values()) {
            double value =
                    Double.longBitsToDouble(Long.parseUnsignedLong(pair.get(0).stringValue(), 16));
            assertThat(PythonJson.number(value)).isEqualTo(pair.get(1).stringValue());
        }
        assertThat(PythonJson.number(Double.NaN)).isEqualTo("NaN");
        assertThat(PythonJson.number(Double.NEGATIVE_INFINITY)).isEqualTo("-Infinity");
    }

    @Test
    void writesDocumentsAsPythonDoes() throws IOException {
        JsonNode golden = TestData.json("formats/files/python_json.json");
        Object value = TestData.plain(TestData.parse(golden.get("value").stringValue()));
        assertThat(PythonJson.pretty().write(value))
                .isEqualTo(golden.get("pretty").stringValue());
        assertThat(PythonJson.compact().write(value))
                .isEqualTo(golden.get("compact").stringValue());
    }

    @Test
    void refusesWhatHasNoForm() {
        assertThatThrownBy(() -> PythonJson.compact().write(new Object())).hasMessageContaining("has no JSON form");
        Map<String, Object> endless = new HashMap<>();
        endless.put("x", endless);
        assertThatThrownBy(() -> PythonJson.compact().write(endless)).hasMessageContaining("nested deeper");
    }
}
