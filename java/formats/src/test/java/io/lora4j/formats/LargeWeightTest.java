package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Quantize;
import io.lora4j.kernels.QuantizeOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
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
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Weights that are converted a piece at a time. */
class LargeWeightTest {
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

    /** A weight of more values than are held at a time has the bytes of one that is quantized whole. */
    @ParameterizedTest
    @ValueSource(strings = {"NF4", "NF4 nested", "INT8"})
    void largeWeightsAreQuantizedInPieces(String format) throws IOException {
        // Rows of an odd number of values, so that blocks go across rows and pieces.
        int wide = 66_001;
        Path model = large(wide);
        boolean nested = format.endsWith("nested");
        BitsAndBytes.Type type = BitsAndBytes.Type.valueOf(format.split(" ")[0]);
        Path out = dir.resolve("large");
        try (ModelValues values = StoredValues.open(model, queue);
                Arena arena = Arena.ofShared()) {
            ModelWriter.bitsAndBytes(
                    out,
                    values,
                    model,
                    new BitsAndBytes(type, 64, nested, "float32", List.of()),
                    queue,
                    (folder, reports) -> {});
            String name = "model.layers.0.mlp.down_proj.weight";
            Tensor w = Tensor.allocate(arena, DType.F32, 64, wide);
            values.read(name, 0, w);
            Map<String, Tensor> expected = whole(type, nested, w, name, arena);
            try (Checkpoint written = Checkpoint.open(out)) {
                expected.forEach((tensor, data) -> {
                    try {
                        assertThat(written.data(tensor).mismatch(data.data()))
                                .as(tensor)
                                .isEqualTo(-1);
                    } catch (FormatException e) {
                        throw new AssertionError(e);
                    }
                });
            }
        }
    }

    private Map<String, Tensor> whole(BitsAndBytes.Type type, boolean nested, Tensor w, String name, Arena arena) {
        Map<String, Tensor> named = new LinkedHashMap<>();
        Quantize.Builder quantize = Quantize.builder(arena).x(w);
        if (type == BitsAndBytes.Type.INT8) {
            named.put(name, Tensor.allocate(arena, DType.I8, w.shape()));
            named.put(name.replace("weight", "SCB"), Tensor.allocate(arena, DType.F32, w.size(0)));
            quantize.scheme(Scheme.LLM_INT8)
                    .part(Part.VALUES, named.get(name))
                    .part(Part.SCALES, named.get(name.replace("weight", "SCB")));
        } else {
            long blocks = Math.ceilDiv(w.elements(), 64);
            named.put(name, Tensor.allocate(arena, DType.U8, w.elements() / 2));
            named.put(name + ".absmax", Tensor.allocate(arena, nested ? DType.U8 : DType.F32, blocks));
            quantize.scheme(Scheme.NF4)
                    .part(Part.VALUES, named.get(name))
                    .part(Part.SCALES, named.get(name + ".absmax"))
                    .part(Part.BLOCK_SIZE, Tensor.ofLongs(arena, 64));
            if (nested) {
                named.put(name + ".nested_absmax", Tensor.allocate(arena, DType.F32, Math.ceilDiv(blocks, 256)));
                named.put(name + ".nested_quant_map", Tensor.allocate(arena, DType.F32, 256));
                quantize.part(Part.NESTED_SCALES, named.get(name + ".nested_absmax"))
                        .part(Part.NESTED_QUANT_MAP, named.get(name + ".nested_quant_map"))
                        .part(Part.NESTED_OFFSET, Tensor.allocate(arena, DType.F32, 1))
                        .part(Part.NESTED_BLOCK_SIZE, Tensor.ofLongs(arena, 256));
            }
        }
        QuantizeOps.forward(queue, quantize.build());
        return named;
    }

    private Path large(int wide) throws IOException {
        Path model = Files.createDirectory(dir.resolve("wide-model"));
        Files.writeString(model.resolve("config.json"), """
                {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8, "hidden_size": 64,
                 "intermediate_size": %d, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                 "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}
                """.formatted(wide));
        SplittableRandom random = new SplittableRandom(3);
        try (Arena arena = Arena.ofConfined()) {
            List<NamedTensor> tensors = new ArrayList<>();
            ModelConfig.read(model).expectedTensors().forEach((name, shape) -> {
                long count = shape.stream().reduce(1L, Math::multiplyExact);
                MemorySegment data = arena.allocate(2 * count, 64);
                for (long i = 0; i < count; i++) {
                    // Any bf16 from 2⁻¹⁰ to 2⁻³ of both signs.
                    int bits = random.nextInt(0x3A80, 0x3E00) | (random.nextBoolean() ? 0x8000 : 0);
                    data.setAtIndex(ValueLayout.JAVA_SHORT, i, (short) bits);
                }
                tensors.add(new NamedTensor(name, DType.BF16, shape, data));
            });
            SafetensorsWriter.write(model.resolve("model.safetensors"), tensors, Map.of());
        }
        return model;
    }
}
