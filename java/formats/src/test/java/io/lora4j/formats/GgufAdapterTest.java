package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Adapters that PEFT wrote, as GGUF files and mapped back by the format's description. */
class GgufAdapterTest {
    /** The model of make_adapters.py. */
    private static final int HEADS = 4;

    private static final int KEY_VALUE_HEADS = 2;
    private static final int HEAD_DIM = 4;

    private static final String CONFIG = """
            {"architectures": ["%s"], "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
             "tie_word_embeddings": %s}
            """;

    @TempDir
    Path dir;

    @ParameterizedTest
    @ValueSource(
            strings = {
                "plain",
                "rslora",
                "patterns",
                "regex",
                "all_linear",
                "layers",
                "exclude",
                "half",
                "bfloat",
                "head"
            })
    void mappedBackItIsTheAdapter(String name) throws IOException {
        Path source = TestData.path("formats/adapters/" + name);
        try (Arena arena = Arena.ofConfined()) {
            PeftAdapter adapter = PeftAdapter.read(source, arena);
            ModelConfig model = model("LlamaForCausalLM", false);
            adapter.requireFits(name, model.modules());
            Path file = dir.resolve("adapter.gguf");
            Map<String, Double> folded = GgufAdapter.write(file, adapter, model, name);
            // Scales of PEFT differ from alpha / rank only in "patterns": alpha 12 and 1.5 against 4.
            assertThat(folded.keySet())
                    .isEqualTo(
                            name.equals("patterns")
                                    ? java.util.Set.of(
                                            "model.layers.0.self_attn.o_proj",
                                            "model.layers.1.self_attn.o_proj",
                                            "model.layers.2.self_attn.o_proj",
                                            "model.layers.2.self_attn.q_proj")
                                    : java.util.Set.of());
            try (GgufFile gguf = GgufFile.open(file)) {
                assertThat(gguf.values())
                        .containsEntry("general.type", "adapter")
                        .containsEntry("general.architecture", "llama")
                        .containsEntry("adapter.type", "lora");
                assertThat(gguf.tensors()).hasSize(2 * adapter.modules().size());
                double alpha = (Double) gguf.values().get("adapter.lora.alpha");
                for (Map.Entry<String, LoraWeights> module : adapter.modules().entrySet()) {
                    check(gguf, module.getKey(), module.getValue(), alpha, adapter.config());
                }
            }
            // Equal adapters give equal bytes.
            byte[] bytes = Files.readAllBytes(file);
            GgufAdapter.write(file, adapter, model, name);
            assertThat(Files.readAllBytes(file)).isEqualTo(bytes);
        }
    }

    private static void check(GgufFile gguf, String module, LoraWeights w, double alpha, AdapterConfig config)
            throws IOException {
        String tensor = tensorName(module);
        TensorInfo a = gguf.tensor(tensor + ".lora_a");
        TensorInfo b = gguf.tensor(tensor + ".lora_b");
        assertThat(a.shape()).containsExactly((long) w.rank(), w.inFeatures());
        assertThat(b.shape()).containsExactly(w.outFeatures(), (long) w.rank());
        assertThat(a.typeName()).isEqualTo("F32");
        assertThat(gguf.data(a.name()).mismatch(w.a())).isEqualTo(-1);
        // llama.cpp's scale of the module against PEFT's.
        double ratio = config.scaling(module) / (alpha / w.rank());
        boolean exact = Math.abs(ratio - 1) < 1e-7;
        int heads = module.endsWith("q_proj") ? HEADS : module.endsWith("k_proj") ? KEY_VALUE_HEADS : 0;
        MemorySegment written = gguf.data(b.name());
        for (int row = 0; row < w.outFeatures(); row++) {
            // reshape(heads, 2, D/2, …).swapaxes(1, 2): row (h, half, i) goes to (h, i, half).
            int inHead = row % HEAD_DIM;
            int place = heads == 0 ? row : row - inHead + inHead % (HEAD_DIM / 2) * 2 + inHead / (HEAD_DIM / 2);
            for (int j = 0; j < w.rank(); j++) {
                float original = w.b().get(ValueLayout.JAVA_FLOAT, 4L * (row * w.rank() + j));
                float stored = written.get(ValueLayout.JAVA_FLOAT_UNALIGNED, 4L * (place * w.rank() + j));
                if (exact) {
                    assertThat(Float.floatToRawIntBits(stored)).isEqualTo(Float.floatToRawIntBits(original));
                } else {
                    assertThat((float) (stored / ratio)).isBetween(Math.nextDown(original), Math.nextUp(original));
                    assertThat(stored).isNotEqualTo(original);
                }
            }
        }
    }

    private static String tensorName(String module) {
        return module.equals("lm_head")
                ? "output.weight"
                : module.replace("model.layers.", "blk.")
                                .replace("self_attn.q_proj", "attn_q")
                                .replace("self_attn.k_proj", "attn_k")
                                .replace("self_attn.v_proj", "attn_v")
                                .replace("self_attn.o_proj", "attn_output")
                                .replaceAll("mlp\\.(gate|up|down)_proj", "ffn_$1")
                        + ".weight";
    }

    @Test
    void rsloraWithRanksOfItsOwnIsFolded() throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            AdapterConfig plain = AdapterConfig.of(2, 3, new ModuleFilter.Names(List.of("q_proj", "k_proj")));
            AdapterConfig config = new AdapterConfig(
                    2,
                    3,
                    0,
                    plain.targetModules(),
                    null,
                    Map.of("k_proj", 1),
                    Map.of(),
                    true,
                    null,
                    null,
                    null,
                    null,
                    "CAUSAL_LM");
            LoraWeights q = ones(2, 16, arena);
            LoraWeights k = ones(1, 8, arena);
            PeftAdapter adapter = new PeftAdapter(
                    config, Map.of("model.layers.0.self_attn.q_proj", q, "model.layers.0.self_attn.k_proj", k));
            Path file = dir.resolve("rs.gguf");
            GgufAdapter.write(file, adapter, model("LlamaForCausalLM", false), "rs");
            try (GgufFile gguf = GgufFile.open(file)) {
                // alpha' = 3·√2, so k's scale of 3/√1 = 3 is alpha' / 1 times 1/√2.
                assertThat(gguf.values()).containsEntry("adapter.lora.alpha", (double) (float) (3 * Math.sqrt(2)));
                float kept = gguf.data("blk.0.attn_q.weight.lora_b").get(ValueLayout.JAVA_FLOAT_UNALIGNED, 0);
                float folded = gguf.data("blk.0.attn_k.weight.lora_b").get(ValueLayout.JAVA_FLOAT_UNALIGNED, 0);
                assertThat(kept).isEqualTo(1f);
                assertThat(folded).isEqualTo((float) (3 / (double) (float) (3 * Math.sqrt(2))));
            }
        }
    }

    @Test
    void rowsOfOtherFamiliesKeepTheirPlaces() throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            AdapterConfig config = AdapterConfig.of(1, 1, new ModuleFilter.Names(List.of("q_proj")));
            LoraWeights q = ones(1, 16, arena);
            for (int row = 0; row < 16; row++) {
                q.b().set(ValueLayout.JAVA_FLOAT, 4L * row, row);
            }
            PeftAdapter adapter = new PeftAdapter(config, Map.of("model.layers.0.self_attn.q_proj", q));
            for (String architecture : List.of("Qwen2ForCausalLM", "MistralForCausalLM")) {
                Path file = dir.resolve(architecture);
                GgufAdapter.write(file, adapter, model(architecture, false), "q");
                try (GgufFile gguf = GgufFile.open(file)) {
                    boolean qwen = architecture.startsWith("Qwen2");
                    assertThat(gguf.values()).containsEntry("general.architecture", qwen ? "qwen2" : "llama");
                    float[] rows = gguf.data("blk.0.attn_q.weight.lora_b").toArray(ValueLayout.JAVA_FLOAT_UNALIGNED);
                    assertThat(List.of(rows[0], rows[1], rows[2], rows[3]))
                            .isEqualTo(qwen ? List.of(0f, 1f, 2f, 3f) : List.of(0f, 2f, 1f, 3f));
                }
            }
        }
    }

    @Test
    void whatGgufCannotSay() throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            PeftAdapter head = PeftAdapter.read(TestData.path("formats/adapters/head"), arena);
            Path file = dir.resolve("no.gguf");
            assertThatThrownBy(() -> GgufAdapter.write(file, head, model("LlamaForCausalLM", true), "head"))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("lm_head, which the model ties");
            AdapterConfig silent = AdapterConfig.of(1, 0, new ModuleFilter.Names(List.of("q_proj")));
            PeftAdapter nothing =
                    new PeftAdapter(silent, Map.of("model.layers.0.self_attn.q_proj", ones(1, 16, arena)));
            assertThatThrownBy(() -> GgufAdapter.write(file, nothing, model("LlamaForCausalLM", false), "zero"))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("zero: lora_alpha is 0");
            AdapterConfig huge = new AdapterConfig(
                    1,
                    1e-30,
                    0,
                    silent.targetModules(),
                    null,
                    Map.of(),
                    Map.of("q_proj", 1e30),
                    false,
                    null,
                    null,
                    null,
                    null,
                    null);
            PeftAdapter beyond = new PeftAdapter(huge, nothing.modules());
            assertThatThrownBy(() -> GgufAdapter.write(file, beyond, model("LlamaForCausalLM", false), "huge"))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("model.layers.0.self_attn.q_proj")
                    .hasMessageContaining("beyond float");
            assertThat(dir).isEmptyDirectory();
        }
    }

    private static LoraWeights ones(int rank, int out, Arena arena) {
        MemorySegment a = arena.allocate(4L * rank * 16, 4);
        MemorySegment b = arena.allocate(4L * rank * out, 4);
        for (long at = 0; at < b.byteSize(); at += 4) {
            b.set(ValueLayout.JAVA_FLOAT, at, 1f);
        }
        return new LoraWeights(rank, 16, out, a, b);
    }

    private ModelConfig model(String architecture, boolean tied) throws IOException {
        Path folder = Files.createTempDirectory("model");
        try {
            return ModelConfig.read(
                    Files.writeString(folder.resolve("config.json"), CONFIG.formatted(architecture, tied)));
        } finally {
            Files.delete(folder.resolve("config.json"));
            Files.delete(folder);
        }
    }
}
