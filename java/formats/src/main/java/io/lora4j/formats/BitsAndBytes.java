package io.lora4j.formats;

import io.lora4j.kernels.Part;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * How bitsandbytes quantizes the linear layers of a model, as {@code quantization_config} of config.json says it.
 *
 * @param type NF4, FP4 or INT8 (LLM.int8: a scale for each row)
 * @param blockSize values that share a scale, 32 to 4096, a power of two; for 4 bits
 * @param doubleQuant whether the scales are quantized too; for 4 bits
 * @param computeType {@code bnb_4bit_compute_dtype}: what transformers computes in, for example {@code bfloat16}
 * @param skipModules {@code llm_int8_skip_modules}: modules that stay dense. The output head is always one
 */
public record BitsAndBytes(
        Type type, int blockSize, boolean doubleQuant, String computeType, List<String> skipModules) {
    private static final String HEAD = "lm_head";

    /** The formats. */
    public enum Type {
        NF4,
        FP4,
        INT8;

        boolean is4Bit() {
            return this != INT8;
        }
    }

    /** Checks the block size and adds the output head to what stays dense. */
    public BitsAndBytes {
        if (blockSize < 32 || blockSize > 4096 || Integer.bitCount(blockSize) != 1) {
            throw new IllegalArgumentException(
                    "blocks of " + blockSize + " values; expected a power of two from 32 to 4096");
        }
        List<String> all = new ArrayList<>(skipModules);
        if (!all.contains(HEAD)) {
            all.add(HEAD);
        }
        skipModules = List.copyOf(all);
    }

    /** Returns whether a module is quantized: a linear layer inside the blocks that no entry names, exactly or as an ending. */
    boolean covers(ModelModule module) {
        return module.kind() == ModelModule.Kind.LINEAR
                && skipModules.stream()
                        .noneMatch(name ->
                                module.name().endsWith(name) || module.name().startsWith(name + "."));
    }

    /** Returns whether a weight is stored just so. */
    boolean describes(StoredWeight stored) {
        boolean format = switch (type) {
            case NF4 -> stored.scheme() == Scheme.NF4;
            case FP4 -> stored.scheme() == Scheme.FP4;
            case INT8 -> stored.scheme() == Scheme.LLM_INT8;
        };
        Tensor block = stored.parts().get(Part.BLOCK_SIZE);
        return format
                && (block == null
                        || (block.getLong(0) == blockSize
                                && stored.parts().containsKey(Part.NESTED_OFFSET) == doubleQuant));
    }

    Map<String, Object> toConfig() {
        Map<String, Object> config = new LinkedHashMap<>();
        boolean four = type.is4Bit();
        config.put("quant_method", "bitsandbytes");
        config.put("load_in_4bit", four);
        config.put("load_in_8bit", !four);
        config.put("_load_in_4bit", four);
        config.put("_load_in_8bit", !four);
        config.put("llm_int8_threshold", 6.0);
        config.put("llm_int8_skip_modules", skipModules);
        config.put("llm_int8_enable_fp32_cpu_offload", false);
        config.put("llm_int8_has_fp16_weight", false);
        config.put("bnb_4bit_quant_type", type == Type.NF4 ? "nf4" : "fp4");
        config.put("bnb_4bit_use_double_quant", four && doubleQuant);
        config.put("bnb_4bit_compute_dtype", computeType);
        config.put("bnb_4bit_quant_storage", "uint8");
        return config;
    }
}
