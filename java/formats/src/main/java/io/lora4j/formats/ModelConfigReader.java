package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.node.ObjectNode;

/**
 * Turns {@code config.json} into a {@link ModelConfig}. Absent fields take the defaults of {@link ModelFamily}; every field is
 * honoured, known to have no effect here, or refused.
 */
final class ModelConfigReader {
    private static final Set<String> LAYER_TYPES = Set.of("sliding_attention", "full_attention");
    /** Both names of x · sigmoid(x). */
    private static final Set<String> SILU = Set.of("silu", "swish");

    /** More are taken for damage (the largest models have some hundred). */
    private static final int MAX_LAYERS = 10_000;

    private ModelConfigReader() {}

    static ModelConfig read(Path file, ObjectNode json) throws FormatException {
        return read(file, json, null);
    }

    /** @param rope goes before what the JSON says */
    static ModelConfig read(Path file, ObjectNode json, @Nullable Rope rope) throws FormatException {
        Fields f = Fields.of(file, json);
        ModelFamily family = ModelFamily.of(f);
        f.refuseUnlessOff("auto_map", "is_encoder_decoder", "add_cross_attention", "rope_interleaved");
        refuseUnless(f, "attention_dropout", 0);
        refuseUnless(f, "partial_rotary_factor", 1);
        int hidden = f.count("hidden_size", ModelFamily.HIDDEN_SIZE);
        int heads = f.count("num_attention_heads", ModelFamily.HEADS);
        int layers = f.count("num_hidden_layers", ModelFamily.LAYERS);
        if (layers > MAX_LAYERS) {
            throw f.error("\"num_hidden_layers\" is " + layers + "; expected at most " + MAX_LAYERS);
        }
        String act = f.text("hidden_act");
        if (act != null && !SILU.contains(act)) {
            throw f.error("\"hidden_act\" is \"" + act + "\"; supported is \"silu\"");
        }
        double eps = f.number("rms_norm_eps", ModelFamily.RMS_NORM_EPS);
        if (eps <= 0) {
            throw f.error("\"rms_norm_eps\" is " + eps + "; expected a positive number");
        }
        boolean qwen2 = family == ModelFamily.QWEN2;
        boolean attentionBias = f.flag("attention_bias", qwen2);
        boolean mlpBias = f.flag("mlp_bias", false);
        if ((mlpBias && family != ModelFamily.LLAMA) || (attentionBias && family == ModelFamily.MISTRAL)) {
            throw f.error("\"" + (mlpBias ? "mlp_bias" : "attention_bias") + "\" is true, but a " + family.architecture
                    + " has no such bias; config.json is of another model");
        }
        Sliding sliding = sliding(f, family, layers);
        int maxPositions = f.count("max_position_embeddings", family.maxPositionEmbeddings);
        ModelConfig config = new ModelConfig(
                family.architecture,
                family.modelType,
                f.count("vocab_size", family.vocabSize),
                hidden,
                f.count("intermediate_size", family.intermediateSize),
                layers,
                heads,
                keyValueHeads(f, family, heads),
                headDim(f, family, hidden, heads),
                "silu",
                maxPositions,
                eps,
                f.flag("tie_word_embeddings", false),
                qwen2 || attentionBias,
                !qwen2 && attentionBias,
                mlpBias,
                family == ModelFamily.QWEN3,
                sliding.window,
                sliding.layers,
                rope != null ? rope : Rope.read(f, maxPositions),
                f.has("bos_token_id") ? f.idOrNull("bos_token_id") : family.bosTokenId,
                f.has("eos_token_id") || family.eosTokenId == null ? f.ids("eos_token_id") : List.of(family.eosTokenId),
                f.idOrNull("pad_token_id"),
                dtype(f),
                Quantization.read(file.toString(), f));
        ignoreWithoutEffect(f);
        f.refuseTheRest();
        return config;
    }

    private static void refuseUnless(Fields f, String name, double supported) throws FormatException {
        double value = f.number(name, supported);
        if (value != supported) {
            throw f.error("\"" + name + "\" is " + value + "; supported is " + supported);
        }
    }

    private static int keyValueHeads(Fields f, ModelFamily family, int heads) throws FormatException {
        // transformers reads null as one for each query head, but has a number of its own where the field is absent.
        Integer own = f.has("num_key_value_heads") ? null : family.keyValueHeads;
        int count = own != null ? own : f.count("num_key_value_heads", heads);
        if (heads % count != 0) {
            throw f.error("num_attention_heads " + heads + " is not a multiple of num_key_value_heads " + count
                    + (own != null ? ", which a " + family.architecture + " has where config.json does not say" : ""));
        }
        return count;
    }

    private static int headDim(Fields f, ModelFamily family, int hidden, int heads) throws FormatException {
        Integer given = f.countOrNull("head_dim");
        boolean qwen3 = family == ModelFamily.QWEN3;
        if (given == null && !qwen3 && hidden % heads != 0) {
            throw f.error("hidden_size " + hidden + " is not a multiple of num_attention_heads " + heads
                    + " and there is no head_dim");
        }
        int headDim = given != null ? given : qwen3 ? ModelFamily.QWEN3_HEAD_DIM : hidden / heads;
        if (headDim % 2 != 0) {
            throw f.error("head_dim is " + headDim + "; rotary embeddings need an even number");
        }
        if ((long) heads * headDim > Integer.MAX_VALUE) {
            throw f.error("num_attention_heads " + heads + " times head_dim " + headDim
                    + " is more than any layer has; expected less than 2^31");
        }
        return headDim;
    }

    /** The window in tokens (0: none) and the layers that it applies to. */
    private record Sliding(int window, List<Integer> layers) {
        static final Sliding NONE = new Sliding(0, List.of());
    }

    /**
     * Llama has no windows, whatever its config says. Mistral's layers all slide unless {@code sliding_window} is null; Qwen's slide
     * from {@code max_window_layers} on if {@code use_sliding_window} is true. {@code layer_types} goes before either.
     */
    private static Sliding sliding(Fields f, ModelFamily family, int layers) throws FormatException {
        List<String> types = f.texts("layer_types");
        if (types != null && (types.size() != layers || !LAYER_TYPES.containsAll(types))) {
            throw f.error("\"layer_types\" is " + types + "; expected " + layers + " times one of " + LAYER_TYPES);
        }
        f.ignore("sliding_window", "max_window_layers"); // unless they are in effect
        boolean used = f.flag("use_sliding_window", false);
        boolean inEffect = switch (family) {
            case LLAMA -> false;
            case MISTRAL -> true;
            case QWEN2, QWEN3 -> used;
        };
        if (!inEffect || f.isNull("sliding_window")) {
            if (types != null && types.contains("sliding_attention")) {
                throw f.error("\"layer_types\" has sliding_attention layers, but no sliding window is in effect");
            }
            return Sliding.NONE;
        }
        int window = f.count("sliding_window", ModelFamily.SLIDING_WINDOW);
        int full = family == ModelFamily.MISTRAL ? 0 : maxWindowLayers(f);
        List<Integer> sliding = IntStream.range(0, layers)
                .filter(i -> types != null ? types.get(i).equals("sliding_attention") : i >= full)
                .boxed()
                .toList();
        return sliding.isEmpty() ? Sliding.NONE : new Sliding(window, sliding);
    }

    private static int maxWindowLayers(Fields f) throws FormatException {
        double value = f.number("max_window_layers", ModelFamily.MAX_WINDOW_LAYERS);
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
                        + "_attn_implementation_autoset "
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
