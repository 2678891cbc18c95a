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
    private static final Map<String, String> NAMES = Map.of(
            "token_embd", "model.embed_tokens",
            "output_norm", "model.norm",
            "output", "lm_head");
    private static final Map<String, String> BLOCK_NAMES = Map.ofEntries(
            Map.entry("attn_norm", "input_layernorm"),
            Map.entry("attn_q", "self_attn.q_proj"),
            Map.entry("attn_k", "self_attn.k_proj"),
            Map.entry("attn_v", "self_attn.v_proj"),
            Map.entry("attn_q_norm", "self_attn.q_norm"),
            Map.entry("attn_k_norm", "self_attn.k_norm"),
            Map.entry("attn_output", "self_attn.o_proj"),
            Map.entry("ffn_norm", "post_attention_layernorm"),
            Map.entry("ffn_gate", "mlp.gate_proj"),
            Map.entry("ffn_up", "mlp.up_proj"),
            Map.entry("ffn_down", "mlp.down_proj"));

    private final GgufFile file;
    private final ModelConfig config;
    private final boolean interleaved;
    /** The file's names by Hugging Face's. */
    private final Map<String, String> origin = new LinkedHashMap<>();

    private final Map<String, TensorInfo> tensors = new LinkedHashMap<>();

    private GgufModel(GgufFile file) throws FormatException {
        this.file = file;
        requireWhole(file);
        this.config = GgufConfig.read(file);
        this.interleaved = GgufConfig.isLlama(file);
        for (TensorInfo info : file.tensors().values()) {
            if (info.name().equals(GgufConfig.ROPE_DIVISORS)) {
                continue; // Part of the config.
            }
            String name = name(info.name());
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

    /** Returns Hugging Face's name of a tensor; a name that is not known stays, and is refused as one that the model does not have. */
    private static String name(String ggufName) {
        int dot = ggufName.lastIndexOf('.');
        String module = dot < 0 ? ggufName : ggufName.substring(0, dot);
        String kind = ggufName.substring(module.length());
        if (!module.startsWith("blk.")) {
            return NAMES.getOrDefault(module, module) + kind;
        }
        int end = module.indexOf('.', 4);
        String part = end < 0 ? null : BLOCK_NAMES.get(module.substring(end + 1));
        return part == null ? ggufName : "model.layers." + module.substring(4, end + 1) + part + kind;
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

    /** Row 2i + j of each head, as the file has it, is row i of half j. */
    private static MemorySegment halves(MemorySegment data, int rows, int headDim, SegmentAllocator copies) {
        long bytes = data.byteSize() / rows;
        MemorySegment copy = copies.allocate(data.byteSize(), 64);
        for (int row = 0; row < rows; row++) {
            int first = row - row % headDim;
            int inHead = row - first;
            int target = first + inHead % 2 * (headDim / 2) + inHead / 2;
            MemorySegment.copy(data, row * bytes, copy, target * bytes, bytes);
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
