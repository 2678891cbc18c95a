package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.node.ObjectNode;

/**
 * Turns {@code config.json} into a {@link ModelConfig}. Absent fields take the defaults of the family's class in transformers;
 * every field is honoured, known to have no effect here, or refused.
 */
final class ModelConfigReader {
    /** The supported values of {@code architectures}. */
    static final List<String> ARCHITECTURES =
            List.of("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM");

    private static final Set<String> LAYER_TYPES = Set.of("sliding_attention", "full_attention");

    private ModelConfigReader() {}

    static ModelConfig read(Path file, ObjectNode json) throws FormatException {
        Fields f = Fields.of(file, json);
        String architecture = architecture(f);
        boolean llama = architecture.equals("LlamaForCausalLM");
        boolean qwen2 = architecture.equals("Qwen2ForCausalLM");
        boolean qwen3 = architecture.equals("Qwen3ForCausalLM");
        f.refuseUnlessOff(
                "quantization_config", "auto_map", "is_encoder_decoder", "add_cross_attention", "rope_interleaved");
        if (f.number("attention_dropout", 0) != 0) {
            throw f.error("\"attention_dropout\" is " + f.number("attention_dropout", 0) + "; supported is 0.0");
        }
        int hidden = f.count("hidden_size");
        int heads = f.count("num_attention_heads");
        int layers = f.count("num_hidden_layers");
        int keyValueHeads = f.count("num_key_value_heads", heads);
        if (heads % keyValueHeads != 0) {
            throw f.error(
                    "num_attention_heads " + heads + " is not a multiple of num_key_value_heads " + keyValueHeads);
        }
        int headDim = headDim(f, hidden, heads, qwen3);
        String act = f.text("hidden_act");
        if (act != null && !act.equals("silu")) {
            throw f.error("\"hidden_act\" is \"" + act + "\"; supported is \"silu\"");
        }
        double eps = f.number("rms_norm_eps", 1e-6);
        if (eps <= 0) {
            throw f.error("\"rms_norm_eps\" is " + eps + "; expected a positive number");
        }
        boolean attentionBias = f.flag("attention_bias", qwen2);
        boolean mlpBias = f.flag("mlp_bias", false);
        if ((!llama && mlpBias) || (architecture.equals("MistralForCausalLM") && attentionBias)) {
            throw f.error("\"" + (mlpBias ? "mlp_bias" : "attention_bias") + "\" is true, but a " + architecture
                    + " has no such bias; config.json is of another model");
        }
        Sliding sliding = sliding(f, architecture, layers);
        ModelConfig config = new ModelConfig(
                architecture,
                modelType(f, architecture),
                f.count("vocab_size"),
                hidden,
                f.count("intermediate_size"),
                layers,
                heads,
                keyValueHeads,
                headDim,
                "silu",
                f.count("max_position_embeddings"),
                eps,
                f.flag("tie_word_embeddings", false),
                qwen2 || attentionBias,
                !qwen2 && attentionBias,
                mlpBias,
                qwen3,
                sliding.window,
                sliding.layers,
                Rope.read(f),
                f.idOrNull("bos_token_id"),
                f.ids("eos_token_id"),
                f.idOrNull("pad_token_id"),
                dtype(f));
        ignoreWithoutEffect(f);
        f.refuseTheRest();
        return config;
    }

    private static String architecture(Fields f) throws FormatException {
        List<String> architectures = f.texts("architectures");
        if (architectures == null || architectures.size() != 1) {
            throw f.error("\"architectures\" is " + architectures + "; expected a list with one of " + ARCHITECTURES);
        }
        String architecture = architectures.getFirst();
        if (!ARCHITECTURES.contains(architecture)) {
            throw f.error("architecture " + architecture + " is not supported; supported are "
                    + String.join(", ", ARCHITECTURES));
        }
        return architecture;
    }

    private static String modelType(Fields f, String architecture) throws FormatException {
        String expected = switch (architecture) {
            case "LlamaForCausalLM" -> "llama";
            case "MistralForCausalLM" -> "mistral";
            case "Qwen2ForCausalLM" -> "qwen2";
            default -> "qwen3";
        };
        String type = f.text("model_type");
        if (type != null && !type.equals(expected)) {
            throw f.error("\"model_type\" is \"" + type + "\", but a " + architecture + " has \"" + expected + "\"");
        }
        return expected;
    }

    private static int headDim(Fields f, int hidden, int heads, boolean qwen3) throws FormatException {
        Integer given = f.countOrNull("head_dim");
        if (given == null && !qwen3 && hidden % heads != 0) {
            throw f.error("hidden_size " + hidden + " is not a multiple of num_attention_heads " + heads
                    + " and there is no head_dim");
        }
        int headDim = given != null ? given : qwen3 ? 128 : hidden / heads;
        if (headDim % 2 != 0) {
            throw f.error("head_dim is " + headDim + "; rotary embeddings need an even number");
        }
        return headDim;
    }

    /** The window in tokens (0: none) and the layers that it applies to. */
    private record Sliding(int window, List<Integer> layers) {
        static final Sliding NONE = new Sliding(0, List.of());
    }

    private static Sliding sliding(Fields f, String architecture, int layers) throws FormatException {
        Integer window = f.countOrNull("sliding_window");
        List<String> types = f.texts("layer_types");
        if (types != null && (types.size() != layers || !LAYER_TYPES.containsAll(types))) {
            throw f.error("\"layer_types\" is " + types + "; expected " + layers + " times one of " + LAYER_TYPES);
        }
        boolean used = f.flag("use_sliding_window", false);
        int fullLayers = f.get("max_window_layers") == null ? 28 : maxWindowLayers(f);
        boolean qwen = architecture.startsWith("Qwen");
        boolean mistral = architecture.equals("MistralForCausalLM");
        if ((!qwen && !mistral) || window == null || (qwen && !used)) {
            if (types != null && types.contains("sliding_attention")) {
                throw f.error("\"layer_types\" has sliding_attention layers, but no sliding window is in effect");
            }
            return Sliding.NONE;
        }
        List<Integer> sliding = new ArrayList<>(IntStream.range(0, layers)
                .filter(i -> types != null ? types.get(i).equals("sliding_attention") : mistral || i >= fullLayers)
                .boxed()
                .toList());
        return sliding.isEmpty() ? Sliding.NONE : new Sliding(window, sliding);
    }

    private static int maxWindowLayers(Fields f) throws FormatException {
        double value = f.number("max_window_layers");
        if (value < 0 || value != Math.rint(value)) {
            throw f.error("\"max_window_layers\" is " + value + "; expected an integer >= 0");
        }
        return (int) value;
    }

    private static @Nullable DType dtype(Fields f) throws FormatException {
        String dtype = f.text("dtype");
        String legacy = f.text("torch_dtype");
        String name = dtype != null ? dtype : legacy;
        return switch (name) {
            case null -> null;
            case "float32" -> DType.F32;
            case "float16" -> DType.F16;
            case "bfloat16" -> DType.BF16;
            case "float64", "auto" -> null; // The checkpoint's own types decide.
            default -> throw f.error("\"dtype\" is \"" + name + "\"; expected float32, float16 or bfloat16");
        };
    }

    /** Fields that real configs carry and that change nothing of a forward or backward pass here. */
    private static void ignoreWithoutEffect(Fields f) {
        // Where it came from and how it was initialised or split.
        f.ignore(("_name_or_path name_or_path transformers_version initializer_range pretraining_tp "
                        + "tokenizer_class _attn_implementation _attn_implementation_internal attn_implementation "
                        + "unsloth_fixed unsloth_version is_llama_config transformers.js_config _commit_hash "
                        + "eos_token model_max_length max_sequence_length torchscript tp_plan pp_plan "
                        + "task_specific_params")
                .split(" "));
        // What the Python modules return, not what they compute.
        f.ignore(("use_cache output_attentions output_hidden_states return_dict use_return_dict id2label "
                        + "label2id num_labels problem_type prefix finetuning_task use_bfloat16 "
                        + "chunk_size_feed_forward tie_encoder_decoder is_decoder cross_attention_hidden_size "
                        + "tf_legacy_loss pruned_heads decoder_start_token_id sep_token_id begin_suppress_tokens")
                .split(" "));
        // Generation defaults that old configs kept here; generation_config.json has the say.
        f.ignore(("max_length min_length do_sample early_stopping num_beams num_beam_groups "
                        + "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
                        + "no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences "
                        + "output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id "
                        + "remove_invalid_values exponential_decay_length_penalty suppress_tokens")
                .split(" "));
    }
}
