package io.lora4j.formats;

import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The families of models that are supported, and what their configuration classes in transformers (4 and 5 agree) have where
 * {@code config.json} says nothing.
 */
enum ModelFamily {
    LLAMA("llama", "LlamaForCausalLM", 32000, 11008, null, 2048, 1, 2),
    MISTRAL("mistral", "MistralForCausalLM", 32000, 14336, 8, 131072, 1, 2),
    QWEN2("qwen2", "Qwen2ForCausalLM", 151936, 22016, 32, 32768, null, null),
    QWEN3("qwen3", "Qwen3ForCausalLM", 151936, 22016, 32, 32768, null, null);

    // The same in every family.
    static final int HIDDEN_SIZE = 4096;
    static final int LAYERS = 32;
    static final int HEADS = 32;
    static final double RMS_NORM_EPS = 1e-6;
    static final double ROPE_THETA = 10000;
    static final int SLIDING_WINDOW = 4096;
    static final int MAX_WINDOW_LAYERS = 28;
    /** Of Qwen3; the others divide the hidden size by the heads. */
    static final int QWEN3_HEAD_DIM = 128;

    final String modelType;
    final String architecture;
    final int vocabSize;
    final int intermediateSize;
    /** Null: as many as query heads. */
    final @Nullable Integer keyValueHeads;

    final int maxPositionEmbeddings;
    final @Nullable Integer bosTokenId;
    final @Nullable Integer eosTokenId;

    ModelFamily(
            String modelType,
            String architecture,
            int vocabSize,
            int intermediateSize,
            @Nullable Integer keyValueHeads,
            int maxPositionEmbeddings,
            @Nullable Integer bosTokenId,
            @Nullable Integer eosTokenId) {
        this.modelType = modelType;
        this.architecture = architecture;
        this.vocabSize = vocabSize;
        this.intermediateSize = intermediateSize;
        this.keyValueHeads = keyValueHeads;
        this.maxPositionEmbeddings = maxPositionEmbeddings;
        this.bosTokenId = bosTokenId;
        this.eosTokenId = eosTokenId;
    }

    /**
     * Finds the family of a config. {@code architectures} has the say; a config without it, as {@code config.save_pretrained} writes
     * one, is what its {@code model_type} says.
     */
    static ModelFamily of(Fields f) throws FormatException {
        List<String> architectures = f.texts("architectures");
        String type = f.text("model_type");
        if (architectures == null) {
            for (ModelFamily family : values()) {
                if (family.modelType.equals(type)) {
                    return family;
                }
            }
            throw f.error("\"architectures\" is missing and \"model_type\" is " + quoted(type) + "; expected one of "
                    + architectures() + " or "
                    + Arrays.stream(values()).map(m -> m.modelType).toList());
        }
        if (architectures.size() != 1) {
            throw f.error("\"architectures\" is " + architectures + "; expected a list with one of " + architectures());
        }
        for (ModelFamily family : values()) {
            if (family.architecture.equals(architectures.getFirst())) {
                if (type != null && !type.equals(family.modelType)) {
                    throw f.error("\"model_type\" is " + quoted(type) + ", but a " + family.architecture + " has "
                            + quoted(family.modelType));
                }
                return family;
            }
        }
        throw f.error("architecture " + architectures.getFirst() + " is not supported; supported are "
                + String.join(", ", architectures()));
    }

    private static List<String> architectures() {
        return Arrays.stream(values()).map(family -> family.architecture).toList();
    }

    private static String quoted(@Nullable String text) {
        return text == null ? "missing" : "\"" + text + "\"";
    }
}
