package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
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
 * tied, gets Q6_K unless Q8_0 or a dense type was asked for. Where rows are no whole blocks of 256, Q4_K becomes Q5_0 and Q6_K Q8_0; where
 * they are no whole blocks of 32 either, F16. Each tensor's report says what it got.
 *
 * <p>A model can also keep the types that its matrices have. Either way a quantized matrix that is not changed and keeps its type is
 * copied byte for byte.
 */
public final class GgufModelWriter {
    private static final String ROPE_FREQS = "rope_freqs.weight";
    private static final String EMBEDDING = "model.embed_tokens.weight";
    private static final String HEAD = "lm_head.weight";

    private final ModelValues values;
    private final ModelConfig config;
    private final Queue queue;
    private final GgmlType type;
    private final boolean like;
    /** Hugging Face's names by the file's. */
    private final Map<String, String> origin = new LinkedHashMap<>();

    private final List<TensorReport> reports = new ArrayList<>();

    private GgufModelWriter(ModelValues values, GgmlType type, boolean like, Queue queue) {
        this.values = values;
        this.config = values.config();
        this.type = type;
        this.like = like;
        this.queue = queue;
    }

    /**
     * Writes a file whole or not at all.
     *
     * @param file the file to create or replace
     * @param dir the folder with the tokenizer's files, or the GGUF file that has it
     * @param type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K or Q6_K
     * @param name the model's name, {@code general.name}
     * @param check looks at the file when it is complete but does not have its name yet
     * @throws FormatException if the model or its tokenizer cannot be expressed, or a value is not finite
     */
    public static List<TensorReport> write(
            Path file, ModelValues values, Path dir, GgmlType type, String name, Queue queue, ModelWriter.Check check)
            throws IOException {
        return new GgufModelWriter(values, type, false, queue).write(file, dir, name, check);
    }

    /**
     * Writes a file whose matrices have the types that they are stored in.
     *
     * @param type for matrices that are changed and of a type that is not written, and for the file as a whole
     */
    public static List<TensorReport> likeSource(
            Path file, ModelValues values, Path dir, GgmlType type, String name, Queue queue, ModelWriter.Check check)
            throws IOException {
        return new GgufModelWriter(values, type, true, queue).write(file, dir, name, check);
    }

    private List<TensorReport> write(Path file, Path dir, String name, ModelWriter.Check check) throws IOException {
        GgufMetadata metadata = GgufModelMetadata.of(config, dir, type, name);
        GgufWriter.write(file, metadata, plan(), this::write, whole -> check.accept(whole, reports));
        return List.copyOf(reports);
    }

    private List<GgufTensor> plan() throws FormatException {
        List<GgufTensor> tensors = new ArrayList<>();
        if (GgufModelMetadata.hasRopeDivisors(config)) {
            tensors.add(new GgufTensor(ROPE_FREQS, GgmlType.F32, List.of(config.headDim() / 2L)));
        }
        for (Map.Entry<String, List<Long>> tensor : config.expectedTensors().entrySet()) {
            String ggufName = GgufNames.tensor(tensor.getKey());
            origin.put(ggufName, tensor.getKey());
            tensors.add(new GgufTensor(ggufName, type(tensor.getKey(), tensor.getValue()), tensor.getValue()));
        }
        return tensors;
    }

    private GgmlType type(String name, List<Long> shape) throws FormatException {
        if (shape.size() == 1) {
            return GgmlType.F32;
        }
        if (like) {
            GgmlType stored = stored(name);
            if (!values.isChanged(name) || GgufModelMetadata.FILE_TYPES.containsKey(stored)) {
                return stored;
            }
        }
        boolean head = name.equals(HEAD) || (name.equals(EMBEDDING) && config.tieWordEmbeddings());
        boolean finer = head && type.blockSize > 1 && type != GgmlType.Q8_0;
        GgmlType wanted = finer ? GgmlType.Q6_K : type;
        long columns = shape.getLast();
        if (columns % wanted.blockSize == 0) {
            return wanted;
        }
        // As llama-quantize falls back where blocks do not fit.
        GgmlType fallback = switch (wanted) {
            case Q4_K -> GgmlType.Q5_0;
            case Q6_K -> GgmlType.Q8_0;
            default -> GgmlType.F16;
        };
        return columns % fallback.blockSize == 0 ? fallback : GgmlType.F16;
    }

    private GgmlType stored(String name) throws FormatException {
        StoredWeight stored = values.stored(name);
        String type = stored.scheme() == Scheme.DENSE
                ? stored.values().dtype().name()
                : stored.scheme().name();
        return GgmlType.valueOf(type.replace("GGUF_", ""));
    }

    private void write(GgufTensor tensor, TensorSink sink) throws IOException {
        if (tensor.name().equals(ROPE_FREQS)) {
            sink.accept(MemorySegment.ofArray(GgufModelMetadata.ropeDivisors(config)));
            return;
        }
        String name = origin.getOrDefault(tensor.name(), tensor.name());
        int headDim = GgufNames.interleaved(config, name.substring(0, name.lastIndexOf('.')));
        if (tensor.type().blockSize > 1 && !values.isChanged(name) && isStoredAs(tensor.type(), name)) {
            copy(values.stored(name).values(), headDim, sink);
            values.release(name);
            reports.add(new TensorReport(tensor.name(), tensor.type().name(), tensor.shape(), tensor.bytes(), 0, 0));
            return;
        }
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

    private boolean isStoredAs(GgmlType wanted, String name) throws FormatException {
        return values.stored(name).scheme() == GgufQuantization.scheme(wanted);
    }

    /** Writes rows of blocks. */
    private static void copy(Tensor rows, int headDim, TensorSink sink) throws IOException {
        MemorySegment data = rows.data();
        if (headDim == 0) {
            sink.accept(data);
            return;
        }
        long bytes = data.byteSize() / rows.size(0);
        for (long place = 0; place < rows.size(0); place++) {
            sink.accept(data.asSlice(GgufNames.row(place, headDim) * bytes, bytes));
        }
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
