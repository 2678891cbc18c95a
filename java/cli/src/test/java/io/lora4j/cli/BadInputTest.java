package io.lora4j.cli;

import static io.lora4j.cli.BadInput.adapter;
import static io.lora4j.cli.BadInput.config;
import static io.lora4j.cli.BadInput.folder;
import static io.lora4j.cli.BadInput.index;
import static io.lora4j.cli.BadInput.offsets;
import static io.lora4j.cli.BadInput.options;
import static io.lora4j.cli.BadInput.rows;
import static io.lora4j.cli.BadInput.tensor;
import static io.lora4j.cli.BadInput.weights;
import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.cli.BadInput.Case;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;
import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ObjectNode;

/**
 * What users do wrong, what they are told, and the exit status. Each message says where it is, what was found, what was expected
 * and what to do; nothing is written.
 */
class BadInputTest {
    private static final String QUERY = "model.layers.3.self_attn.q_proj.weight";
    private static final String NORM = "model.norm.weight";
    private static final String PROBE = "base_model.model.model.layers.2.self_attn.k_proj.lora_A.weight";

    @TempDir
    Path dir;

    static final List<Case> CASES = List.of(
            // Options
            options(
                    "option unknown",
                    2,
                    List.of("--lora_rank", 4),
                    "unknown option --lora_rank",
                    "did you mean lora_r?"),
            options(
                    "option of wrong kind",
                    2,
                    List.of("--lora_r", "many"),
                    "option lora_r: found \"many\"",
                    "a whole number"),
            options(
                    "option out of range",
                    2,
                    List.of("--lora_r", 0),
                    "option lora_r: found \"0\"",
                    "a whole number from 1"),
            options(
                    "options that exclude",
                    2,
                    List.of("--packing", "--max_length", 0),
                    "option packing: needs max_length"),
            options("no value", 2, List.of("--lora_r"), "--lora_r", "see lora4j train --help"),
            // Files
            options(
                    "model missing",
                    1,
                    List.of("--model", "org/name"),
                    "option model_name_or_path: no folder org/name",
                    "downloads nothing",
                    "hf download org/name"),
            new Case(
                    "model is a file",
                    1,
                    (model, data) -> List.of("--model", model.resolve("model.safetensors")),
                    "model.safetensors is a file; expected the folder that it is in"),
            new Case(
                    "weights missing",
                    1,
                    (model, data) -> {
                        Files.delete(model.resolve("model.safetensors"));
                        return List.of();
                    },
                    "model: holds no checkpoint; expected model.safetensors"),
            new Case(
                    "tokenizer missing",
                    1,
                    (model, data) -> {
                        Files.delete(model.resolve("tokenizer.json"));
                        return List.of();
                    },
                    "tokenizer.json",
                    "no such file"),
            new Case(
                    "tokenizer broken",
                    1,
                    (model, data) -> {
                        Files.writeString(model.resolve("tokenizer.json"), "{\"version\":");
                        return List.of();
                    },
                    "tokenizer.json",
                    "not valid JSON"),
            new Case(
                    "config broken",
                    1,
                    (model, data) -> {
                        Files.writeString(model.resolve("config.json"), "{\n\"hidden_size\": 1x}");
                        return List.of();
                    },
                    "config.json:2: not valid JSON",
                    "correct it, or fetch the file again"),
            folder("weights a folder", "model.safetensors"),
            folder("config a folder", "config.json"),
            folder("tokenizer a folder", "tokenizer.json"),
            folder("template a folder", "chat_template.jinja"),
            new Case(
                    "template not UTF-8",
                    1,
                    (model, data) -> {
                        Files.write(model.resolve("chat_template.jinja"), new byte[] {'a', (byte) 0xe9, 'b'});
                        return List.of();
                    },
                    "chat_template.jinja: is not valid UTF-8"),
            index("index broken", "[", "model.safetensors.index.json:1: not valid JSON"),
            index(
                    "index of a shard elsewhere",
                    "{\"weight_map\": {\"model.norm.weight\": \"../../secret\"}}",
                    "weight_map gives \"../../secret\" for model.norm.weight",
                    "a file beside the index"),
            index(
                    "shard missing",
                    "{\"weight_map\": {\"model.norm.weight\": \"one.safetensors\"}}",
                    "shard one.safetensors is missing (it holds model.norm.weight",
                    "fetch the checkpoint again"),
            options("data missing", 1, List.of("--data", "none.jsonl"), "none.jsonl: no such file"),
            new Case(
                    "data a folder without data",
                    1,
                    (model, data) -> List.of("--data", model),
                    "model: is a folder without train.jsonl; expected a JSONL file, or a folder that has it"),
            // Weights
            weights("truncated", f -> f.truncate(1_000_000), "model.safetensors", "lie outside the file", "truncated"),
            weights("empty", f -> f.truncate(0), "model.safetensors: has 0 bytes", "fetch it again"),
            weights(
                    "header longer than the file",
                    f -> f.headerLength(90_000_000),
                    "model.safetensors",
                    "90000000",
                    "longer than the file"),
            weights(
                    "offsets overlap",
                    f -> f.header(h -> offsets(h, NORM, 128, 512)),
                    "model.safetensors",
                    "tensor",
                    "overlaps"),
            weights(
                    "offsets out of range",
                    f -> f.header(h -> offsets(h, NORM, 99_000_000, 99_000_384)),
                    "tensor " + NORM,
                    "99000384",
                    "lie outside the file"),
            weights(
                    "dtype of weights",
                    f -> f.header(h -> tensor(h, NORM).put("dtype", "I16")),
                    "model.safetensors: tensor " + NORM,
                    "I16",
                    "supported for weights are F32, F16 and BF16",
                    "convert"),
            weights(
                    "dtype against bytes",
                    f -> f.header(h -> tensor(h, NORM).put("dtype", "F32")),
                    "tensor " + NORM,
                    "takes 768 bytes",
                    "hold 384"),
            weights(
                    "shape",
                    f -> f.header(
                            h -> tensor(h, QUERY).putArray("shape").add(96).add(384)),
                    "model.safetensors: tensor " + QUERY,
                    "[96, 384]",
                    "config.json implies [192, 192]"),
            weights(
                    "tensor missing",
                    f -> f.header(h -> h.set("other", h.remove(QUERY))),
                    "model.safetensors",
                    QUERY,
                    "missing"),
            weights(
                    "NaN weight",
                    f -> f.element(QUERY, 3 * 192 + 7, 16, 0x7fc0),
                    "model.safetensors: tensor " + QUERY + " holds a NaN or infinite value",
                    "[3, 7]",
                    "the file is damaged, or its training diverged"),
            weights(
                    "infinite norm weight",
                    f -> f.element(NORM, 5, 16, 0x7f80),
                    "model.safetensors: tensor " + NORM + " holds Infinity at element 5",
                    "the file is damaged"),
            // Config
            config(
                    "unknown architecture",
                    "architectures",
                    List.of("GPT2LMHeadModel"),
                    "config.json",
                    "architecture GPT2LMHeadModel is not supported",
                    "supported are LlamaForCausalLM"),
            config(
                    "architecture against type",
                    "model_type",
                    "gpt2",
                    "config.json",
                    "\"gpt2\"",
                    "LlamaForCausalLM has \"llama\""),
            config(
                    "shape against config",
                    "intermediate_size",
                    640,
                    "mlp.gate_proj.weight",
                    "[512, 192]",
                    "[640, 192]"),
            config(
                    "out of memory",
                    "intermediate_size",
                    2_000_000_000,
                    "  activations (",
                    "  available (",
                    "the run does not fit into memory",
                    "lower per_device_train_batch_size"),
            // Targets
            options(
                    "target matches nothing",
                    1,
                    List.of("--lora_target_modules", "q_porj"),
                    "q_porj",
                    "matches no module",
                    "q_proj"),
            options(
                    "one target matches nothing",
                    1,
                    List.of("--lora_target_modules", "q_proj", "v_porj"),
                    "v_porj",
                    "q_proj"),
            options(
                    "pattern matches nothing",
                    1,
                    List.of("--rank_pattern", "{\"x_proj\": 2}"),
                    "rank_pattern",
                    "x_proj"),
            options(
                    "pattern is no expression",
                    1,
                    List.of("--alpha_pattern", "{\"(q_proj\": 2}"),
                    "alpha_pattern key: regular expression \"(q_proj\" is not valid"),
            // Data
            rows("empty data", "", List.of(), "train.jsonl: has no rows", "expected a JSON object in every line"),
            rows(
                    "nothing to learn",
                    "{\"prompt\": \"Once upon a time there was\", \"completion\": \" a cat\"}\n",
                    List.of("--max_length", 3),
                    "train.jsonl: none of its 1 rows has a token to learn",
                    "raise max_length"),
            rows(
                    "invalid line",
                    "{\"text\": \"a\"}\n\n{\"text\": \"b\"\n",
                    List.of(),
                    "train.jsonl:3: is not valid JSON",
                    "expected one JSON object in every line"),
            rows(
                    "one list instead of lines",
                    "[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n",
                    List.of(),
                    "train.jsonl:1: is not valid JSON",
                    "(a list over several lines?); expected one JSON object in every line"),
            rows(
                    "wrong fields",
                    "{\"question\": \"a\"}\n",
                    List.of(),
                    "train.jsonl:1: has the fields [question]",
                    "expected text"),
            rows(
                    "longer than the context",
                    "{\"text\": \"a\"}\n{\"text\": \"" + "one day ".repeat(400) + "\"}\n",
                    List.of(),
                    "train.jsonl:2: has ",
                    "the model's context is 512",
                    "set max_length"),
            config(
                    "token outside the vocabulary",
                    "vocab_size",
                    300,
                    "train.jsonl:1: has the token id",
                    "300 entries",
                    "tokenizer"),
            // Adapters
            options("adapter missing", 1, List.of("--adapter", "none"), "option adapter_name_or_path: no folder none"),
            new Case(
                    "adapter is the model",
                    1,
                    (model, data) -> List.of("--adapter", model),
                    "adapter_config.json: no such file"),
            adapter(
                    "adapter of another base",
                    Cli.ROOT.resolve("test-data/formats/adapters/all_linear"),
                    f -> {},
                    "model.layers.0.mlp.down_proj",
                    "[out 16, in 24], but the model's has [out 192, in 512]",
                    "the adapter is of another base model"),
            new Case(
                    "adapter has more than its config says",
                    1,
                    (model, data) -> {
                        Path adapter = Files.createDirectory(model.resolveSibling("adapter"));
                        Files.copy(
                                Cli.ADAPTER.resolve("adapter_model.safetensors"),
                                adapter.resolve("adapter_model.safetensors"));
                        ObjectNode config = (ObjectNode)
                                new JsonMapper().readTree(Files.readString(Cli.ADAPTER.resolve("adapter_config.json")));
                        config.putArray("target_modules").add("q_proj");
                        Files.writeString(adapter.resolve("adapter_config.json"), config.toString());
                        return List.of("--adapter", adapter);
                    },
                    "has tensors for model.layers.0.mlp.down_proj, but adapter_config.json does not target it",
                    "the two files are of different adapters"),
            adapter("adapter truncated", Cli.ADAPTER, f -> f.truncate(2000), "adapter_model.safetensors"),
            adapter(
                    "adapter of wrong shape",
                    Cli.ADAPTER,
                    f -> f.header(h -> tensor(h, PROBE).putArray("shape").add(4).add(384)),
                    "adapter_model.safetensors",
                    "model.layers.2.self_attn.k_proj has lora_A [4, 384]",
                    "adapter_config.json gives it rank 8",
                    "different adapters"),
            adapter(
                    "NaN in adapter",
                    Cli.ADAPTER,
                    f -> f.element(PROBE, 192 + 2, 32, 0x7fc00000),
                    PROBE + " holds NaN at element 194",
                    "damaged"));

    @ParameterizedTest(name = "{0}")
    @FieldSource("CASES")
    void training(Case bad) throws IOException {
        Path model = Cli.model(dir.resolve("model"));
        Path data = Cli.data(dir);
        Path output = dir.resolve("out");
        List<?> more = bad.damage().to(model, data);
        Stream<?> all = Stream.of(
                        Stream.of("train"),
                        more.contains("--model") ? Stream.of() : Stream.of("--model", model),
                        more.contains("--data") ? Stream.of() : Stream.of("--data", data),
                        Stream.of("--output_dir", output, "--max_steps", 1),
                        more.stream())
                .flatMap(s -> s);
        Cli.Result result = Cli.run(all.toArray());
        assertThat(result.status()).as(result.err()).isEqualTo(bad.status());
        assertThat(result.err()).contains(bad.said()).contains("lora4j: ").doesNotContain("internal error", "\tat ");
        assertThat(result.out()).isEmpty();
        assertThat(output).doesNotExist();
    }
}
