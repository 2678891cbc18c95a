package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The commands on a GGUF file, and on a model that is quantized while it is loaded. */
class QuantizedModelTest {
    private static final Path GGUF =
            Cli.ROOT.resolve("java/train/src/test/resources/io/lora4j/train/model/families/gguf_llama/model.gguf");

    @TempDir
    Path dir;

    @Test
    void generatesAndInspects() {
        var generated = Cli.run("generate", "--model", GGUF, "--prompt", "in the", "--max_new_tokens", 4, "--json")
                .json();
        // <|im_start|> u s er \n in Ġthe <|im_end|> and so on: the template and the tokenizer of the file.
        assertThat(generated.get("prompt_token_ids").toString()).startsWith("[4,123,121,267,16,264,266,5,16,4,");
        var report = Cli.run("inspect", GGUF, "--json").json();
        assertThat(report.get("usable").stringValue())
                .isEqualTo("yes: config and weights of a model that lora4j can train (LlamaForCausalLM)");
        assertThat(report.get("bytes_by_dtype").has("Q4_1")).isTrue();
    }

    @ParameterizedTest
    @ValueSource(strings = {"nf4", "fp4"})
    void evaluatesInFourBits(String type) throws IOException {
        Path data = Files.writeString(
                dir.resolve("data.jsonl"),
                "{\"text\": \"Once upon a time there was a little fox who lived in a wood.\"}\n");
        double dense = loss("eval", "--model", Cli.TINY, "--data", data, "--json");
        double quantized = loss(
                "eval",
                "--model",
                Cli.TINY,
                "--data",
                data,
                "--json",
                "--load_in_4bit",
                "--bnb_4bit_quant_type",
                type,
                "--use_bnb_nested_quant",
                true);
        assertThat(quantized).isNotEqualTo(dense).isBetween(0.9 * dense, 1.3 * dense);
    }

    private static double loss(Object... args) {
        return Cli.run(args).json().get("loss").doubleValue();
    }

    @Test
    void refusesAModelThatIsQuantizedAlready() {
        Cli.Result result = Cli.run("generate", "--model", GGUF, "--prompt", "in", "--load_in_4bit", true);
        assertThat(result.status()).isNotZero();
        assertThat(result.err()).contains("q_proj.weight is quantized already (GGUF_Q4_1); load_in_4bit is for dense");
    }
}
