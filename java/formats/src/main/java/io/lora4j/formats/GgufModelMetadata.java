package io.lora4j.formats;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The metadata that llama.cpp needs of a model. Source: ggml's {@code docs/gguf.md} and llama.cpp's converter. */
final class GgufModelMetadata {
    /** llama.cpp's {@code enum llama_ftype} of the types that are written. */
    static final Map<GgmlType, Integer> FILE_TYPES = Map.of(
            GgmlType.F32, 0,
            GgmlType.F16, 1,
            GgmlType.Q4_0, 2,
            GgmlType.Q4_1, 3,
            GgmlType.Q8_0, 7,
            GgmlType.Q5_0, 8,
            GgmlType.Q4_K, 14,
            GgmlType.Q6_K, 18,
            GgmlType.BF16, 32);

    private static final int QUANTIZATION_VERSION = 2;

    private GgufModelMetadata() {}

    static GgufMetadata of(ModelConfig config, Path dir, GgmlType type, String name) throws IOException {
        Integer fileType = FILE_TYPES.get(type);
        if (fileType == null) {
            throw new IllegalArgumentException("models are not written as " + type);
        }
        if (!config.slidingLayers().isEmpty() && config.slidingWindow() < config.maxPositionEmbeddings()) {
            throw new FormatException(dir + ": config.json: layers attend to the last " + config.slidingWindow()
                    + " tokens (sliding_window), which llama.cpp does not do for " + config.modelType()
                    + "; set max_position_embeddings to " + config.slidingWindow() + " to use it up to there");
        }
        String architecture = GgufNames.architecture(config);
        GgufMetadata m = new GgufMetadata();
        m.string("general.architecture", architecture);
        m.string("general.type", "model");
        m.string("general.name", name);
        m.u32("general.file_type", fileType);
        m.u32("general.quantization_version", QUANTIZATION_VERSION);
        String prefix = architecture + ".";
        m.u32(prefix + "block_count", config.numHiddenLayers());
        m.u32(prefix + "context_length", config.maxPositionEmbeddings());
        m.u32(prefix + "embedding_length", config.hiddenSize());
        m.u32(prefix + "feed_forward_length", config.intermediateSize());
        m.u32(prefix + "attention.head_count", config.numAttentionHeads());
        m.u32(prefix + "attention.head_count_kv", config.numKeyValueHeads());
        m.u32(prefix + "attention.key_length", config.headDim());
        m.u32(prefix + "attention.value_length", config.headDim());
        m.f32(prefix + "attention.layer_norm_rms_epsilon", (float) config.rmsNormEps());
        m.f32(prefix + "rope.freq_base", (float) config.rope().theta());
        m.u32(prefix + "rope.dimension_count", config.headDim());
        m.u32(prefix + "vocab_size", config.vocabSize());
        if (config.rope() instanceof Rope.Linear linear) {
            m.string(prefix + "rope.scaling.type", "linear");
            m.f32(prefix + "rope.scaling.factor", (float) linear.factor());
        }
        GgufTokenizerMetadata.put(m, config, dir);
        return m;
    }

    /** Returns whether the frequencies are divided one by one, by a tensor {@code rope_freqs.weight}. */
    static boolean hasRopeDivisors(ModelConfig config) {
        return config.rope() instanceof Rope.Llama3 || config.rope() instanceof Rope.Divided;
    }

    /** Returns what each frequency is divided by, float32. */
    static byte[] ropeDivisors(ModelConfig config) {
        List<Float> divisors = switch (config.rope()) {
            case Rope.Divided divided -> divided.divisors();
            case Rope.Llama3 rope -> divisors(rope, config.headDim());
            default ->
                throw new IllegalArgumentException(
                        "the frequencies of " + config.rope() + " are not divided one by one");
        };
        ByteBuffer bytes = ByteBuffer.allocate(divisors.size() * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        divisors.forEach(bytes::putFloat);
        return bytes.array();
    }

    /** Returns what Llama 3's scaling divides each frequency by, as llama.cpp's converter computes it. */
    static List<Float> divisors(Rope.Llama3 rope, int headDim) {
        List<Float> divisors = new ArrayList<>();
        double longest = rope.originalContext() / rope.lowFreqFactor();
        double shortest = rope.originalContext() / rope.highFreqFactor();
        for (int i = 0; i < headDim / 2; i++) {
            double wavelength = 2 * Math.PI * Math.pow(rope.theta(), 2.0 * i / headDim);
            double divisor;
            if (wavelength < shortest) {
                divisor = 1;
            } else if (wavelength > longest) {
                divisor = rope.factor();
            } else {
                double smooth = (rope.originalContext() / wavelength - rope.lowFreqFactor())
                        / (rope.highFreqFactor() - rope.lowFreqFactor());
                divisor = 1 / ((1 - smooth) / rope.factor() + smooth);
            }
            divisors.add((float) divisor);
        }
        return divisors;
    }
}
