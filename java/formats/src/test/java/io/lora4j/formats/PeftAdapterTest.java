package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

class PeftAdapterTest {
    private static final String A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    private static final String B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

    @TempDir
    Path dir;

    private Arena arena;
    private Map<String, ModelModule> modules;

    @BeforeEach
    @SuppressWarnings("MustBeClosed") // Closed after each test.
    void open() throws IOException {
        arena = Arena.ofConfined();
        // The model of make_adapters.py.
        Path config = Bytes.write(
                dir.resolve("base/config.json"),
                "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":64,\"hidden_size\":16,\"intermediate_size\":24,"
                        + "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                        + "\"max_position_embeddings\":64}");
        modules = ModelConfig.read(config).modules();
    }

    @AfterEach
    void close() {
        arena.close();
    }

    private static Path golden(String name) {
        return TestData.path("formats/adapters/" + name);
    }

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
    void readsWhatPeftWrote(String name) throws IOException {
        PeftAdapter adapter = PeftAdapter.read(golden(name), arena);
        adapter.requireFits(name, modules);
        JsonNode expected = TestData.json("formats/adapters/" + name + "/expected.json");
        assertThat(adapter.modules().keySet()).containsExactlyInAnyOrderElementsOf(expected.propertyNames());
        for (Map.Entry<String, LoraWeights> entry : adapter.modules().entrySet()) {
            JsonNode e = expected.get(entry.getKey());
            LoraWeights w = entry.getValue();
            assertThat(w.rank()).isEqualTo(e.get("r").intValue());
            assertThat(adapter.config().alpha(entry.getKey()))
                    .isEqualTo(e.get("alpha").doubleValue());
            assertThat(adapter.config().scaling(entry.getKey()))
                    .isCloseTo(e.get("scaling").doubleValue(), within(1e-15));
            check(w.a(), w.rank(), w.inFeatures(), e.get("a"));
            check(w.b(), w.outFeatures(), w.rank(), e.get("b"));
        }
    }

    private static void check(MemorySegment data, long rows, long columns, JsonNode expected) {
        assertThat(rows).isEqualTo(expected.get(0).longValue());
        assertThat(columns).isEqualTo(expected.get(1).longValue());
        float[] values = data.toArray(ValueLayout.JAVA_FLOAT);
        assertThat((double) values[0]).isEqualTo(expected.get(2).doubleValue());
        assertThat((double) values[values.length - 1]).isEqualTo(expected.get(3).doubleValue());
        double sum = 0;
        for (float value : values) {
            sum += value;
        }
        assertThat(sum).isCloseTo(expected.get(4).doubleValue(), within(1e-12));
    }

    @ParameterizedTest
    @ValueSource(strings = {"plain", "rslora", "patterns", "regex", "layers", "exclude", "head"})
    void writesPeftsTensorFileByteForByte(String name) throws IOException {
        PeftAdapter adapter = PeftAdapter.read(golden(name), arena);
        Path out = dir.resolve("out/" + name);
        adapter.write(out);
        assertThat(out.resolve(PeftAdapter.FILE_NAME))
                .hasSameBinaryContentAs(golden(name).resolve(PeftAdapter.FILE_NAME));
        PeftAdapter again = PeftAdapter.read(out, arena);
        assertThat(again.config()).isEqualTo(adapter.config());
        byte[] config = Files.readAllBytes(out.resolve(AdapterConfig.FILE_NAME));
        again.write(out);
        assertThat(out.resolve(AdapterConfig.FILE_NAME)).hasBinaryContent(config);
        try (Stream<Path> files = Files.list(out)) {
            assertThat(files).hasSize(2);
        }
        try (Stream<Path> files = Files.list(dir.resolve("out"))) {
            assertThat(files).hasSize(1);
        }
    }

    /** A directory with PEFT's plain config (rank 4, q_proj and v_proj) and these tensors. */
    private Path adapter(Map<String, List<Long>> tensors, DType dtype, int fill) throws IOException {
        Path out = dir.resolve("bad");
        List<NamedTensor> named = new ArrayList<>();
        tensors.forEach((name, shape) -> {
            long bytes = shape.stream().reduce((long) dtype.bytes(), (a, b) -> a * b);
            byte[] data = new byte[(int) bytes];
            java.util.Arrays.fill(data, (byte) fill);
            named.add(new NamedTensor(name, dtype, shape, MemorySegment.ofArray(data)));
        });
        Files.createDirectories(out);
        SafetensorsWriter.write(out.resolve(PeftAdapter.FILE_NAME), named, Map.of());
        Files.copy(
                golden("plain").resolve(AdapterConfig.FILE_NAME),
                out.resolve(AdapterConfig.FILE_NAME),
                java.nio.file.StandardCopyOption.REPLACE_EXISTING);
        return out;
    }

    private void refused(Map<String, List<Long>> tensors, DType dtype, int fill, String message) throws IOException {
        Path bad = adapter(tensors, dtype, fill);
        assertThatThrownBy(() -> PeftAdapter.read(bad, arena))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(bad.resolve(PeftAdapter.FILE_NAME).toString())
                .hasMessageContaining(message);
    }

    @Test
    void refusesDamage() throws IOException {
        List<Long> a = List.of(4L, 16L);
        List<Long> b = List.of(16L, 4L);
        refused(Map.of(A, a), DType.F32, 0, "has no partner " + B);
        refused(Map.of(A, a, B, b, B.replace("weight", "bias"), List.of(16L)), DType.F32, 0, "is a LoRA bias");
        refused(Map.of("base_model.model.x.lora_embedding_A", a), DType.F32, 0, "is LoRA on an embedding");
        refused(Map.of("base_model.model.x.lora_magnitude_vector", a), DType.F32, 0, "belongs to DoRA");
        refused(Map.of("base_model.model.lm_head.weight", a), DType.F32, 0, "modules_to_save");
        refused(
                Map.of("q.lora_A.weight", a, "q.lora_B.weight", b),
                DType.F32,
                0,
                "expected are only base_model.model.");
        refused(Map.of(), DType.F32, 0, "holds no LoRA tensors");
        refused(Map.of(A, List.of(2L, 16L), B, List.of(16L, 2L)), DType.F32, 0, "gives it rank 4");
        refused(Map.of(A, List.of(4L), B, b), DType.F32, 0, "expected a matrix");
        refused(Map.of("base_model.model.lm_head.base_layer.weight", a), DType.F32, 0, "save_embedding_layers=False");
        refused(Map.of(A, a, B, b), DType.I32, 0, "has dtype I32; supported for adapters are F32, F16 and BF16");
        refused(Map.of(A, a, B, b), DType.F32, 0xFF, "holds NaN at element 0; expected finite numbers");
    }

    @Test
    void refusesAnAdapterOfAnotherBase() throws IOException {
        Map<String, List<Long>> tensors = new LinkedHashMap<>();
        for (String name : List.of("q_proj", "v_proj")) {
            for (int layer = 0; layer < 3; layer++) {
                String module = "base_model.model.model.layers." + layer + ".self_attn." + name;
                tensors.put(module + ".lora_A.weight", List.of(4L, 32L));
                tensors.put(module + ".lora_B.weight", List.of(16L, 4L));
            }
        }
        PeftAdapter wide = PeftAdapter.read(adapter(tensors, DType.F32, 0), arena);
        assertThatThrownBy(() -> wide.requireFits("dir/adapter", modules))
                .isInstanceOf(FormatException.class)
                .hasMessage(
                        "dir/adapter: adapts model.layers.0.self_attn.q_proj as a layer of [out 16, in 32], but the model's"
                                + " has [out 16, in 16]; the adapter is of another base model");
        PeftAdapter named = new PeftAdapter(wide.config().withBaseModel("org/other-base", null), wide.modules());
        assertThatThrownBy(() -> named.requireFits("dir/adapter", modules))
                .hasMessageEndingWith("the adapter is of another base model (its config names org/other-base)");
        PeftAdapter plain = PeftAdapter.read(golden("plain"), arena);
        Map<String, ModelModule> renamed = new LinkedHashMap<>();
        modules.forEach((name, module) -> renamed.put("other." + name, module));
        assertThatThrownBy(() -> plain.requireFits("a", renamed))
                .hasMessageContaining("adapts module model.layers.0.self_attn.q_proj, which the model does not have");
        Map<String, LoraWeights> fewer = new LinkedHashMap<>(plain.modules());
        fewer.remove("model.layers.2.self_attn.v_proj");
        assertThatThrownBy(() -> new PeftAdapter(plain.config(), fewer).requireFits("a", modules))
                .hasMessageContaining(
                        "targets model.layers.2.self_attn.v_proj, but adapter_model.safetensors has no tensors");
    }

    @Test
    void namesMissingAndPickledFiles() throws IOException {
        assertThatThrownBy(() -> PeftAdapter.read(dir.resolve("none"), arena))
                .hasMessageContaining("adapter_config.json: no such file");
        Path out = adapter(Map.of(), DType.F32, 0);
        Files.delete(out.resolve(PeftAdapter.FILE_NAME));
        assertThatThrownBy(() -> PeftAdapter.read(out, arena))
                .hasMessageContaining("adapter_model.safetensors: no such file");
        Bytes.write(out.resolve("adapter_model.bin"), "PK");
        assertThatThrownBy(() -> PeftAdapter.read(out, arena))
                .hasMessageContaining("adapter_model.bin: is a pickled PyTorch file")
                .hasMessageContaining("safe_serialization=True");
    }
}
