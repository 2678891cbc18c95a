package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A GGUF file as the model that it holds: its tensors under Hugging Face's names, and the rows of Llama's query and key projections in
 * Hugging Face's order.
 *
 * <p>llama.cpp's converter interleaves the two halves of each of those heads, since its rotation turns neighbouring rows. A row is a
 * whole number of blocks, so that putting the rows back changes no byte of them.
 */
final class GgufModel implements Checkpoint {
    private final GgufFile file;
    private final ModelConfig config;
    private final boolean interleaved;
    /** The file's names by Hugging Face's. */
    private final Map<String, String> origin = new LinkedHashMap<>();

    private final Map<String, TensorInfo> tensors = new LinkedHashMap<>();

    /** @param file is closed with the model */
    GgufModel(GgufFile file) throws FormatException {
        this.file = file;
        requireWhole(file);
        this.config = GgufConfig.read(file);
        this.interleaved = GgufConfig.isLlama(file);
        for (TensorInfo info : file.tensors().values()) {
            if (info.name().equals(GgufConfig.ROPE_DIVISORS)) {
                continue; // Part of the config.
            }
            String name = GgufNames.huggingFace(info.name());
            String other = origin.put(name, info.name());
            if (other != null) {
                throw new FormatException(file.path() + ": the tensors " + other + " and " + info.name() + " are both "
                        + name + "; the file is damaged");
            }
            tensors.put(name, new TensorInfo(name, info.typeName(), info.shape(), info.offset(), info.bytes()));
        }
    }

    /** Reads the special tokens that generation begins and ends with. */
    static GenerationConfig readGeneration(Path path) throws IOException {
        try (GgufFile file = GgufFile.open(path)) {
            return new GenerationConfig(
                    GgufTokenizer.id(file, "bos"),
                    GgufTokenizer.ends(file),
                    GgufTokenizer.id(file, "padding"),
                    null,
                    null,
                    null,
                    null,
                    null,
                    null);
        }
    }

    private static void requireWhole(GgufFile file) throws FormatException {
        if (file.values().get("split.count") instanceof Long parts && parts > 1) {
            throw new FormatException(file.path() + ": is one of " + parts + " parts of a model (metadata split.count);"
                    + " join them with llama-gguf-split --merge");
        }
    }

    /** Opens a file; see {@link ModelWeights#open}. */
    static GgufModel open(Path path) throws IOException {
        GgufFile file = GgufFile.open(path);
        try {
            return new GgufModel(file);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** Reads the config of the model in a file. */
    static ModelConfig readConfig(Path path) throws IOException {
        try (GgufFile file = GgufFile.open(path)) {
            return GgufConfig.read(file);
        }
    }

    @Override
    public Path path() {
        return file.path();
    }

    @Override
    public Map<String, TensorInfo> tensors() {
        return Collections.unmodifiableMap(tensors);
    }

    @Override
    public Map<String, String> metadata() {
        return file.metadata();
    }

    @Override
    public MemorySegment data(String name) throws FormatException {
        return data(name, Arena.ofAuto());
    }

    @Override
    public MemorySegment data(String name, SegmentAllocator copies) throws FormatException {
        TensorInfo info = tensor(name);
        MemorySegment data = file.data(origin.getOrDefault(name, name));
        boolean query = name.contains(".self_attn.q_proj.");
        boolean key = name.contains(".self_attn.k_proj.");
        if (!interleaved || !(query || key)) {
            return data;
        }
        int heads = query ? config.numAttentionHeads() : config.numKeyValueHeads();
        int rows = heads * config.headDim();
        if (info.shape().isEmpty() || info.shape().getFirst() != rows) {
            throw new FormatException(path() + ": tensor " + info.name() + " has shape " + info.shape()
                    + "; the metadata implies " + rows + " rows: the file is damaged");
        }
        return halves(data, rows, config.headDim(), copies).asReadOnly();
    }

    /** Puts rows in Hugging Face's order. */
    private static MemorySegment halves(MemorySegment data, int rows, int headDim, SegmentAllocator copies) {
        long bytes = data.byteSize() / rows;
        MemorySegment copy = copies.allocate(data.byteSize(), 64);
        for (int row = 0; row < rows; row++) {
            MemorySegment.copy(data, row * bytes, copy, GgufNames.row(row, headDim) * bytes, bytes);
        }
        return copy;
    }

    @Override
    public void unload(String name) throws FormatException {
        file.unload(origin.getOrDefault(name, name));
    }

    @Override
    public void close() {
        file.close();
    }
}
