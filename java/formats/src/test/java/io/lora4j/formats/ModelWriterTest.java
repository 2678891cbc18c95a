package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

/** tiny-llama in other formats, beside what bitsandbytes and the gguf package make of its weights. */
class ModelWriterTest {
    private static final Path TINY = TestData.path("tiny-llama");
    private static final String Q = "model.layers.0.self_attn.q_proj.weight";

    @TempDir
    Path dir;

    private Device device;
    private Queue queue;

    @BeforeEach
    void open() {
        device = Device.cpu();
        queue = Queue.create(device);
    }

    @AfterEach
    void close() {
        queue.close();
        device.close();
    }

    @ParameterizedTest
    @EnumSource(BitsAndBytes.Type.class)
    void bitsAndBytesHasTheOwnersBytes(BitsAndBytes.Type type) throws IOException {
        String key = type.name().toLowerCase(java.util.Locale.ROOT);
        JsonNode expected = TestData.json("quant/conversion.json").path(key);
        Path out = dir.resolve("model");
        List<TensorReport> reports = quantize(out, new BitsAndBytes(type, 64, false, "bfloat16", List.of()));
        try (Checkpoint written = Checkpoint.open(out);
                Checkpoint source = Checkpoint.open(TINY)) {
            int compared = 0;
            for (Map.Entry<String, JsonNode> tensor : expected.properties()) {
                String name = tensor.getKey();
                if (name.endsWith(".quant_state")) {
                    byte[] state = written.data(name + ".bitsandbytes__" + key).toArray(ValueLayout.JAVA_BYTE);
                    assertThat(new String(state, StandardCharsets.UTF_8))
                            .isEqualTo(tensor.getValue().stringValue());
                } else {
                    assertThat(sha(written.data(name)))
                            .as(name)
                            .isEqualTo(tensor.getValue().stringValue());
                }
                compared++;
            }
            assertThat(compared).isEqualTo(56 * (type == BitsAndBytes.Type.INT8 ? 2 : 4));
            // The rest is as it was.
            for (TensorInfo info : source.tensors().values()) {
                if (!info.name().endsWith("_proj.weight")) {
                    assertThat(written.tensor(info.name()).typeName()).isEqualTo("BF16");
                    assertThat(written.data(info.name()).mismatch(source.data(info.name())))
                            .isEqualTo(-1);
                }
            }
            assertThat(written.tensors())
                    .hasSize(source.tensors().size() + 56 * (type == BitsAndBytes.Type.INT8 ? 2 : 3));
        }
        assertThat(reports).hasSize(74);
        for (TensorReport report : reports) {
            if (report.name().endsWith("_proj.weight")) {
                assertThat(report.type()).isEqualTo(type.name());
                double fine = type == BitsAndBytes.Type.INT8 ? 0.02 : 0.15;
                assertThat(report.relativeRms()).isBetween(fine / 20, fine);
            } else {
                assertThat(report.maxError()).isZero();
            }
        }
        JsonNode config = TestData.parse(Files.readString(out.resolve("config.json")));
        JsonNode quantization = config.path("quantization_config");
        assertThat(quantization.path("quant_method").stringValue()).isEqualTo("bitsandbytes");
        assertThat(quantization.path("load_in_4bit").booleanValue()).isEqualTo(type != BitsAndBytes.Type.INT8);
        assertThat(quantization.path("llm_int8_skip_modules").toString()).isEqualTo("[\"lm_head\"]");
        assertThat(config.path("rms_norm_eps").doubleValue()).isEqualTo(1e-5);
        assertThat(out.resolve("tokenizer.json")).hasSameBinaryContentAs(TINY.resolve("tokenizer.json"));
        assertThat(out.resolve("chat_template.jinja")).hasSameBinaryContentAs(TINY.resolve("chat_template.jinja"));
    }

    @Test
    void doubleQuantizationAndSkippedModules() throws IOException {
        Path out = dir.resolve("model");
        quantize(out, new BitsAndBytes(BitsAndBytes.Type.NF4, 128, true, "float32", List.of("down_proj", "layers.1")));
        try (Checkpoint written = Checkpoint.open(out)) {
            Map<String, TensorInfo> tensors = written.tensors();
            assertThat(written.tensor(Q).shape()).containsExactly(192L * 192 / 2, 1L);
            assertThat(written.tensor(Q + ".absmax").typeName()).isEqualTo("U8");
            assertThat(written.tensor(Q + ".absmax").shape()).containsExactly(192L * 192 / 128);
            assertThat(written.tensor(Q + ".nested_absmax").shape()).containsExactly(2L);
            assertThat(written.tensor(Q + ".nested_quant_map").shape()).containsExactly(256L);
            byte[] state = written.data(Q + ".quant_state.bitsandbytes__nf4").toArray(ValueLayout.JAVA_BYTE);
            JsonNode json = TestData.parse(new String(state, StandardCharsets.UTF_8));
            assertThat(json.path("blocksize").intValue()).isEqualTo(128);
            assertThat(json.path("nested_blocksize").intValue()).isEqualTo(256);
            assertThat(json.path("shape").toString()).isEqualTo("[192,192]");
            // The offset is the mean of the largest of 128 weights.
            double offset = json.path("nested_offset").doubleValue();
            assertThat(offset).isBetween(0.01, 10.0);
            assertThat(tensors.keySet().stream().filter(name -> name.endsWith("absmax")))
                    .noneMatch(name -> name.contains("down_proj"))
                    .hasSize(2 * 6 * 8);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"Q4_0", "Q4_1", "Q5_0", "Q8_0", "F32"})
    void ggufHasTheOwnersBytes(String name) throws IOException {
        GgmlType type = GgmlType.valueOf(name);
        JsonNode golden = TestData.json("quant/conversion.json");
        Path file = dir.resolve("tiny.gguf");
        List<TensorReport> reports = gguf(file, type);
        try (GgufFile written = GgufFile.open(file)) {
            assertThat(written.tensors()).hasSize(74);
            assertThat(reports).hasSize(74);
            for (TensorInfo info : written.tensors().values()) {
                // The tied embedding gets Q8_0: Q6_K's blocks of 256 do not divide its rows of 192.
                boolean finer = info.name().equals("token_embd.weight") && type != GgmlType.F32;
                String stored = info.shape().size() == 1 ? "F32" : finer ? "Q8_0" : name;
                assertThat(info.typeName()).isEqualTo(stored);
                String key = stored.equals("F32") ? "gguf_f32" : stored.toLowerCase(java.util.Locale.ROOT);
                MemorySegment bytes = segment(file).asSlice(info.offset(), info.bytes());
                assertThat(sha(bytes))
                        .as(info.name())
                        .isEqualTo(golden.path(key).path(info.name()).stringValue());
            }
            assertThat(written.values())
                    .containsEntry("general.architecture", "llama")
                    .containsEntry("llama.block_count", 8L)
                    .containsEntry("llama.attention.head_count_kv", 2L)
                    .containsEntry("llama.rope.freq_base", 10000.0)
                    .containsEntry("tokenizer.ggml.pre", "gpt-2")
                    .containsEntry("tokenizer.ggml.bos_token_id", 0L)
                    .containsEntry("tokenizer.ggml.add_bos_token", true)
                    .containsEntry("tokenizer.ggml.add_eos_token", false)
                    .containsEntry("tokenizer.chat_template", Files.readString(TINY.resolve("chat_template.jinja")));
            List<?> tokens = (List<?>) written.values().get("tokenizer.ggml.tokens");
            List<?> types = (List<?>) written.values().get("tokenizer.ggml.token_type");
            assertThat(tokens).hasSize(2048);
            assertThat(tokens.get(0)).isEqualTo("<|begin_of_text|>");
            assertThat(types.get(0)).isEqualTo(3L);
            assertThat(((List<?>) written.values().get("tokenizer.ggml.merges")).get(1))
                    .isEqualTo("Ġ t");
        }
    }

    @Test
    void kQuantsWhereRowsAreNoWholeBlocks() throws IOException {
        List<TensorReport> reports = gguf(dir.resolve("tiny.gguf"), GgmlType.Q4_K);
        for (TensorReport report : reports) {
            // Rows of 512 are whole blocks of 256, rows of 192 are not: Q4_K becomes Q5_0 there, and the head's Q6_K
            // Q8_0.
            String expected = report.shape().size() == 1
                    ? "F32"
                    : report.name().equals("token_embd.weight")
                            ? "Q8_0"
                            : report.name().endsWith("ffn_down.weight") ? "Q4_K" : "Q5_0";
            assertThat(report.type()).as(report.name()).isEqualTo(expected);
        }
        JsonNode golden = TestData.json("quant/conversion.json").path("q5_0");
        try (GgufFile written = GgufFile.open(dir.resolve("tiny.gguf"))) {
            assertThat(sha(written.data("blk.3.attn_q.weight")))
                    .isEqualTo(golden.path("blk.3.attn_q.weight").stringValue());
        }
    }

    /** A GGUF file as a folder, and that as a GGUF file again: every matrix has its bytes, and the tokenizer its tokens. */
    @Test
    void ggufToAFolderAndBack() throws IOException {
        Path file = dir.resolve("tiny.gguf");
        gguf(file, GgmlType.Q8_0);
        Path folder = dir.resolve("folder");
        try (ModelValues values = StoredValues.open(file, queue)) {
            ModelWriter.dense(folder, values, file, DType.F32, queue, (model, reports) -> {});
        }
        ModelConfig expected = ModelConfig.read(file);
        ModelConfig config = ModelConfig.read(folder);
        assertThat(config.expectedTensors()).isEqualTo(expected.expectedTensors());
        assertThat(config.rope()).isEqualTo(expected.rope());
        assertThat(config.eosTokenIds()).isEqualTo(expected.eosTokenIds());
        try (Tokenizer tokenizer = Tokenizer.open(folder);
                Tokenizer original = Tokenizer.open(TINY)) {
            String text = "One day, a fox said: \"I'm 12 years old!\"\n\n  Then 你好.";
            assertThat(tokenizer.encode(text, true)).isEqualTo(original.encode(text, true));
            assertThat(tokenizer.chatTemplate()).isEqualTo(original.chatTemplate());
        }
        Path again = dir.resolve("again.gguf");
        try (ModelValues values = StoredValues.open(folder, queue)) {
            GgufModelWriter.write(again, values, folder, GgmlType.Q8_0, "tiny", queue, (model, reports) -> {});
        }
        try (GgufFile first = GgufFile.open(file);
                GgufFile second = GgufFile.open(again)) {
            assertThat(second.values()).isEqualTo(first.values());
            for (String name : first.tensors().keySet()) {
                assertThat(second.data(name).mismatch(first.data(name)))
                        .as(name)
                        .isEqualTo(-1);
            }
        }
    }

    @Test
    void denseAndBack() throws IOException {
        Path wide = dir.resolve("wide");
        try (ModelValues values = StoredValues.open(TINY, queue)) {
            ModelWriter.dense(wide, values, TINY, DType.F32, queue, (model, reports) -> {});
        }
        assertThat(TestData.parse(Files.readString(wide.resolve("config.json")))
                        .path("dtype")
                        .stringValue())
                .isEqualTo("float32");
        Path narrow = dir.resolve("narrow");
        try (ModelValues values = StoredValues.open(wide, queue)) {
            ModelWriter.dense(narrow, values, wide, DType.BF16, queue, (model, reports) -> {});
        }
        try (Checkpoint source = Checkpoint.open(TINY);
                Checkpoint back = Checkpoint.open(narrow)) {
            for (String name : source.tensors().keySet()) {
                assertThat(back.data(name).mismatch(source.data(name))).as(name).isEqualTo(-1);
            }
        }
    }

    @Test
    void mergedRowsAreTheWeightPlusTheUpdate() throws IOException {
        try (Arena arena = Arena.ofShared()) {
            PeftAdapter adapter = PeftAdapter.read(TestData.path("golden/tiny-llama/adapters/default"), arena);
            try (ModelValues base = StoredValues.open(TINY, queue);
                    ModelValues merged = new MergedValues(StoredValues.open(TINY, queue), adapter, queue)) {
                for (Map.Entry<String, LoraWeights> module : adapter.modules().entrySet()) {
                    LoraWeights w = module.getValue();
                    Tensor before = Tensor.allocate(arena, DType.F32, w.outFeatures() - 5, w.inFeatures());
                    Tensor after = Tensor.allocate(arena, DType.F32, w.outFeatures() - 5, w.inFeatures());
                    base.read(module.getKey() + ".weight", 5, before);
                    merged.read(module.getKey() + ".weight", 5, after);
                    double scaling = adapter.config().scaling(module.getKey());
                    for (long i : new long[] {0, 1, w.outFeatures() - 6}) {
                        for (long j = 0; j < w.inFeatures(); j += 7) {
                            double update = 0;
                            for (int r = 0; r < w.rank(); r++) {
                                update += (double) w.b().get(ValueLayout.JAVA_FLOAT, 4 * ((i + 5) * w.rank() + r))
                                        * w.a().get(ValueLayout.JAVA_FLOAT, 4 * (r * w.inFeatures() + j));
                            }
                            double expected = before.getDouble(i, j) + scaling * update;
                            assertThat(after.getDouble(i, j))
                                    .isCloseTo(expected, org.assertj.core.api.Assertions.offset(1e-6));
                        }
                    }
                }
                Tensor norm = Tensor.allocate(arena, DType.F32, 192, 1);
                Tensor same = Tensor.allocate(arena, DType.F32, 192, 1);
                base.read("model.norm.weight", 0, norm);
                merged.read("model.norm.weight", 0, same);
                assertThat(same.toFloatArray()).isEqualTo(norm.toFloatArray());
            }
        }
    }

    @Test
    void badValuesAreNamedAndNothingIsLeft() throws IOException {
        Path model = Files.createDirectory(dir.resolve("spoilt"));
        for (String file : List.of("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")) {
            Files.copy(TINY.resolve(file), model.resolve(file));
        }
        long at;
        try (Checkpoint source = Checkpoint.open(model)) {
            at = source.tensor(Q).offset() + 2 * (192 * 3 + 7);
        }
        byte[] bytes = Files.readAllBytes(model.resolve("model.safetensors"));
        bytes[(int) at] = (byte) 0xC0;
        bytes[(int) at + 1] = 0x7F; // NaN in bf16
        Files.write(model.resolve("model.safetensors"), bytes);
        Path out = dir.resolve("out");
        try (ModelValues values = StoredValues.open(model, queue)) {
            for (GgmlType type : List.of(GgmlType.Q4_0, GgmlType.F16)) {
                assertThatThrownBy(() -> GgufModelWriter.write(out, values, model, type, "x", queue, (m, r) -> {}))
                        .isInstanceOf(FormatException.class)
                        .hasMessageContaining(Q + " holds NaN at row 3, column 7");
            }
            BitsAndBytes nf4 = new BitsAndBytes(BitsAndBytes.Type.NF4, 64, false, "float32", List.of());
            assertThatThrownBy(() -> ModelWriter.bitsAndBytes(out, values, model, nf4, queue, (m, r) -> {}))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining(Q + " holds NaN at row 3, column 7");
        }
        try (ModelValues values = StoredValues.open(TINY, queue)) {
            assertThatThrownBy(() -> ModelWriter.dense(out, values, TINY, null, queue, (m, r) -> {
                        throw new FormatException("no");
                    }))
                    .hasMessage("no");
        }
        try (var left = Files.list(dir)) {
            assertThat(left).containsExactly(model);
        }
    }

    @Test
    void tokenizersThatLlamaCppCutsOtherwise() throws IOException {
        Path model = Files.createDirectory(dir.resolve("other"));
        for (String file : List.of("config.json", "tokenizer_config.json", "model.safetensors")) {
            Files.copy(TINY.resolve(file), model.resolve(file));
        }
        String json = Files.readString(TINY.resolve("tokenizer.json"));
        String[][] changes = {
            {"\"byte_fallback\": false", "\"byte_fallback\": true", "model.unk_token is missing"},
            {"\"ignore_merges\": false", "\"ignore_merges\": true", "ignore_merges"},
            {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "splits text by"},
        };
        for (String[] change : changes) {
            String changed = json.replaceFirst(change[0], change[1]);
            assertThat(changed).as(change[0]).isNotEqualTo(json);
            Files.writeString(model.resolve("tokenizer.json"), changed);
            try (ModelValues values = StoredValues.open(model, queue)) {
                assertThatThrownBy(() -> GgufModelWriter.write(
                                dir.resolve("no.gguf"), values, model, GgmlType.F32, "x", queue, (m, r) -> {}))
                        .isInstanceOf(FormatException.class)
                        .hasMessageContaining(change[2]);
            }
        }
    }

    private List<TensorReport> quantize(Path out, BitsAndBytes how) throws IOException {
        try (ModelValues values = StoredValues.open(TINY, queue)) {
            return ModelWriter.bitsAndBytes(out, values, TINY, how, queue, (model, reports) -> {});
        }
    }

    private List<TensorReport> gguf(Path file, GgmlType type) throws IOException {
        try (ModelValues values = StoredValues.open(TINY, queue)) {
            return GgufModelWriter.write(file, values, TINY, type, "tiny", queue, (model, reports) -> {});
        }
    }

    private static MemorySegment segment(Path file) throws IOException {
        return MemorySegment.ofArray(Files.readAllBytes(file));
    }

    private static String sha(MemorySegment data) {
        try {
            return HexFormat.of()
                    .formatHex(MessageDigest.getInstance("SHA-256").digest(data.toArray(ValueLayout.JAVA_BYTE)));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }
}
