package io.lora4j.formats;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.node.ArrayNode;
import tools.jackson.databind.node.JsonNodeFactory;
import tools.jackson.databind.node.ObjectNode;

/**
 * The config of the model in a GGUF file, by way of the {@code config.json} that the model would have. A key of the architecture that is
 * not understood is refused by name. Source: ggml's {@code docs/gguf.md}.
 */
final class GgufConfig {
    static final String TOKENS = "tokenizer.ggml.tokens";
    private static final String ARCHITECTURE = "general.architecture";
    /** Divisors of the frequencies (Llama 3.1 and later). */
    static final String ROPE_DIVISORS = "rope_freqs.weight";

    private static final String LLAMA = "llama";
    private static final Map<String, ModelFamily> FAMILIES =
            Map.of(LLAMA, ModelFamily.LLAMA, "qwen2", ModelFamily.QWEN2, "qwen3", ModelFamily.QWEN3);
    private static final Set<String> UNDERSTOOD = Set.of(
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "vocab_size",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_rms_epsilon",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.original_context_length",
            "rope.scaling.finetuned");

    private final GgufFile file;
    private final String prefix;

    private GgufConfig(GgufFile file, String architecture) {
        this.file = file;
        this.prefix = architecture + ".";
    }

    /** Returns whether the rows of query and key projections are interleaved. */
    static boolean isLlama(GgufFile file) {
        return LLAMA.equals(file.values().get(ARCHITECTURE));
    }

    static ModelConfig read(GgufFile file) throws FormatException {
        String architecture = String.valueOf(file.values().get(ARCHITECTURE));
        ModelFamily family = FAMILIES.get(architecture);
        if (family == null) {
            throw new FormatException(file.path() + ": " + ARCHITECTURE + " is " + GgufFile.brief(architecture)
                    + "; supported are " + FAMILIES.keySet().stream().sorted().toList());
        }
        GgufConfig config = new GgufConfig(file, architecture);
        ObjectNode json = config.json(family);
        return ModelConfigReader.read(
                file.path(), json, config.rope(json.get("head_dim").intValue()));
    }

    /**
     * Returns the config.json that the model would have.
     *
     * @throws FormatException also if its frequencies cannot be said there
     */
    static Map<String, Object> toHuggingFace(GgufFile file) throws FormatException {
        ModelConfig config = read(file);
        ModelFamily family = FAMILIES.getOrDefault(config.modelType(), ModelFamily.LLAMA);
        ObjectNode json = new GgufConfig(file, config.modelType()).json(family);
        json.put("model_type", family.modelType);
        json.put("hidden_act", "silu");
        // What the tensors that are not quantized become, unless they are asked to be of another type.
        json.put("torch_dtype", "float32");
        json.put("rope_theta", config.rope().theta());
        if (config.rope() instanceof Rope.Linear linear) {
            json.putObject("rope_scaling").put("rope_type", "linear").put("factor", linear.factor());
        } else if (config.rope() instanceof Rope.Divided divided) {
            Rope.Llama3 llama3 = llama3(file, config, divided);
            json.putObject("rope_scaling")
                    .put("rope_type", "llama3")
                    .put("factor", llama3.factor())
                    .put("low_freq_factor", llama3.lowFreqFactor())
                    .put("high_freq_factor", llama3.highFreqFactor())
                    .put("original_max_position_embeddings", llama3.originalContext());
        }
        return Json.toMap(json);
    }

    /** The file has divisors and not what they were made from: they are found again if they are those of a released model. */
    private static Rope.Llama3 llama3(GgufFile file, ModelConfig config, Rope.Divided divided) throws FormatException {
        for (double factor : new double[] {8, 16, 32}) {
            Rope.Llama3 known = new Rope.Llama3(divided.theta(), factor, 1, 4, 8192);
            if (GgufModelMetadata.divisors(known, config.headDim()).equals(divided.divisors())) {
                return known;
            }
        }
        throw new FormatException(
                file.path() + ": tensor " + ROPE_DIVISORS + " divides the frequencies as no Llama 3 does"
                        + " that is known here (factor 8, 16 or 32 of 8192 positions), and config.json has no other way to say it;"
                        + " use the model in Hugging Face's layout, or write a GGUF file");
    }

    private ObjectNode json(ModelFamily family) throws FormatException {
        refuseTheRest();
        long heads = count("attention.head_count");
        long hidden = count("embedding_length");
        ObjectNode json = JsonNodeFactory.instance.objectNode();
        json.putArray("architectures").add(family.architecture);
        json.put("vocab_size", vocabulary());
        json.put("hidden_size", hidden);
        json.put("intermediate_size", count("feed_forward_length"));
        long blocks = count("block_count");
        if (blocks > file.tensors().size()) {
            throw wrong("block_count", "at most its " + file.tensors().size() + " tensors");
        }
        json.put("num_hidden_layers", blocks);
        json.put("num_attention_heads", heads);
        json.put("num_key_value_heads", has("attention.head_count_kv") ? count("attention.head_count_kv") : heads);
        json.put("head_dim", headDim(hidden, heads));
        json.put("max_position_embeddings", count("context_length"));
        json.put("rms_norm_eps", number("attention.layer_norm_rms_epsilon"));
        json.put("tie_word_embeddings", !file.tensors().containsKey("output.weight"));
        json.put("attention_bias", file.tensors().containsKey("blk.0.attn_q.bias"));
        json.put("mlp_bias", file.tensors().containsKey("blk.0.ffn_gate.bias"));
        ids(json);
        return json;
    }

    private void refuseTheRest() throws FormatException {
        for (Map.Entry<String, Object> entry : file.values().entrySet()) {
            String key = entry.getKey();
            if (key.startsWith(prefix) && !UNDERSTOOD.contains(key.substring(prefix.length()))) {
                throw new FormatException(file.path() + ": metadata " + key + " is " + GgufFile.brief(entry.getValue())
                        + ", which lora4j does not understand and which may change the result; use a model without it");
            }
        }
    }

    private long vocabulary() throws FormatException {
        return has("vocab_size") || !(file.values().get(TOKENS) instanceof List<?> tokens)
                ? count("vocab_size")
                : tokens.size();
    }

    private long headDim(long hidden, long heads) throws FormatException {
        if (!has("attention.key_length") && hidden % heads != 0) {
            throw wrong("embedding_length", "a multiple of " + prefix + "attention.head_count, " + heads);
        }
        long dim = has("attention.key_length") ? count("attention.key_length") : hidden / heads;
        for (String same : List.of("attention.value_length", "rope.dimension_count")) {
            if (has(same) && count(same) != dim) {
                throw wrong(same, "the width of a head, " + dim);
            }
        }
        return dim;
    }

    private Rope rope(int headDim) throws FormatException {
        double theta = has("rope.freq_base") ? number("rope.freq_base") : ModelFamily.ROPE_THETA;
        if (theta <= 0) {
            throw wrong("rope.freq_base", "a positive number");
        }
        Object type = value("rope.scaling.type");
        boolean divided = file.tensors().containsKey(ROPE_DIVISORS);
        if (type == null || type.equals("none")) {
            return divided ? new Rope.Divided(theta, divisors(headDim / 2)) : new Rope.Default(theta);
        }
        if (!type.equals("linear") || divided) {
            throw wrong("rope.scaling.type", divided ? "none beside the tensor " + ROPE_DIVISORS : "none or linear");
        }
        double factor = number("rope.scaling.factor");
        if (factor <= 0) {
            throw wrong("rope.scaling.factor", "a positive number");
        }
        return new Rope.Linear(theta, factor);
    }

    private List<Float> divisors(int count) throws FormatException {
        TensorInfo info = file.tensor(ROPE_DIVISORS);
        if (!info.typeName().equals("F32") || !info.shape().equals(List.of((long) count))) {
            throw new FormatException(file.path() + ": tensor " + ROPE_DIVISORS + " is " + info.typeName() + " "
                    + info.shape() + "; expected F32 [" + count + "], a divisor for each pair of a head");
        }
        List<Float> divisors = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            float divisor = Widening.get(file.data(ROPE_DIVISORS), i);
            if (!(divisor > 0 && divisor < Float.POSITIVE_INFINITY)) {
                throw new FormatException(file.path() + ": tensor " + ROPE_DIVISORS + " holds " + divisor
                        + " at element " + i + "; expected positive numbers");
            }
            divisors.add(divisor);
        }
        return divisors;
    }

    private void ids(ObjectNode json) throws FormatException {
        for (String role : List.of("bos", "padding")) {
            Integer id = GgufTokenizer.id(file, role);
            if (id != null) {
                json.put(role.equals("bos") ? "bos_token_id" : "pad_token_id", id);
            }
        }
        ArrayNode ends = json.putArray("eos_token_id");
        GgufTokenizer.ends(file).forEach(ends::add);
    }

    private @Nullable Object value(String key) {
        return file.values().get(prefix + key);
    }

    private boolean has(String key) {
        return value(key) != null;
    }

    private long count(String key) throws FormatException {
        if (value(key) instanceof Long count && count > 0 && count <= Integer.MAX_VALUE) {
            return count;
        }
        throw wrong(key, "a positive integer");
    }

    private double number(String key) throws FormatException {
        if (value(key) instanceof Double number && Double.isFinite(number)) {
            return number;
        }
        throw wrong(key, "a finite number");
    }

    private FormatException wrong(String key, String expected) {
        return new FormatException(file.path() + ": metadata " + prefix + key + " is " + GgufFile.brief(value(key))
                + "; expected " + expected);
    }
}
