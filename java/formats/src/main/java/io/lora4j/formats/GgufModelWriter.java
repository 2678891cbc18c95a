package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes a model as a GGUF file that llama.cpp runs: hyper-parameters, tokenizer and chat template in its metadata, tensors by its
 * names, rows of Llama's query and key projections interleaved, no output tensor where it is tied.
 *
 * <p>Matrices get the type asked for. As llama-quantize has it, vectors stay F32, and the output head, or the embedding where it is
 * tied, gets Q6_K unless Q8_0 or a dense type was asked for. Rows that are no whole blocks of 256 get Q8_0, and rows that are no whole
 * blocks of 32 get F16; each tensor's report says what it got.
 */
public final class GgufModelWriter {
    private static final String ROPE_FREQS = "rope_freqs.weight";
    private static final String EMBEDDING = "model.embed_tokens.weight";
    private static final String HEAD = "lm_head.weight";

    private final ModelValues values;
    private final ModelConfig config;
    private final Queue queue;
    private final GgmlType type;
    /** Hugging Face's names by the file's. */
    private final Map<String, String> origin = new LinkedHashMap<>();

    private final List<TensorReport> reports = new ArrayList<>();

    private GgufModelWriter(ModelValues values, GgmlType type, Queue queue) {
        this.values = values;
        this.config = values.config();
        this.type = type;
        this.queue = queue;
    }

    /**
     * Writes a file whole or not at all.
     *
     * @param file the file to create or replace
     * @param dir the folder with the tokenizer's files
     * @param type F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K or Q6_K
     * @param name the model's name, {@code general.name}
     * @param check looks at the file when it is complete but does not have its name yet
     * @throws FormatException if the model or its tokenizer cannot be expressed, or a value is not finite
     */
    public static List<TensorReport> write(
            Path file, ModelValues values, Path dir, GgmlType type, String name, Queue queue, ModelWriter.Check check)
            throws IOException {
        GgufMetadata metadata = GgufModelMetadata.of(values.config(), dir, type, name);
        GgufModelWriter writer = new GgufModelWriter(values, type, queue);
        GgufWriter.write(file, metadata, writer.plan(), writer::write, whole -> check.accept(whole, writer.reports));
        return List.copyOf(writer.reports);
    }

    private List<GgufTensor> plan() {
        List<GgufTensor> tensors = new ArrayList<>();
        if (GgufModelMetadata.hasRopeDivisors(config)) {
            tensors.add(new GgufTensor(ROPE_FREQS, GgmlType.F32, List.of(config.headDim() / 2L)));
        }
        config.expectedTensors().forEach((name, shape) -> {
            String ggufName = GgufNames.tensor(name);
            origin.put(ggufName, name);
            tensors.add(new GgufTensor(ggufName, type(name, shape), shape));
        });
        return tensors;
    }

    private GgmlType type(String name, List<Long> shape) {
        if (shape.size() == 1) {
            return GgmlType.F32;
        }
        boolean head = name.equals(HEAD) || (name.equals(EMBEDDING) && config.tieWordEmbeddings());
        boolean finer = head && type.blockSize > 1 && type != GgmlType.Q8_0;
        GgmlType wanted = finer ? GgmlType.Q6_K : type;
        long columns = shape.getLast();
        if (columns % wanted.blockSize == 0) {
            return wanted;
        }
        return columns % GgmlType.Q8_0.blockSize == 0 ? GgmlType.Q8_0 : GgmlType.F16;
    }

    private void write(GgufTensor tensor, TensorSink sink) throws IOException {
        if (tensor.name().equals(ROPE_FREQS)) {
            sink.accept(MemorySegment.ofArray(GgufModelMetadata.ropeDivisors(config)));
            return;
        }
        String name = origin.getOrDefault(tensor.name(), tensor.name());
        int headDim = GgufNames.interleaved(config, name.substring(0, name.lastIndexOf('.')));
        TensorReport.Meter meter = new TensorReport.Meter();
        RowBuffer.forEach(values, name, tensor.shape(), Math.max(1, headDim), (from, rows) -> {
            try (Arena arena = Arena.ofShared()) {
                Tensor ordered = headDim == 0 ? rows : interleave(rows, headDim, arena);
                MemorySegment encoded = GgufQuantization.encode(queue, tensor.type(), ordered, arena, name);
                sink.accept(encoded);
                Tensor decoded = Tensor.allocate(arena, DType.F32, rows.shape());
                GgufQuantization.decode(queue, tensor.type(), encoded, decoded, arena);
                meter.add(ordered.data(), decoded.data());
            }
        });
        reports.add(meter.report(tensor.name(), tensor.type().name(), tensor.shape(), tensor.bytes()));
    }

    private static Tensor interleave(Tensor rows, int headDim, Arena arena) {
        Tensor ordered = Tensor.allocate(arena, DType.F32, rows.shape());
        long bytes = rows.size(1) * DType.F32.bytes();
        for (long place = 0; place < rows.size(0); place++) {
            MemorySegment.copy(
                    rows.data(), GgufNames.row(place, headDim) * bytes, ordered.data(), place * bytes, bytes);
        }
        return ordered;
    }
}
