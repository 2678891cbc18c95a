package io.lora4j.formats;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;

/**
 * How a checkpoint's linear layers are quantized: {@code quantization_config} of config.json. Immutable.
 *
 * @param method the layout of the tensors
 * @param groupSize columns that share a scale: of GPTQ and AWQ, 0 for all of a row; of the others not used
 * @param head whether the output head is quantized too, unless {@code skipped} names it
 * @param skipped modules that stay dense, as transformers matches them: names, their beginnings or endings, regular expressions
 */
public record Quantization(Method method, int groupSize, boolean head, List<String> skipped) {

    /** Layouts. */
    public enum Method {
        /** bitsandbytes' NF4 and FP4; each layer says which. */
        BITSANDBYTES_4BIT,
        /** bitsandbytes' LLM.int8. */
        LLM_INT8,
        /** GPTQ whose zero points are stored less one. */
        GPTQ,
        /** GPTQ whose zero points are stored as they are. */
        GPTQ_V2,
        /** AWQ in its GEMM layout. */
        AWQ,
        /** FP8 E4M3 with a scale for the tensor, each row or each block of 128 by 128. */
        FP8
    }

    private static final int FP8_BLOCK = 128;

    /** Copies the list. */
    public Quantization {
        skipped = List.copyOf(skipped);
    }

    /** Returns whether a module's weight is quantized. */
    public boolean covers(ModelModule module) {
        boolean linear = module.kind() == ModelModule.Kind.LINEAR || (head && module.kind() == ModelModule.Kind.HEAD);
        return linear && skipped.stream().noneMatch(pattern -> matches(pattern, module.name()));
    }

    /** As transformers' {@code should_convert_module}. */
    private static boolean matches(String pattern, String module) {
        return module.endsWith(pattern) || regex(pattern).fullMatch(module);
    }

    /** The pattern from the beginning of a name to the end of one of its parts. */
    private static PythonRegex regex(String pattern) {
        try {
            return PythonRegex.compile("(?:" + pattern + ")(?:(?<=\\.)|(?=\\.|$)).*", "modules_to_not_convert");
        } catch (FormatException e) {
            throw new IllegalArgumentException(e.getMessage(), e);
        }
    }

    /**
     * Reads a config; null if the checkpoint is not quantized.
     *
     * @param where begins messages
     * @throws FormatException if the method, or a field that changes the result, is not understood
     */
    static @Nullable Quantization read(String where, Fields config) throws FormatException {
        Fields f = config.object("quantization_config");
        if (f == null) {
            return null;
        }
        String method = f.text("quant_method");
        Quantization read = switch (method == null ? "bitsandbytes" : method.toLowerCase(Locale.ROOT)) {
            case "bitsandbytes" -> bitsandbytes(f);
            case "gptq" -> gptq(f);
            case "awq" -> awq(f);
            case "fp8" -> fp8(f);
            default ->
                throw f.error("\"quant_method\" is \"" + method
                        + "\"; supported are bitsandbytes (4-bit and LLM.int8), gptq, awq and fp8");
        };
        for (String pattern : read.skipped) {
            PythonRegex.compile(pattern, where + ": quantization_config: module to leave out");
        }
        f.refuseTheRest();
        return read;
    }

    private static Quantization bitsandbytes(Fields f) throws FormatException {
        boolean four = f.flag("load_in_4bit", false) | f.flag("_load_in_4bit", false);
        boolean eight = f.flag("load_in_8bit", false) | f.flag("_load_in_8bit", false);
        if (four == eight) {
            throw f.error(
                    "load_in_4bit is " + four + " and load_in_8bit " + eight + "; expected one of them to be true");
        }
        // Each layer says itself how it is stored; the rest is about how PyTorch computes with it.
        f.ignore(
                "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage");
        f.ignore("bnb_4bit_blocksize", "llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload");
        f.ignore("llm_int8_has_fp16_weight");
        List<String> skipped = f.texts("llm_int8_skip_modules");
        Method method = four ? Method.BITSANDBYTES_4BIT : Method.LLM_INT8;
        return new Quantization(method, 0, skipped != null, skipped == null ? List.of() : skipped);
    }

    private static Quantization gptq(Fields f) throws FormatException {
        requireFourBits(f, "bits");
        f.refuseUnlessOff("dynamic", "is_marlin_format", "use_marlin", "rotation", "adapter");
        requireOneOf(f, "pack_dtype", "int32");
        requireOneOf(f, "quant_type", "int");
        String layout = f.text("checkpoint_format");
        String other = f.text("format");
        String name = layout != null ? layout : other != null ? other : "gptq";
        Method method = switch (name.toLowerCase(Locale.ROOT)) {
            case "gptq" -> Method.GPTQ;
            case "gptq_v2" -> Method.GPTQ_V2;
            default -> throw f.error("\"checkpoint_format\" is \"" + name + "\"; supported are gptq and gptq_v2");
        };
        // How the numbers were found.
        f.ignore(("desc_act static_groups sym true_sequential damp_percent damp_auto_increment mse act_group_aware "
                        + "dataset tokenizer batch_size model_name_or_path model_file_base_name block_name_to_quantize "
                        + "module_name_preceding_first_block pad_token_id max_input_length cache_block_outputs "
                        + "model_seqlen meta backend use_exllama use_cuda_fp16 exllama_config disable_exllama version "
                        + "gptaq parallel_packing quantizer offload_to_disk fail_safe hyb_act")
                .split(" "));
        return new Quantization(method, groupSize(f, "group_size"), f.flag("lm_head", false), leftOut(f));
    }

    /** The layers of a block that {@code modules_in_block_to_quantize}, a list or a list of lists, does not name. */
    private static List<String> leftOut(Fields f) throws FormatException {
        List<String> left = new ArrayList<>(List.of(
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj"));
        JsonNode lists = f.get("modules_in_block_to_quantize");
        if (lists == null) {
            return List.of();
        }
        for (JsonNode list : lists.values()) {
            for (JsonNode name : list.isArray() ? list.values() : List.of(list)) {
                if (!left.remove(name.stringValue(""))) {
                    throw f.error("\"modules_in_block_to_quantize\" has " + name + "; expected names among " + left);
                }
            }
        }
        return left;
    }

    private static Quantization awq(Fields f) throws FormatException {
        boolean old = f.has("w_bit");
        requireFourBits(f, old ? "w_bit" : "bits");
        requireOneOf(f, "version", "gemm");
        requireOneOf(f, "format", "gemm");
        if (!f.flag("zero_point", true)) {
            throw f.error("\"zero_point\" is false; supported is true");
        }
        f.ignore("backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config", "q_group_size");
        List<String> skipped = f.texts("modules_to_not_convert");
        String group = f.has("q_group_size") ? "q_group_size" : "group_size";
        return new Quantization(Method.AWQ, groupSize(f, group), false, skipped == null ? List.of() : skipped);
    }

    private static Quantization fp8(Fields f) throws FormatException {
        requireOneOf(f, "fmt", "e4m3");
        requireOneOf(f, "scale_fmt", "float");
        JsonNode block = f.get("weight_block_size");
        if (block != null
                && !(block.size() == 2
                        && block.get(0).intValue(0) == FP8_BLOCK
                        && block.get(1).intValue(0) == FP8_BLOCK)) {
            throw f.error(
                    "\"weight_block_size\" is " + block + "; supported is [" + FP8_BLOCK + ", " + FP8_BLOCK + "]");
        }
        // Products take the activations as they are, in float32.
        f.ignore("activation_scheme", "dequantize");
        List<String> skipped = f.texts("modules_to_not_convert");
        List<String> other = f.texts("ignored_layers");
        skipped = skipped != null ? skipped : other;
        return new Quantization(Method.FP8, 0, skipped != null, skipped == null ? List.of() : skipped);
    }

    private static void requireFourBits(Fields f, String name) throws FormatException {
        int bits = f.count(name);
        if (bits != 4) {
            throw f.error("\"" + name + "\" is " + bits + "; supported are 4 bits");
        }
    }

    private static void requireOneOf(Fields f, String name, String supported) throws FormatException {
        String value = f.text(name);
        if (value != null && !value.equalsIgnoreCase(supported)) {
            throw f.error("\"" + name + "\" is \"" + value + "\"; supported is \"" + supported + "\"");
        }
    }

    private static int groupSize(Fields f, String name) throws FormatException {
        double size = f.number(name, 128);
        if (size == -1) {
            return 0;
        }
        if (size < 1 || size > Integer.MAX_VALUE || size != Math.rint(size)) {
            throw f.error("\"" + name + "\" is " + size + "; expected a positive integer, or -1 for one group");
        }
        return (int) size;
    }
}
