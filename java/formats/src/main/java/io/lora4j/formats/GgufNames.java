package io.lora4j.formats;

import java.util.Map;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * What a model of Hugging Face's layout is called in GGUF files. Source: gguf-py's tensor mapping, and llama.cpp's converter for the
 * order of rows.
 */
final class GgufNames {
    private static final Map<String, String> NAMES = Map.of(
            "model.embed_tokens", "token_embd",
            "model.norm", "output_norm",
            "lm_head", "output");
    private static final String LAYERS = "model.layers.";
    private static final Map<String, String> BLOCK_NAMES = Map.ofEntries(
            Map.entry("input_layernorm", "attn_norm"),
            Map.entry("self_attn.q_proj", "attn_q"),
            Map.entry("self_attn.k_proj", "attn_k"),
            Map.entry("self_attn.v_proj", "attn_v"),
            Map.entry("self_attn.q_norm", "attn_q_norm"),
            Map.entry("self_attn.k_norm", "attn_k_norm"),
            Map.entry("self_attn.o_proj", "attn_output"),
            Map.entry("post_attention_layernorm", "ffn_norm"),
            Map.entry("mlp.gate_proj", "ffn_gate"),
            Map.entry("mlp.up_proj", "ffn_up"),
            Map.entry("mlp.down_proj", "ffn_down"));
    private static final Map<String, String> MODULES = reversed(NAMES);
    private static final Map<String, String> BLOCK_MODULES = reversed(BLOCK_NAMES);
    private static final String BLOCKS = "blk.";

    private GgufNames() {}

    private static Map<String, String> reversed(Map<String, String> names) {
        return names.entrySet().stream().collect(Collectors.toUnmodifiableMap(Map.Entry::getValue, Map.Entry::getKey));
    }

    /** Returns {@code general.architecture}: llama.cpp runs Mistral's models as Llama. */
    static String architecture(ModelConfig config) {
        return config.modelType().equals(ModelFamily.MISTRAL.modelType)
                ? ModelFamily.LLAMA.modelType
                : config.modelType();
    }

    /**
     * Returns GGUF's name of a module, for example {@code blk.0.attn_q} of {@code model.layers.0.self_attn.q_proj}.
     *
     * @throws IllegalArgumentException if it is none that has weights
     */
    static String module(String name) {
        String found = find(name);
        if (found == null) {
            throw new IllegalArgumentException("module " + name + " has no name in GGUF files");
        }
        return found;
    }

    private static @Nullable String find(String name) {
        int dot = name.startsWith(LAYERS) ? name.indexOf('.', LAYERS.length()) : -1;
        if (dot < 0) {
            return NAMES.get(name);
        }
        String part = BLOCK_NAMES.get(name.substring(dot + 1));
        return part == null ? null : BLOCKS + name.substring(LAYERS.length(), dot) + "." + part;
    }

    /** Returns GGUF's name of a tensor {@code <module>.weight} or {@code <module>.bias}. */
    static String tensor(String name) {
        int dot = name.lastIndexOf('.');
        return module(name.substring(0, dot)) + name.substring(dot);
    }

    /** Returns Hugging Face's name of a tensor; a name that is not known stays, and is refused as one that the model does not have. */
    static String huggingFace(String ggufTensor) {
        int dot = ggufTensor.lastIndexOf('.');
        String module = dot < 0 ? ggufTensor : ggufTensor.substring(0, dot);
        String kind = ggufTensor.substring(module.length());
        if (!module.startsWith(BLOCKS)) {
            return MODULES.getOrDefault(module, module) + kind;
        }
        int end = module.indexOf('.', BLOCKS.length());
        String part = end < 0 ? null : BLOCK_MODULES.get(module.substring(end + 1));
        return part == null ? ggufTensor : LAYERS + module.substring(BLOCKS.length(), end + 1) + part + kind;
    }

    /**
     * Returns the width of the heads whose rows llama.cpp interleaves in a module's weight, bias and lora_B; 0 if their order stays.
     * Its rotation of {@code llama} turns neighbouring rows, Hugging Face's row i and row i + D/2 of each head.
     */
    static int interleaved(ModelConfig config, String module) {
        boolean turned = module.endsWith(".self_attn.q_proj") || module.endsWith(".self_attn.k_proj");
        return turned && architecture(config).equals(ModelFamily.LLAMA.modelType) ? config.headDim() : 0;
    }

    /**
     * Returns which of Hugging Face's rows stands at a place in the file.
     *
     * @param headDim what {@link #interleaved} says
     */
    static long row(long place, int headDim) {
        if (headDim == 0) {
            return place;
        }
        long inHead = place % headDim;
        return place - inHead + inHead % 2 * (headDim / 2) + inHead / 2;
    }
}
