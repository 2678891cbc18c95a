package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.Checkpoint;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class GenerateCommandTest {
    private static final JsonMapper JSON = new JsonMapper();

    @TempDir
    Path dir;

    /** Plain prompt and conversation, with and without an adapter: transformers and PEFT choose the same tokens. */
    @Test
    void greedyTokensAreThoseOfPeft() throws IOException {
        JsonNode reference = JSON.readTree(Files.readString(Cli.GOLDEN.resolve("reference.json")));
        for (JsonNode golden : reference.get("greedy")) {
            Object[] prompt;
            if (golden.has("prompt")) {
                prompt = new Object[] {
                    "--no_chat_template", "--prompt", golden.get("prompt").stringValue()
                };
            } else {
                prompt = new Object[] {
                    "--messages",
                    Files.writeString(
                            dir.resolve("m.json"), golden.get("messages").toString())
                };
            }
            for (String how : List.of("with_adapter", "without_adapter")) {
                List<Object> args = new ArrayList<>(List.of(prompt));
                args.addAll(List.of("--max_new_tokens", 24));
                if (how.equals("with_adapter")) {
                    args.addAll(List.of("--adapter", Cli.ADAPTER));
                }
                JsonNode json = generate(args.toArray());
                assertThat(json.get("prompt_token_ids")).isEqualTo(golden.get("input_ids"));
                assertThat(json.get("token_ids"))
                        .as(how)
                        .isEqualTo(golden.get(how).get("tokens"));
                assertThat(json.get("finish").stringValue()).isEqualTo("max_new_tokens");
            }
        }
    }

    @Test
    void logitsAreThoseOfPeft() throws IOException {
        String text = "The old clock was made of";
        JsonNode json = generate(
                "--no_chat_template", "--prompt", text, "--max_new_tokens", 1, "--logits", "--adapter", Cli.ADAPTER);
        assertThat(json.get("logits").size()).isEqualTo(2048);
        int best = 0;
        for (int i = 0; i < 2048; i++) {
            best = json.get("logits").get(i).doubleValue()
                            > json.get("logits").get(best).doubleValue()
                    ? i
                    : best;
        }
        assertThat(json.get("token_ids").get(0).intValue()).isEqualTo(best);
        try (Checkpoint golden = Checkpoint.open(Cli.GOLDEN.resolve("reference.safetensors"))) {
            // Row 0 at its first position: the BOS token alone.
            float[] expected = golden.data("logits_with_adapter.0").toArray(ValueLayout.JAVA_FLOAT_UNALIGNED);
            JsonNode bos = Cli.runWithInput(
                            "",
                            "generate",
                            "--model",
                            Cli.TINY,
                            "--no_chat_template",
                            "--prompt",
                            "-",
                            "--max_new_tokens",
                            1,
                            "--json",
                            "--logits",
                            "--adapter",
                            Cli.ADAPTER)
                    .json();
            assertThat(bos.get("prompt_token_ids").size()).isEqualTo(1);
            double difference = 0;
            double norm = 0;
            for (int i = 0; i < 2048; i++) {
                difference += Math.pow(bos.get("logits").get(i).doubleValue() - expected[i], 2);
                norm += (double) expected[i] * expected[i];
            }
            assertThat(Math.sqrt(difference / norm)).isLessThan(1e-4);
        }
        Cli.Result refused = Cli.run("generate", "--model", Cli.TINY, "--prompt", "a", "--logits");
        assertThat(refused.status()).isEqualTo(2);
        assertThat(refused.err()).contains("option logits: needs --json");
    }

    @Test
    void streamedTextIsTheTextInJson() {
        Object[] args = {"--no_chat_template", "--prompt", "One day", "--max_new_tokens", 30};
        JsonNode json = generate(args);
        assertThat(plain(args).out()).isEqualTo(json.get("text").stringValue() + System.lineSeparator());
        assertThat(json.get("token_ids").size()).isEqualTo(30);
    }

    @Test
    void promptFromStandardInputAndSystemPrompt() {
        JsonNode direct = generate("--prompt", "Who are you?", "--max_new_tokens", 4);
        JsonNode piped = Cli.runWithInput(
                        "Who are you?",
                        "generate",
                        "--model",
                        Cli.TINY,
                        "--prompt",
                        "-",
                        "--max_new_tokens",
                        4,
                        "--json")
                .json();
        assertThat(piped.get("token_ids")).isEqualTo(direct.get("token_ids"));
        assertThat(piped.get("prompt_token_ids")).isEqualTo(direct.get("prompt_token_ids"));
        JsonNode system =
                generate("--prompt", "Who are you?", "--system_prompt", "You are a cat.", "--max_new_tokens", 4);
        assertThat(system.get("prompt_token_ids").size())
                .isGreaterThan(direct.get("prompt_token_ids").size());
        Cli.Result latin = Cli.runWithInput(
                new byte[] {'c', 'a', 'f', (byte) 0xe9}, "generate", "--model", Cli.TINY, "--prompt", "-");
        assertThat(latin.status()).isEqualTo(1);
        assertThat(latin.err()).contains("lora4j: standard input: is not valid UTF-8");
    }

    @Test
    void endsBeforeStopStrings() {
        Object[] args = {"--no_chat_template", "--prompt", "One day", "--max_new_tokens", 60};
        String text = generate(args).get("text").stringValue();
        String word = text.strip().split("\\s+")[3];
        Object[] stopped = Stream.concat(Stream.of(args), Stream.of("--stop", "🦊", "--stop", word))
                .toArray();
        JsonNode json = generate(stopped);
        assertThat(json.get("text").stringValue()).isEqualTo(text.substring(0, text.indexOf(word)));
        assertThat(json.get("finish").stringValue()).isEqualTo("stop_string");
        assertThat(json.get("token_ids").size()).isLessThan(60);
    }

    @Test
    void endsAtEveryEosOfTheGenerationConfig() throws IOException {
        Path model = Cli.model(dir.resolve("model"));
        JsonNode whole = generate("--no_chat_template", "--prompt", "One day", "--max_new_tokens", 10);
        int third = whole.get("token_ids").get(2).intValue();
        for (String eos : List.of("[1, " + third + "]", String.valueOf(third))) {
            Files.writeString(model.resolve("generation_config.json"), "{\"eos_token_id\": " + eos + "}");
            JsonNode json = Cli.run(
                            "generate",
                            "--model",
                            model,
                            "--no_chat_template",
                            "--prompt",
                            "One day",
                            "--max_new_tokens",
                            10,
                            "--json")
                    .json();
            assertThat(json.get("finish").stringValue()).isEqualTo("stop_token");
            assertThat(json.get("token_ids").size()).isLessThanOrEqualTo(3);
        }
    }

    @Test
    void samplingIsAFunctionOfItsSeed() {
        Set<JsonNode> drawn = new HashSet<>();
        for (int seed = 0; seed < 4; seed++) {
            Object[] args = {
                "--no_chat_template",
                "--prompt",
                "One day",
                "--max_new_tokens",
                12,
                "--temperature",
                1.2,
                "--top_k",
                40,
                "--top_p",
                0.95,
                "--seed",
                seed
            };
            JsonNode tokens = generate(args).get("token_ids");
            assertThat(generate(args).get("token_ids")).isEqualTo(tokens);
            drawn.add(tokens);
        }
        assertThat(drawn).hasSizeGreaterThan(1);
        JsonNode greedy = generate("--no_chat_template", "--prompt", "One day", "--max_new_tokens", 12);
        JsonNode best = generate(
                "--no_chat_template",
                "--prompt",
                "One day",
                "--max_new_tokens",
                12,
                "--temperature",
                1.2,
                "--top_k",
                1);
        assertThat(best.get("token_ids")).isEqualTo(greedy.get("token_ids"));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--max_new_tokens 3                        | 2 | either --prompt or --messages",
                "--prompt a --messages b                   | 2 | either --prompt or --messages",
                "--prompt a --temperature -1               | 2 | option temperature: found \"-1\"",
                "--prompt a --top_p 0                      | 2 | option top_p: found \"0\"",
                "--prompt a --top_p 1.5                    | 2 | option top_p: found \"1.5\"",
                "--prompt a --max_new_tokens 0             | 2 | option max_new_tokens: found \"0\"",
                "--prompt a --stop=                        | 2 | option stop",
                "--prompt a --no_chat_template --system_prompt b | 2 | need a chat template: remove no_chat_template",
                "--messages none.json                      | 1 | none.json: no such file",
            })
    void wrongUse(String options, int status, String message) {
        Cli.Result result = plain((Object[]) options.split(" "));
        assertThat(result.status()).isEqualTo(status);
        assertThat(result.err()).contains(message).doesNotContain("\tat ");
        assertThat(result.out()).isEmpty();
    }

    @Test
    void aPromptThatDoesNotFit() {
        Cli.Result result = plain("--prompt", "one day ".repeat(400));
        assertThat(result.status()).isEqualTo(2);
        assertThat(result.err()).contains("option prompt: has ", "expected 1 to 511", "the model's context is 512");
    }

    @Test
    void endsWhereTheContextDoes() {
        JsonNode json = generate("--no_chat_template", "--prompt", "one day ".repeat(190), "--max_new_tokens", 1000);
        int tokens = json.get("prompt_token_ids").size() + json.get("token_ids").size();
        assertThat(json.get("finish").stringValue()).isIn("context", "stop_token");
        assertThat(tokens).isLessThanOrEqualTo(512);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "{'messages': []}                    | expected a list of messages",
                "[{'role': 'user'}]                  | message 0 is {\"role\":\"user\"}, expected an object with role and content",
                "[{'role': 'user', 'content': 'a'}   | not valid JSON",
                "'\"text\"'                          | expected a list of messages",
            })
    void wrongMessages(String text, String message) throws IOException {
        Path file = Files.writeString(dir.resolve("m.json"), text.replace('\'', '"'));
        Cli.Result result = plain("--messages", file);
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err()).contains(file + ": ").contains(message);
    }

    private static JsonNode generate(Object... more) {
        return plain(Stream.concat(Stream.of(more), Stream.of("--json")).toArray())
                .json();
    }

    private static Cli.Result plain(Object... more) {
        return Cli.run(Stream.concat(Stream.of("generate", "--model", Cli.TINY), Stream.of(more))
                .toArray());
    }
}
