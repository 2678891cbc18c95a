package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.node.ObjectNode;

/** Numbers that no model has are refused before anything is made of their size. Those of GGUF and safetensors: their own tests. */
class AbsurdSizesTest {
    @TempDir
    Path dir;

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            llama   | num_hidden_layers | 2000000000 | "num_hidden_layers" is 2000000000; expected at most 10000
            mistral | num_hidden_layers | 10001      | "num_hidden_layers" is 10001; expected at most 10000
            llama   | head_dim          | 2000000000 | times head_dim 2000000000 is more than any layer has
            llama   | num_hidden_layers | 2147483648 | "num_hidden_layers" is 2147483648; expected a positive integer
            """)
    void ofModelConfigs(String family, String field, String value, String message) throws IOException {
        ObjectNode config = (ObjectNode)
                TestData.json("formats/configs/" + family + ".json").get("config");
        config.set(field, TestData.parse(value));
        Path file = Bytes.write(dir.resolve("config.json"), config.toString());
        assertThatThrownBy(() -> ModelConfig.read(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file.toString())
                .hasMessageContaining(message);
    }

    /** JSON has numbers that no double holds. */
    @ParameterizedTest
    @ValueSource(strings = {"1e400", "-1e400", "BIG"})
    void ofNumbers(String number) throws IOException {
        String json = "{\"architectures\":[\"LlamaForCausalLM\"],\"rms_norm_eps\":"
                + (number.equals("BIG") ? "1" + "0".repeat(400) : number) + "}";
        Path file = Bytes.write(dir.resolve("config.json"), json);
        assertThatThrownBy(() -> ModelConfig.read(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file + ": \"rms_norm_eps\" is ")
                .hasMessageEndingWith("; expected a number");
    }

    @Test
    void ofJsonFiles() throws IOException {
        Path file = dir.resolve("config.json");
        try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
            out.setLength(3L << 30); // A hole.
        }
        assertThatThrownBy(() -> ModelConfig.read(file))
                .isInstanceOf(FormatException.class)
                .hasMessage(
                        file + ": has 3221225472 bytes; JSON of a model has at most 268435456: this is another file, or"
                                + " it is damaged");
    }

    @Test
    void ofExpressions() {
        for (String pattern : new String[] {"(".repeat(101) + ")".repeat(101), "(?:".repeat(101) + ")".repeat(101)}) {
            assertThatThrownBy(() -> PythonRegex.compile(pattern, "f"))
                    .isInstanceOf(FormatException.class)
                    .hasMessageStartingWith("f: regular expression")
                    .hasMessageContaining("nests groups deeper than 100");
        }
        assertThatThrownBy(() -> PythonRegex.compile("a?".repeat(3000), "f"))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("has 6000 characters; expected at most 4096");
    }
}
