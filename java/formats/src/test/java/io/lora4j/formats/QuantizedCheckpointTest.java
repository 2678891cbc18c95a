package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.ModelModule.Kind;
import io.lora4j.formats.Quantization.Method;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.node.ObjectNode;

/** Checkpoints of bitsandbytes, GPTQ, AWQ and FP8, right and wrong. What they compute, the tests of the models say. */
class QuantizedCheckpointTest {
    private static final Path FAMILIES =
            Path.of(System.getProperty("lora4j.root"), "java/train/src/test/resources/io/lora4j/train/model/families");
    private static final String LAYER = "model.layers.1.mlp.up_proj";

    @TempDir
    Path dir;

    @Test
    void handsOutThePartsOfEachMethod() throws IOException {
        assertThat(parts("nf4", Scheme.NF4))
                .containsOnlyKeys(Part.VALUES, Part.SCALES, Part.BLOCK_SIZE, Part.QUANT_MAP);
        Map<Part, List<Long>> doubled = parts("fp4_double", Scheme.FP4);
        assertThat(doubled)
                .containsEntry(Part.VALUES, List.of(80L * 48 / 2))
                .containsEntry(Part.SCALES, List.of(60L))
                .containsEntry(Part.NESTED_SCALES, List.of(1L))
                .containsKeys(Part.NESTED_QUANT_MAP, Part.NESTED_OFFSET, Part.NESTED_BLOCK_SIZE);
        assertThat(parts("llm_int8", Scheme.LLM_INT8)).containsOnlyKeys(Part.VALUES, Part.SCALES);
        assertThat(parts("gptq", Scheme.GPTQ)).containsEntry(Part.VALUES, List.of(6L, 80L));
        assertThat(parts("gptq_v2", Scheme.GPTQ_V2)).containsEntry(Part.GROUP_INDEX, List.of(48L));
        assertThat(parts("awq", Scheme.AWQ)).containsEntry(Part.VALUES, List.of(48L, 10L));
    }

    private Map<Part, List<Long>> parts(String family, Scheme scheme) throws IOException {
        try (ModelWeights weights = ModelWeights.open(FAMILIES.resolve(family));
                Arena arena = Arena.ofConfined()) {
            StoredWeight stored = weights.matrix(LAYER, arena);
            assertThat(stored.scheme()).isEqualTo(scheme);
            assertThat(weights.matrix("model.embed_tokens", arena).scheme()).isEqualTo(Scheme.DENSE);
            Map<Part, List<Long>> shapes = new LinkedHashMap<>();
            stored.parts().forEach((part, tensor) -> {
                List<Long> shape = new ArrayList<>();
                for (long size : tensor.shape()) {
                    shape.add(size);
                }
                shapes.put(part, shape);
            });
            weights.unload(LAYER);
            return shapes;
        }
    }

    /** {@code bnb_4bit_quant_storage}: the same bytes under the name of another type. */
    @Test
    void readsCodesThatAreStoredAsNumbers() throws IOException {
        String name = LAYER + ".weight";
        copy("nf4", t -> t.name().equals(name) ? new NamedTensor(name, DType.BF16, List.of(960L, 1L), t.data()) : t);
        try (ModelWeights weights = ModelWeights.open(dir);
                ModelWeights bytes = ModelWeights.open(FAMILIES.resolve("nf4"));
                Arena arena = Arena.ofConfined()) {
            Tensor codes = weights.matrix(LAYER, arena).values();
            assertThat(codes.dtype()).isEqualTo(DType.U8);
            assertThat(codes.data().mismatch(bytes.matrix(LAYER, arena).values().data()))
                    .isEqualTo(-1);
        }
    }

    @Test
    void leavesOutTheModulesThatTransformersLeavesOut() {
        Quantization none = new Quantization(Quantization.Method.BITSANDBYTES_4BIT, 0, false, List.of());
        ModelModule head = new ModelModule("lm_head", Kind.HEAD, 8, 8, false);
        assertThat(none.covers(head)).isFalse();
        assertThat(none.covers(linear(LAYER))).isTrue();
        assertThat(none.covers(new ModelModule("model.embed_tokens", Kind.EMBEDDING, 8, 8, false)))
                .isFalse();
        Quantization some = new Quantization(
                Quantization.Method.BITSANDBYTES_4BIT,
                0,
                true,
                List.of("up_proj", "model.layers.1", "model\\.layers\\.\\d*4", "mlp.gate"));
        assertThat(some.covers(head)).isTrue();
        assertThat(some.covers(linear(LAYER))).isFalse();
        assertThat(some.covers(linear("model.layers.1.mlp.down_proj"))).isFalse();
        assertThat(some.covers(linear("model.layers.11.mlp.down_proj"))).isTrue();
        assertThat(some.covers(linear("model.layers.14.mlp.down_proj"))).isFalse();
        assertThat(some.covers(linear("model.layers.0.mlp.gate_proj"))).isTrue();
    }

    private static ModelModule linear(String name) {
        return ModelModule.linear(name, 8, 8, false);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            nf4  | {"quant_method":"bitsandbytes"}                                | load_in_4bit is false and load_in_8bit false
            nf4  | {"quant_method":"hqq"}                                         | "quant_method" is "hqq"; supported are bitsandbytes
            nf4  | {"load_in_8bit":true}                                          | tensor model.layers.0.self_attn.q_proj.weight is U8 [1152, 1]; expected I8 [48, 48]
            nf4  | {"load_in_4bit":true,"llm_int8_skip_modules":["("]}            | module to leave out: regular expression
            gptq | {"quant_method":"gptq","bits":8,"group_size":16}               | "bits" is 8; supported are 4 bits
            gptq | {"quant_method":"gptq","bits":4,"group_size":32}               | tensor model.layers.0.self_attn.q_proj.qzeros is I32 [3, 6]; expected I32 [2, 6]
            gptq | {"quant_method":"gptq","bits":4,"group_size":0}                | "group_size" is 0.0; expected a positive integer
            gptq | {"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"}  | "checkpoint_format" is "marlin"; supported are gptq and gptq_v2
            gptq | {"quant_method":"gptq","bits":4,"dynamic":{"-:x":{}}}          | "dynamic" is
            gptq | {"quant_method":"gptq","bits":4,"group_size":16,"new_thing":3} | unknown field "new_thing"
            awq  | {"quant_method":"awq","bits":4,"group_size":16,"version":"gemv"} | "version" is "gemv"; supported is "gemm"
            awq  | {"quant_method":"awq","bits":4,"group_size":16,"zero_point":false} | "zero_point" is false
            fp8  | {"quant_method":"fp8","weight_block_size":[64,64]}             | "weight_block_size" is [64,64]; supported is [128, 128]
            """)
    void refusesConfigs(String family, String config, String message) throws IOException {
        copy(family, UnaryOperator.identity());
        ObjectNode json = Json.readObject(dir.resolve("config.json"));
        json.set("quantization_config", Json.parseObject(config.getBytes(StandardCharsets.UTF_8), "test"));
        Files.writeString(dir.resolve("config.json"), json.toString());
        refused(message);
    }

    @Test
    void refusesWhatALayerOfBitsandbytesMayNotBe() throws IOException {
        String state = LAYER + ".weight.quant_state.bitsandbytes__nf4";
        String absmax = LAYER + ".weight.absmax";
        changed("nf4", absmax, t -> null, "tensor " + absmax + " is missing");
        changed("nf4", absmax, t -> first(t, 59), absmax + " is F32 [59]; expected F32 [60]");
        changed(
                "nf4",
                LAYER + ".weight",
                t -> first(t, 1919),
                "has 1919 bytes (U8 [1919]); the 4-bit codes of [80, 48] take 1920");
        changed("nf4", state, t -> null, LAYER + ".weight has no quant_state");
        changed("nf4", state, t -> text(t, "64", "48"), "\"blocksize\" is 48; expected a power of two from 32 to 4096");
        changed("nf4", state, t -> text(t, "80", "96"), "\"shape\" is [96, 48]; config.json implies [80, 48]");
        changed("nf4", state, t -> text(t, "nf4", "fp4"), "\"quant_type\" is fp4; expected nf4");
        changed("nf4", state, t -> text(t, "{", "["), "not valid JSON");
        changed("nf4_double", state, t -> text(t, "nested_offset", "nested_other"), "\"nested_offset\" is missing");
        changed(
                "nf4_double",
                state,
                t -> text(t, "\"nested_offset\": ", "\"nested_offset\": 1e300, \"was\": "),
                "\"nested_offset\" is 1.0E300; expected a float32 number");
        changed(
                "nf4_double",
                state,
                t -> text(t, "\"nested_blocksize\": 256", "\"nested_blocksize\": 8192"),
                "\"nested_blocksize\" is 8192; expected a power of two from 32 to 4096");
        changed("nf4_double", LAYER + ".weight.nested_absmax", t -> null, "nested_absmax is missing");
        changed(
                "nf4_double",
                absmax,
                t -> new NamedTensor(t.name(), DType.I8, t.shape(), t.data()),
                "expected U8 [60]");
        changed("llm_int8", LAYER + ".SCB", t -> null, LAYER + ".SCB is missing");
        changed(
                "llm_int8",
                LAYER + ".weight_format",
                QuantizedCheckpointTest::ones,
                "weight_format is 1; supported is 0");
    }

    @Test
    void refusesWhatALayerOfIntegersMayNotBe() throws IOException {
        changed("gptq", LAYER + ".qweight", t -> null, LAYER + ".qweight is missing");
        changed("gptq", LAYER + ".scales", t -> first(t, 2), ".scales is F16 [2]; expected F32 or F16 or BF16 [3, 80]");
        changed(
                "gptq_v2",
                LAYER + ".g_idx",
                QuantizedCheckpointTest::ones,
                LAYER + ".g_idx holds 16843009 at element 0; expected 0 to 2");
        // A bias that the model does not have may only be zero.
        changed(
                "gptq",
                "model.layers.1.self_attn.o_proj.bias",
                QuantizedCheckpointTest::ones,
                "unexpected model.layers.1.self_attn.o_proj.bias");
    }

    /** Eight codes make a word, and groups are whole, unless an index says what belongs to which. */
    @Test
    void refusesLayersThatWordsAndGroupsDoNotDivide() throws IOException {
        layer(Method.GPTQ, 16, 20, 0, "qweight is of a layer with 20 in-features; expected a multiple of 8");
        layer(Method.AWQ, 20, 16, 0, "qweight is of a layer with 20 out-features; expected a multiple of 8");
        for (Method method : List.of(Method.GPTQ, Method.GPTQ_V2, Method.AWQ)) {
            layer(
                    method,
                    16,
                    48,
                    20,
                    "scales are of groups of 20 (group_size in config.json), which do not divide the 48");
            layer(method, 16, 48, 64, "qweight is missing");
        }
    }

    private void layer(Method method, long out, long in, int groupSize, String message) throws IOException {
        Path file = dir.resolve("layer.safetensors");
        SafetensorsWriter.write(file, List.of(), Map.of());
        Quantization quantization = new Quantization(method, groupSize, false, List.of());
        try (Checkpoint checkpoint = Checkpoint.open(file)) {
            assertThatThrownBy(() ->
                            QuantizedLayer.find(quantization, checkpoint, ModelModule.linear("m", out, in, false)))
                    .isInstanceOf(FormatException.class)
                    .hasMessageStartingWith(file + ": tensor m.")
                    .hasMessageContaining(message);
        }
    }

    /** A pattern that takes for ever, from a config that came with the model. */
    @Test
    void givesUpOnPatternsThatNeverEnd() throws IOException {
        copy("nf4", UnaryOperator.identity());
        ObjectNode json = Json.readObject(dir.resolve("config.json"));
        json.withObject("/quantization_config")
                .putArray("llm_int8_skip_modules")
                .add("((.|.)*)*!");
        Files.writeString(dir.resolve("config.json"), json.toString());
        refused("modules to leave out: regular expression");
    }

    /** Scales that are no numbers are found when the weight is read, and reported as what they are of. */
    @ParameterizedTest
    @CsvSource({"nf4, weight.absmax", "nf4_double, weight.nested_absmax", "llm_int8, SCB", "gptq, scales", "awq, scales"
    })
    void refusesScalesThatAreNotFinite(String family, String part) throws IOException {
        String name = LAYER + "." + part;
        copy(family, t -> {
            byte[] bytes = t.data().toArray(ValueLayout.JAVA_BYTE);
            if (t.name().equals(name)) {
                java.util.Arrays.fill(bytes, 0, 4, (byte) 0xFF);
            }
            return new NamedTensor(t.name(), t.dtype(), t.shape(), MemorySegment.ofArray(bytes));
        });
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device);
                StoredValues values = StoredValues.open(dir, queue);
                Arena arena = Arena.ofConfined()) {
            Tensor row = Tensor.allocate(arena, DType.F32, 1, 48);
            assertThatThrownBy(() -> values.read(LAYER + ".weight", 0, row))
                    .isInstanceOf(FormatException.class)
                    .hasMessageStartingWith(dir.toString())
                    .hasMessageContaining("tensor " + LAYER + ".weight holds a NaN or infinite value (")
                    .hasMessageContaining("the file is damaged");
        }
    }

    private static NamedTensor first(NamedTensor t, long count) {
        return new NamedTensor(
                t.name(),
                t.dtype(),
                List.of(count),
                t.data().asSlice(0, count * t.dtype().bytes()));
    }

    private static NamedTensor ones(NamedTensor t) {
        byte[] bytes = new byte[(int) t.data().byteSize()];
        java.util.Arrays.fill(bytes, (byte) 1);
        return new NamedTensor(t.name(), t.dtype(), t.shape(), MemorySegment.ofArray(bytes));
    }

    private static NamedTensor text(NamedTensor t, String from, String to) {
        String json = new String(t.data().toArray(ValueLayout.JAVA_BYTE), StandardCharsets.UTF_8);
        assertThat(json).contains(from);
        byte[] bytes = json.replace(from, to).getBytes(StandardCharsets.UTF_8);
        return new NamedTensor(t.name(), t.dtype(), List.of((long) bytes.length), MemorySegment.ofArray(bytes));
    }

    /** @param change null leaves the tensor out */
    private void changed(String family, String name, UnaryOperator<NamedTensor> change, String message)
            throws IOException {
        boolean[] found = {false};
        copy(family, t -> {
            found[0] |= t.name().equals(name);
            return t.name().equals(name) ? change.apply(t) : t;
        });
        assertThat(found[0]).as(name).isTrue();
        refused(message);
    }

    private void copy(String family, UnaryOperator<NamedTensor> change) throws IOException {
        Files.copy(
                FAMILIES.resolve(family).resolve("config.json"),
                dir.resolve("config.json"),
                java.nio.file.StandardCopyOption.REPLACE_EXISTING);
        if (family.equals("fp8")) {
            return; // Its config is refused before its weights, whose type cannot be written.
        }
        try (Checkpoint checkpoint = Checkpoint.open(FAMILIES.resolve(family))) {
            List<NamedTensor> tensors = new ArrayList<>();
            for (TensorInfo info : checkpoint.tensors().values()) {
                NamedTensor tensor = change.apply(
                        new NamedTensor(info.name(), info.dtype(), info.shape(), checkpoint.data(info.name())));
                if (tensor != null) {
                    tensors.add(tensor);
                }
            }
            SafetensorsWriter.write(dir.resolve("model.safetensors"), tensors, Map.of());
        }
    }

    private void refused(String message) {
        assertThatThrownBy(() -> ModelWeights.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(dir.toString())
                .hasMessageContaining(message);
    }
}
