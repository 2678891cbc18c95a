package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

class ModelConfigTest {
    @TempDir
    Path dir;

    private ModelConfig read(JsonNode config) throws IOException {
        return ModelConfig.read(Bytes.write(dir.resolve("config.json"), config.toString()));
    }

    private ModelConfig golden(String name) throws IOException {
        return read(TestData.json("formats/configs/" + name + ".json").get("config"));
    }

    /** The golden config of Llama with some fields replaced; a value of "remove" takes the field away. */
    private ModelConfig with(String... pairs) throws IOException {
        return read(changed("llama", pairs));
    }

    @SuppressWarnings("unchecked")
    private static JsonNode changed(String name, String... pairs) throws IOException {
        Map<String, Object> config = new LinkedHashMap<>((Map<String, Object>) TestData.plain(
                TestData.json("formats/configs/" + name + ".json").get("config")));
        for (int i = 0; i < pairs.length; i += 2) {
            config.remove(pairs[i]);
            if (!pairs[i + 1].equals("remove")) {
                config.put(pairs[i], TestData.plain(TestData.parse(pairs[i + 1])));
            }
        }
        return TestData.parse(PythonJson.pretty().write(config));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "llama",
                "llama3_rope",
                "mistral",
                "mistral_full",
                "qwen2",
                "qwen2_sliding",
                "qwen3",
                "qwen3_bias"
            })
    void expectsTheTensorsAndModulesOfTransformers(String name) throws IOException {
        JsonNode golden = TestData.json("formats/configs/" + name + ".json");
        ModelConfig config = golden(name);
        Map<String, List<Long>> tensors = new LinkedHashMap<>();
        golden.get("tensors").properties().forEach(e -> {
            List<Long> shape = new ArrayList<>();
            e.getValue().values().forEach(size -> shape.add(size.longValue()));
            tensors.put(e.getKey(), shape);
        });
        assertThat(config.expectedTensors()).containsExactlyInAnyOrderEntriesOf(tensors);
        assertThat(config.modules().keySet())
                .containsExactlyInAnyOrderElementsOf(golden.get("modules").propertyNames());
        golden.get("modules").properties().forEach(e -> {
            ModelModule.Kind kind = config.modules().get(e.getKey()).kind();
            switch (e.getValue().stringValue()) {
                case "Linear" -> assertThat(kind).isIn(ModelModule.Kind.LINEAR, ModelModule.Kind.HEAD);
                case "Embedding" -> assertThat(kind).isEqualTo(ModelModule.Kind.EMBEDDING);
                default -> assertThat(kind).isIn(ModelModule.Kind.NORM, ModelModule.Kind.CONTAINER);
            }
        });
    }

    @Test
    void readsTheFamilies() throws IOException {
        ModelConfig llama = golden("llama");
        assertThat(llama.architecture()).isEqualTo("LlamaForCausalLM");
        assertThat(llama.eosTokenIds()).containsExactly(2, 5);
        assertThat(llama.bosTokenId()).isEqualTo(1);
        assertThat(llama.padTokenId()).isNull();
        assertThat(llama.dtype()).isEqualTo(DType.BF16);
        assertThat(llama.headDim()).isEqualTo(4);
        assertThat(llama.rmsNormEps()).isEqualTo(1e-6);
        assertThat(llama.rope()).isEqualTo(new Rope.Default(10000));
        assertThat(llama.attentionBias() && llama.outputBias() && llama.mlpBias())
                .isTrue();
        assertThat(golden("llama3_rope").rope()).isEqualTo(new Rope.Llama3(500000, 8, 1, 4, 8192));
        ModelConfig mistral = golden("mistral");
        assertThat(mistral.slidingWindow()).isEqualTo(32);
        assertThat(mistral.slidingLayers()).containsExactly(0, 1, 2);
        assertThat(golden("mistral_full").slidingWindow()).isZero();
        assertThat(golden("mistral_full").queryWidth()).isEqualTo(24);
        ModelConfig qwen2 = golden("qwen2");
        assertThat(qwen2.attentionBias()).isTrue();
        assertThat(qwen2.outputBias()).isFalse();
        assertThat(qwen2.slidingWindow()).isZero();
        ModelConfig sliding = golden("qwen2_sliding");
        assertThat(sliding.slidingWindow(0)).isZero();
        assertThat(sliding.slidingWindow(1)).isEqualTo(16);
        assertThat(golden("qwen3").qkNorm()).isTrue();
        assertThat(golden("qwen3_bias").outputBias()).isTrue();
    }

    @Test
    void readsTheSpellingsOfTransformers4() throws IOException {
        ModelConfig config = with(
                "rope_parameters",
                "remove",
                "rope_theta",
                "250000.0",
                "rope_scaling",
                "null",
                "dtype",
                "remove",
                "torch_dtype",
                "\"float16\"",
                "head_dim",
                "remove",
                "num_key_value_heads",
                "null",
                "rope_interleaved",
                "false",
                "is_llama_config",
                "true",
                "pretraining_tp",
                "1",
                "_name_or_path",
                "\"x\"",
                "use_cache",
                "true",
                "pad_token_id",
                "-1");
        assertThat(config.rope()).isEqualTo(new Rope.Default(250000));
        assertThat(config.dtype()).isEqualTo(DType.F16);
        assertThat(config.headDim()).isEqualTo(4);
        assertThat(config.numKeyValueHeads()).isEqualTo(4);
        assertThat(config.padTokenId()).isNull();
        String scaling = "{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                + "\"original_max_position_embeddings\":8192}";
        assertThat(with("rope_parameters", "remove", "rope_theta", "500000", "rope_scaling", scaling)
                        .rope())
                .isEqualTo(new Rope.Llama3(500000, 32, 1, 4, 8192));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "architectures|[\"GemmaForCausalLM\"]|architecture GemmaForCausalLM is not supported; supported are LlamaForCausalLM, MistralForCausalLM",
                "architectures|[\"LlamaForCausalLM\",\"X\"]|\"architectures\" is [LlamaForCausalLM, X]; expected a list with one of",
                "architectures|[\"LlamaModel\"]|architecture LlamaModel is not supported",
                "model_type|\"mistral\"|\"model_type\" is \"mistral\", but a LlamaForCausalLM has \"llama\"",
                "hidden_act|\"gelu\"|\"hidden_act\" is \"gelu\"; supported is \"silu\"",
                "hidden_size|\"16\"|\"hidden_size\" is \"16\"; expected a positive integer",
                "hidden_size|0|\"hidden_size\" is 0; expected a positive integer",
                "vocab_size|99999999999|expected a positive integer",
                "num_key_value_heads|3|num_attention_heads 4 is not a multiple of num_key_value_heads 3",
                "head_dim|5|head_dim is 5; rotary embeddings need an even number",
                "rope_parameters|{\"rope_type\":\"yarn\",\"factor\":4.0}|rope type \"yarn\" is not supported; supported are \"default\", \"linear\" and \"llama3\"",
                "rope_scaling|{\"type\":\"dynamic\",\"factor\":2.0}|rope_scaling: rope type \"dynamic\" is not supported",
                "rope_scaling|{\"rope_type\":\"longrope\",\"factor\":2.0}|rope type \"longrope\" is not supported",
                "rope_scaling|{\"rope_type\":\"linear\",\"factor\":2.0}|rope_parameters says Default[theta=10000.0] and rope_scaling Linear[theta=10000.0, factor=2.0]; remove one of them",
                "rope_parameters|{\"rope_type\":\"linear\"}|\"factor\" is missing",
                "rope_parameters|{\"rope_type\":\"linear\",\"factor\":0}|\"factor\" is 0.0; expected a positive number",
                "rope_parameters|{\"full_attention\":{\"rope_type\":\"default\"}}|unknown field \"full_attention\"",
                "partial_rotary_factor|0.5|\"partial_rotary_factor\" is 0.5; supported is 1.0",
                "attention_multiplier|0.1|unknown field \"attention_multiplier\" with the value 0.1",
                "mlp_bias|\"yes\"|\"mlp_bias\" is \"yes\"; expected true or false",
                "rope_parameters|{\"rope_type\":\"llama3\",\"factor\":4.0}|\"low_freq_factor\" is missing",
                "rope_parameters|{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}|\"partial_rotary_factor\" is 0.5",
                "rope_parameters|{\"rope_type\":\"default\",\"beta\":3}|unknown field \"beta\" with the value 3",
                "rope_parameters|{\"rope_type\":\"default\",\"rope_theta\":-1}|rope_theta is -1.0; expected a positive number",
                "rms_norm_eps|0|\"rms_norm_eps\" is 0.0; expected a positive number",
                "attention_dropout|0.1|\"attention_dropout\" is 0.1; supported is 0.0",
                "quantization_config|{\"quant_method\":\"aqlm\"}|\"quant_method\" is \"aqlm\"; supported are bitsandbytes",
                "auto_map|{\"AutoModel\":\"x\"}|\"auto_map\" is",
                "new_scaling|1.5|unknown field \"new_scaling\" with the value 1.5, which may change the result",
                "eos_token_id|[1,\"a\"]|\"eos_token_id\" is [1,\"a\"]; expected a token id",
                "tie_word_embeddings|1|\"tie_word_embeddings\" is 1; expected true or false",
                "dtype|\"int8\"|\"dtype\" is \"int8\"; expected float32, float16 or bfloat16",
            })
    void refusesByNameAndValue(String field, String value, String message) {
        assertThatThrownBy(() -> with(field, value))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(dir.resolve("config.json").toString())
                .hasMessageContaining(message);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "mistral|sliding_window|0|\"sliding_window\" is 0; expected a positive integer",
                "mistral|sliding_window|null|no sliding window is in effect",
                "mistral|layer_types|[\"sliding_attention\"]|expected 3 times one of",
                "mistral|attention_bias|true|\"attention_bias\" is true, but a MistralForCausalLM has no such bias",
                "qwen2|mlp_bias|true|\"mlp_bias\" is true, but a Qwen2ForCausalLM has no such bias",
                "qwen2|layer_types|[\"chunked_attention\",\"full_attention\"]|\"layer_types\" is [chunked_attention, full_attention]",
                "qwen2_sliding|max_window_layers|-1|\"max_window_layers\" is -1.0; expected an integer >= 0",
                "qwen2|num_key_value_heads|remove|not a multiple of num_key_value_heads 32, which a Qwen2ForCausalLM has where config.json does not say",
            })
    void refusesWhatAFamilyDoesNotHave(String name, String field, String value, String message) throws IOException {
        String[] types = {"layer_types", "[\"sliding_attention\",\"sliding_attention\",\"sliding_attention\"]"};
        String[] pairs = name.equals("mistral") && !field.equals("layer_types")
                ? new String[] {types[0], types[1], field, value}
                : new String[] {field, value};
        JsonNode config = changed(name, pairs);
        assertThatThrownBy(() -> read(config))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(message);
    }

    @Test
    void aConfigWithoutArchitecturesIsWhatItsTypeSays() throws IOException {
        assertThat(with("architectures", "remove").architecture()).isEqualTo("LlamaForCausalLM");
        assertThatThrownBy(() -> with("architectures", "null", "model_type", "\"gemma\""))
                .hasMessageContaining("\"architectures\" is missing and \"model_type\" is \"gemma\"; expected one of");
        assertThatThrownBy(() -> with("architectures", "remove", "model_type", "remove"))
                .hasMessageContaining("\"model_type\" is missing");
    }

    @Test
    void theTwoSpellingsOfRopeMayAgree() throws IOException {
        assertThat(with(
                                "rope_parameters",
                                "{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":77}",
                                "rope_scaling",
                                "{\"type\":\"linear\",\"factor\":2}")
                        .rope())
                .isEqualTo(new Rope.Linear(77, 2));
        String llama3 = "{\"rope_type\":\"llama3\",\"factor\":4.0,\"low_freq_factor\":1,\"high_freq_factor\":4%s}";
        String[] outside = {"original_max_position_embeddings", "64", "rope_parameters"};
        assertThat(with(outside[0], outside[1], outside[2], llama3.formatted(""))
                        .rope())
                .isEqualTo(new Rope.Llama3(10000, 4, 1, 4, 64));
        String inside = llama3.formatted(",\"original_max_position_embeddings\":32");
        assertThatThrownBy(() -> with(outside[0], outside[1], outside[2], inside))
                .hasMessageContaining("\"original_max_position_embeddings\" is 32, but 64 outside of it");
    }

    static List<JsonNode> published() throws IOException {
        return new ArrayList<>(
                TestData.json("formats/configs/real.json").get("configs").values());
    }

    /** Published models, absent fields, and fields that act on each other: as transformers reads them. */
    @ParameterizedTest
    @MethodSource("published")
    void meansWhatItMeansInTransformers(JsonNode entry) throws IOException {
        ModelConfig config = read(entry.get("config"));
        Map<String, Object> means = new LinkedHashMap<>();
        means.put("vocab_size", config.vocabSize());
        means.put("hidden_size", config.hiddenSize());
        means.put("intermediate_size", config.intermediateSize());
        means.put("num_hidden_layers", config.numHiddenLayers());
        means.put("num_attention_heads", config.numAttentionHeads());
        means.put("num_key_value_heads", config.numKeyValueHeads());
        means.put("head_dim", config.headDim());
        means.put("max_position_embeddings", config.maxPositionEmbeddings());
        means.put("rms_norm_eps", config.rmsNormEps());
        means.put("tie_word_embeddings", config.tieWordEmbeddings());
        means.put("bos_token_id", config.bosTokenId());
        means.put("eos_token_ids", config.eosTokenIds());
        means.put("pad_token_id", config.padTokenId());
        means.put("rope", rope(config.rope()));
        means.put("sliding_window", config.slidingWindow());
        means.put("sliding_layers", config.slidingLayers());
        means.put("parameters", config.parameters());
        assertThat(TestData.parse(PythonJson.pretty().write(means))).isEqualTo(sameNumbers(entry.get("means")));
    }

    private static Map<String, Object> rope(Rope rope) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("rope_theta", rope.theta());
        switch (rope) {
            case Rope.Default _ -> fields.put("rope_type", "default");
            case Rope.Linear linear -> {
                fields.put("rope_type", "linear");
                fields.put("factor", linear.factor());
            }
            case Rope.Llama3 llama3 -> {
                fields.put("rope_type", "llama3");
                fields.put("factor", llama3.factor());
                fields.put("low_freq_factor", llama3.lowFreqFactor());
                fields.put("high_freq_factor", llama3.highFreqFactor());
                fields.put("original_max_position_embeddings", llama3.originalContext());
            }
            case Rope.Divided _ -> throw new AssertionError("no config.json has it");
        }
        return fields;
    }

    /** The numbers of a rope as doubles: configs write 5000 and 5000.0 alike. */
    private static JsonNode sameNumbers(JsonNode means) {
        ObjectNode rope = (ObjectNode) means.get("rope");
        for (String name : List.copyOf(rope.propertyNames())) {
            JsonNode value = rope.get(name);
            if (value.isNumber() && !name.equals("original_max_position_embeddings")) {
                rope.put(name, value.doubleValue());
            }
        }
        return means;
    }

    @Test
    void unknownFieldsThatAreOffPass() throws IOException {
        assertThat(with("some_new_feature", "false", "another", "null", "third", "[]")
                        .hiddenSize())
                .isEqualTo(16);
    }

    @Test
    void refusesAFileThatIsNone() throws IOException {
        assertThatThrownBy(() -> ModelConfig.read(dir)).hasMessageContaining("config.json: no such file");
        Path file = Bytes.write(dir.resolve("config.json"), "{\n\"a\": 1,\n}");
        assertThatThrownBy(() -> ModelConfig.read(file)).hasMessageContaining("config.json:3: not valid JSON");
        Bytes.write(file, "[]");
        assertThatThrownBy(() -> ModelConfig.read(file)).hasMessageContaining("holds a JSON array; expected an object");
        Bytes.write(file, "{\"hidden_size\":1,\"hidden_size\":2}");
        assertThatThrownBy(() -> ModelConfig.read(file)).hasMessageContaining("Duplicate");
    }

    /** Writes a checkpoint of the config's tensors, changed by hand. */
    private Checkpoint checkpoint(Map<String, List<Long>> tensors, DType dtype) throws IOException {
        List<NamedTensor> named = new ArrayList<>();
        tensors.forEach((name, shape) -> {
            long bytes = shape.stream().reduce((long) dtype.bytes(), (a, b) -> a * b);
            named.add(new NamedTensor(name, dtype, shape, MemorySegment.ofArray(new byte[(int) bytes])));
        });
        SafetensorsWriter.write(dir.resolve("model.safetensors"), named, Map.of());
        return Checkpoint.open(dir);
    }

    private void refused(ModelConfig config, Map<String, List<Long>> tensors, DType dtype, String message)
            throws IOException {
        try (Checkpoint checkpoint = checkpoint(tensors, dtype)) {
            assertThatThrownBy(() -> config.validate(checkpoint))
                    .isInstanceOf(FormatException.class)
                    .hasMessageStartingWith(dir.resolve("model.safetensors").toString())
                    .hasMessageContaining(message);
        }
    }

    @Test
    void validatesACheckpointWhole() throws IOException {
        ModelConfig config = golden("llama");
        Map<String, List<Long>> tensors = new LinkedHashMap<>(config.expectedTensors());
        tensors.put("model.layers.0.self_attn.rotary_emb.inv_freq", List.of(2L));
        tensors.put("lm_head.weight", List.of(64L, 16L));
        try (Checkpoint checkpoint = checkpoint(tensors, DType.BF16)) {
            config.validate(checkpoint);
        }
        Map<String, List<Long>> missing = new LinkedHashMap<>(tensors);
        missing.remove("model.norm.weight");
        missing.remove("model.layers.1.mlp.up_proj.weight");
        refused(config, missing, DType.F32, "missing model.layers.1.mlp.up_proj.weight, model.norm.weight of the");
        Map<String, List<Long>> extra = new LinkedHashMap<>(tensors);
        extra.put("model.layers.0.self_attn.q_norm.weight", List.of(4L));
        refused(
                config,
                extra,
                DType.F32,
                "unexpected model.layers.0.self_attn.q_norm.weight, which a LlamaForCausalLM");
        Map<String, List<Long>> shape = new LinkedHashMap<>(tensors);
        shape.put("model.embed_tokens.weight", List.of(65L, 16L));
        refused(config, shape, DType.F32, "model.embed_tokens.weight has shape [65, 16]; config.json implies [64, 16]");
        checkTiedHead(config);
        refused(config, tensors, DType.I8, "has dtype I8; supported for weights are F32, F16 and BF16");
        ModelConfig untied = with("tie_word_embeddings", "false");
        Map<String, List<Long>> headless = new LinkedHashMap<>(tensors);
        headless.remove("lm_head.weight");
        refused(untied, headless, DType.F32, "missing lm_head.weight");
    }

    /** A head that is stored although it is tied must be the embedding. */
    private void checkTiedHead(ModelConfig config) throws IOException {
        List<NamedTensor> named = new ArrayList<>();
        config.expectedTensors().forEach((name, shape) -> {
            long bytes = shape.stream().reduce(4L, (a, b) -> a * b);
            named.add(new NamedTensor(name, DType.F32, shape, MemorySegment.ofArray(new byte[(int) bytes])));
        });
        byte[] head = new byte[64 * 16 * 4];
        head[4000] = 1;
        named.add(new NamedTensor("lm_head.weight", DType.F32, List.of(64L, 16L), MemorySegment.ofArray(head)));
        SafetensorsWriter.write(dir.resolve("model.safetensors"), named, Map.of());
        try (Checkpoint checkpoint = Checkpoint.open(dir)) {
            assertThatThrownBy(() -> config.validate(checkpoint))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("lm_head.weight differs from model.embed_tokens.weight")
                    .hasMessageContaining("tie_word_embeddings");
        }
    }

    @Test
    void namesLayoutsThatAreNotHuggingFaces() throws IOException {
        Bytes.write(dir.resolve("params.json"), "{\"dim\":16}");
        assertThatThrownBy(() -> ModelConfig.read(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("params.json")
                .hasMessageContaining("Mistral's or Meta's");
        Path shard = Bytes.write(dir.resolve("model-00001-of-00002.safetensors"), "x");
        assertThatThrownBy(() -> Checkpoint.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("model-00001-of-00002.safetensors but neither model.safetensors nor");
        Files.delete(shard);
        Bytes.write(dir.resolve("consolidated.safetensors"), "x");
        assertThatThrownBy(() -> Checkpoint.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("consolidated.safetensors: is in the layout of Mistral's own programs");
        Bytes.write(dir.resolve("pytorch_model.bin"), "x");
        assertThatThrownBy(() -> Checkpoint.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("pytorch_model.bin: is a pickled PyTorch file");
    }

    @Test
    void readsGenerationConfigs() throws IOException {
        assertThat(GenerationConfig.read(dir)).isEqualTo(GenerationConfig.EMPTY);
        Path file = Bytes.write(
                dir.resolve("generation_config.json"),
                "{\"eos_token_id\":[2,7],\"pad_token_id\":null,\"do_sample\":true,\"temperature\":0.6,\"top_k\":20,"
                        + "\"top_p\":0.95,\"transformers_version\":\"5\"}");
        GenerationConfig config = GenerationConfig.read(dir);
        assertThat(config.eosTokenIds()).containsExactly(2, 7);
        assertThat(config.temperature()).isEqualTo(0.6);
        assertThat(config.topK()).isEqualTo(20);
        assertThat(config.doSample()).isTrue();
        assertThat(config.padTokenId()).isNull();
        Bytes.write(file, "{\"eos_token_id\":2}");
        assertThat(GenerationConfig.read(file).eosTokenIds()).containsExactly(2);
        Bytes.write(file, "{\"eos_token_id\":-2}");
        assertThatThrownBy(() -> GenerationConfig.read(file)).hasMessageContaining("\"eos_token_id\" is -2");
    }
}
