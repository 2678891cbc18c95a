package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;

class AdapterConfigTest {
    @TempDir
    Path dir;

    private AdapterConfig read(String json) throws IOException {
        return AdapterConfig.read(Bytes.write(dir.resolve("adapter_config.json"), json));
    }

    private static Map<String, ModelModule> modules() throws IOException {
        Path file = java.nio.file.Files.createTempFile("config", ".json");
        try {
            JsonNode config = TestData.json("formats/configs/llama3_rope.json").get("config");
            return ModelConfig.read(Bytes.write(file, config.toString())).modules();
        } finally {
            java.nio.file.Files.delete(file);
        }
    }

    @TestFactory
    Stream<DynamicTest> matchesAsPeftDoes() throws IOException {
        Map<String, ModelModule> modules = modules();
        JsonNode golden = TestData.json("formats/targets.json");
        assertThat(modules.keySet())
                .containsExactlyInAnyOrderElementsOf(golden.get("modules").values().stream()
                        .map(JsonNode::stringValue)
                        .toList());
        return StreamSupport.stream(golden.get("cases").values().spliterator(), false)
                .map(c -> DynamicTest.dynamicTest(c.get("settings").toString(), () -> {
                    Map<String, Object> json = new LinkedHashMap<>();
                    json.put("peft_type", "LORA");
                    json.put("r", 8);
                    json.put("lora_alpha", 16);
                    c.get("settings").properties().forEach(e -> json.put(e.getKey(), TestData.plain(e.getValue())));
                    AdapterConfig config = read(PythonJson.compact().write(json));
                    Map<String, List<Double>> matched = new LinkedHashMap<>();
                    for (ModelModule module : modules.values()) {
                        if (config.matches(module)) {
                            matched.put(
                                    module.name(),
                                    List.of((double) config.rank(module.name()), config.alpha(module.name())));
                        }
                    }
                    Map<String, List<Double>> expected = new LinkedHashMap<>();
                    c.get("matched")
                            .properties()
                            .forEach(e -> expected.put(
                                    e.getKey(),
                                    List.of(
                                            e.getValue().get(0).doubleValue(),
                                            e.getValue().get(1).doubleValue())));
                    assertThat(matched).containsExactlyInAnyOrderEntriesOf(expected);
                }));
    }

    @Test
    void scalesAsLoraAndRankStabilizedLoraDo() throws IOException {
        String json = "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"q_proj\"],"
                + "\"rank_pattern\":{\"k_proj\":16},\"use_rslora\":";
        AdapterConfig plain = read(json + "false}");
        assertThat(plain.scaling("a.q_proj")).isEqualTo(2);
        assertThat(plain.scaling("a.k_proj")).isEqualTo(0.5);
        AdapterConfig stabilized = read(json + "true}");
        assertThat(stabilized.scaling("a.q_proj")).isEqualTo(4);
        assertThat(stabilized.scaling("a.k_proj")).isEqualTo(2);
    }

    @Test
    void writesTheOldestFieldsSorted() throws IOException {
        AdapterConfig config = new AdapterConfig(
                8,
                16,
                0.05,
                new ModuleFilter.Names(List.of("v_proj", "q_proj")),
                null,
                Map.of("v_proj", 4),
                Map.of(),
                true,
                null,
                null,
                "some/base",
                null,
                "CAUSAL_LM");
        String expected = """
                {
                  "alpha_pattern": {},
                  "auto_mapping": null,
                  "base_model_name_or_path": "some/base",
                  "bias": "none",
                  "fan_in_fan_out": false,
                  "inference_mode": true,
                  "init_lora_weights": true,
                  "layer_replication": null,
                  "layers_pattern": null,
                  "layers_to_transform": null,
                  "loftq_config": {},
                  "lora_alpha": 16,
                  "lora_dropout": 0.05,
                  "megatron_config": null,
                  "megatron_core": "megatron.core",
                  "modules_to_save": null,
                  "peft_type": "LORA",
                  "r": 8,
                  "rank_pattern": {
                    "v_proj": 4
                  },
                  "revision": null,
                  "target_modules": [
                    "q_proj",
                    "v_proj"
                  ],
                  "task_type": "CAUSAL_LM",
                  "use_dora": false,
                  "use_rslora": true
                }""";
        assertThat(new String(config.toJson(), StandardCharsets.UTF_8)).isEqualTo(expected);
        assertThat(read(expected).toJson()).isEqualTo(config.toJson());
    }

    @Test
    void keepsTheOrderOfPatternsBecauseTheFirstMatchWins() throws IOException {
        AdapterConfig config = read("{\"peft_type\":\"LORA\",\"r\":1,\"lora_alpha\":1,\"target_modules\":\".*proj\","
                + "\"rank_pattern\":{\"z.*_proj\":2,\"a.*\":3,\"q_proj\":4}}");
        assertThat(read(new String(config.toJson(), StandardCharsets.UTF_8))
                        .rankPattern()
                        .keySet())
                .containsExactly("z.*_proj", "a.*", "q_proj");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "\"peft_type\":\"LOHA\"|\"peft_type\" is \"LOHA\"; supported is \"LORA\"",
                "\"use_dora\":true|\"use_dora\" is true, which lora4j does not support",
                "\"modules_to_save\":[\"lm_head\"]|\"modules_to_save\" is [\"lm_head\"], which lora4j does not support",
                "\"bias\":\"all\"|\"bias\" is \"all\"; supported is \"none\"",
                "\"lora_bias\":true|\"lora_bias\" is true",
                "\"layer_replication\":[[0,2]]|\"layer_replication\" is [[0,2]]",
                "\"trainable_token_indices\":[1]|\"trainable_token_indices\" is [1]",
                "\"target_parameters\":[\"w\"]|\"target_parameters\" is [\"w\"]",
                "\"alora_invocation_tokens\":[1]|\"alora_invocation_tokens\" is [1]",
                "\"fan_in_fan_out\":true|\"fan_in_fan_out\" is true",
                "\"init_lora_weights\":\"pissa\"|\"init_lora_weights\" is \"pissa\", whose adapter belongs to a modified base",
                "\"init_lora_weights\":\"loftq\"|\"init_lora_weights\" is \"loftq\", whose adapter belongs to the base that LoftQ",
                "\"task_type\":\"SEQ_CLS\"|\"task_type\" is \"SEQ_CLS\"; supported is \"CAUSAL_LM\"",
                "\"r\":0|\"r\" is 0; expected a positive integer",
                "\"r\":-3|\"r\" is -3; expected a positive integer",
                "\"lora_dropout\":1.0|lora_dropout 1.0 must be at least 0 and below 1",
                "\"rank_pattern\":{\"q\":0}|rank_pattern: \"q\" is 0; expected a positive integer",
                "\"rank_pattern\":{\"(\":1}|rank_pattern: regular expression \"(\" is not valid",
                "\"target_modules\":\"[\"|target_modules: regular expression \"[\" has an unterminated [",
                "\"target_modules\":[1]|\"target_modules\" is [1]; expected a list of strings",
                "\"target_modules\":null|\"target_modules\" is missing",
                "\"init_lora_weights\":\"mica\"|\"init_lora_weights\" is \"mica\", which lora4j does not support",
                "\"exclude_modules\":\"all-linear\"|\"exclude_modules\" is \"all-linear\", which PEFT takes for an expression",
                "\"layers_pattern\":\"layers\"|\"layers_pattern\" is [layers] without \"layers_to_transform\"",
                "\"target_modules\":\".*q_proj\",\"layers_to_transform\":[1]|\"layers_to_transform\" is [1], which needs",
                "\"shiny_new_option\":3|unknown field \"shiny_new_option\" with the value 3",
            })
    void refusesByNameAndValue(String field, String message) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("peft_type", "LORA");
        json.put("r", 8);
        json.put("target_modules", List.of("q_proj"));
        TestData.parse("{" + field + "}").properties().forEach(e -> json.put(e.getKey(), TestData.plain(e.getValue())));
        assertThatThrownBy(() -> read(PythonJson.compact().write(json)))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(dir.resolve("adapter_config.json").toString())
                .hasMessageContaining(message);
    }

    private static final Set<String> HONOURED = Set.of(
            "peft_type",
            "task_type",
            "base_model_name_or_path",
            "revision",
            "r",
            "target_modules",
            "exclude_modules",
            "lora_alpha",
            "lora_dropout",
            "bias",
            "use_rslora",
            "init_lora_weights",
            "layers_to_transform",
            "layers_pattern",
            "rank_pattern",
            "alpha_pattern");

    /** Every field that PEFT's LoraConfig has is honoured, without effect, or refused by name with its value. */
    @TestFactory
    Stream<DynamicTest> everyFieldOfPeft() throws IOException {
        Map<String, String> on = new LinkedHashMap<>();
        AdapterConfigJson.NOT_SUPPORTED.forEach(name -> on.put(name, "true"));
        on.putAll(Map.of(
                "modules_to_save", "[\"lm_head\"]",
                "layer_replication", "[[0,4],[2,5]]",
                "trainable_token_indices", "{\"embed_tokens\":[5]}",
                "target_parameters", "[\"mlp.experts.gate_up_proj\"]",
                "alora_invocation_tokens", "[1,2]",
                "arrow_config", "{\"top_k\":3}",
                "use_bdlora", "{\"nblocks\":2}",
                "megatron_config", "{\"a\":1}"));
        JsonNode fields = TestData.json("train/trl_options.json").get("lora_config");
        assertThat(fields.propertyNames())
                .containsAll(HONOURED)
                .containsAll(AdapterConfigJson.NOT_SUPPORTED)
                .containsAll(AdapterConfigJson.WITHOUT_EFFECT);
        return StreamSupport.stream(fields.propertyNames().spliterator(), false)
                .map(name -> DynamicTest.dynamicTest(name, () -> {
                    Map<String, Object> json = new LinkedHashMap<>();
                    fields.properties().forEach(e -> json.put(e.getKey(), TestData.plain(e.getValue())));
                    json.put("peft_type", "LORA");
                    json.put("target_modules", List.of("q_proj"));
                    AdapterConfig plain = read(PythonJson.compact().write(json));
                    if (AdapterConfigJson.NOT_SUPPORTED.contains(name)) {
                        String value = on.getOrDefault(name, "true");
                        json.put(name, TestData.plain(TestData.parse(value)));
                        assertThatThrownBy(() -> read(PythonJson.compact().write(json)))
                                .isInstanceOf(FormatException.class)
                                .hasMessageContaining(
                                        "\"" + name + "\" is " + value + ", which lora4j does not support");
                    } else if (AdapterConfigJson.WITHOUT_EFFECT.contains(name)) {
                        json.put(name, Map.of("anything", 7));
                        assertThat(read(PythonJson.compact().write(json))).isEqualTo(plain);
                    } else {
                        assertThat(HONOURED).contains(name);
                    }
                }));
    }

    @Test
    void keepsTheRevisionOfTheBase() throws IOException {
        AdapterConfig config = read("{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"],"
                + "\"base_model_name_or_path\":\"org/base\",\"revision\":\"v2\"}");
        assertThat(config.revision()).isEqualTo("v2");
        assertThat(read(new String(config.toJson(), StandardCharsets.UTF_8))).isEqualTo(config);
        assertThat(config.withBaseModel("other", null).revision()).isNull();
    }

    @Test
    void allLinearCanBeLimitedToLayers() throws IOException {
        AdapterConfig config = new AdapterConfig(
                8,
                16,
                0,
                new ModuleFilter.AllLinear(),
                new ModuleFilter.Names(List.of("mlp.up_proj", "lm_head")),
                Map.of(),
                Map.of(),
                false,
                List.of(0, 2),
                null,
                null,
                null,
                null);
        assertThat(config.targets(modules()))
                .hasSize(2 * 6)
                .allSatisfy(m ->
                        assertThat(m.name()).containsPattern("layers\\.[02]\\.").doesNotContain("up_proj"));
    }

    @Test
    void listsTheTargets() throws IOException {
        Map<String, ModelModule> modules = modules();
        AdapterConfig all = AdapterConfig.of(8, 16, new ModuleFilter.AllLinear());
        assertThat(all.targets(modules)).hasSize(3 * 7).noneMatch(m -> m.name().equals("lm_head"));
        AdapterConfig head = AdapterConfig.of(8, 16, new ModuleFilter.Names(List.of("lm_head")));
        assertThat(head.targets(modules)).extracting(ModelModule::name).containsExactly("lm_head");
    }

    private static void refused(AdapterConfig config, String... messages) throws IOException {
        Map<String, ModelModule> modules = modules();
        assertThatThrownBy(() -> config.targets(modules))
                .isInstanceOf(FormatException.class)
                .hasMessageContainingAll(messages);
    }

    @Test
    void refusesTargetsThatMatchNothingOrOnlyInPart() throws IOException {
        String endings = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head";
        String example = "as in model.layers.0.self_attn.q_proj";
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Names(List.of("query", "value"))),
                "target_modules [query, value] matches no module",
                endings,
                example);
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Names(List.of("q_proj", "vproj"))),
                "target_modules entry \"vproj\" matches none",
                endings);
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Regex("q_proj")),
                "target_modules \"q_proj\" matches no module",
                endings);
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Regex(".*mlp.*")),
                "matches model.layers.0.mlp, which is not a layer with weights; LoRA is for linear layers");
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Names(List.of("embed_tokens"))),
                "model.embed_tokens, which is the embedding (LoRA on embeddings is not supported)");
        refused(
                AdapterConfig.of(8, 16, new ModuleFilter.Names(List.of("input_layernorm"))),
                "which is a normalization");
        ModuleFilter q = new ModuleFilter.Names(List.of("q_proj"));
        refused(
                new AdapterConfig(
                        8,
                        16,
                        0,
                        q,
                        null,
                        Map.of("k_proj", 4, "q_proj", 2),
                        Map.of("x", 1.0),
                        false,
                        null,
                        null,
                        null,
                        null,
                        null),
                "rank_pattern key \"k_proj\", alpha_pattern key \"x\" match none of the modules that get an adapter");
        refused(
                new AdapterConfig(8, 16, 0, q, null, Map.of(), Map.of(), false, List.of(0, 7), null, null, null, null),
                "layers_to_transform entry 7 matches none");
        refused(
                new AdapterConfig(
                        8,
                        16,
                        0,
                        q,
                        new ModuleFilter.Names(List.of("k_proj", "kproj")),
                        Map.of(),
                        Map.of(),
                        false,
                        null,
                        null,
                        null,
                        null,
                        null),
                "exclude_modules entry \"kproj\" matches no");
        refused(
                new AdapterConfig(8, 16, 0, q, q, Map.of(), Map.of(), false, null, null, null, null, null),
                "matches no module of the model once exclude_modules and layers_to_transform are applied");
    }
}
