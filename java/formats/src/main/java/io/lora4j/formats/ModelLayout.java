package io.lora4j.formats;

import io.lora4j.formats.ModelModule.Kind;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Scheme;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The modules and tensors of a Llama-family model in Hugging Face's names. */
final class ModelLayout {
    private static final Set<DType> WEIGHT_TYPES = EnumSet.of(DType.F32, DType.F16, DType.BF16);
    private static final int SHOWN = 5;
    private static final String EMBEDDING = "model.embed_tokens.weight";
    private static final String HEAD = "lm_head.weight";

    private ModelLayout() {}

    static Map<String, ModelModule> modules(ModelConfig c) {
        List<ModelModule> modules = new ArrayList<>();
        modules.add(ModelModule.container("model"));
        modules.add(new ModelModule("model.embed_tokens", Kind.EMBEDDING, c.vocabSize(), c.hiddenSize(), false));
        modules.add(ModelModule.container("model.layers"));
        for (int layer = 0; layer < c.numHiddenLayers(); layer++) {
            addBlock(modules, c, "model.layers." + layer);
        }
        modules.add(ModelModule.norm("model.norm", c.hiddenSize()));
        modules.add(ModelModule.container("model.rotary_emb"));
        modules.add(new ModelModule("lm_head", Kind.HEAD, c.vocabSize(), c.hiddenSize(), false));
        Map<String, ModelModule> byName = new LinkedHashMap<>();
        modules.forEach(module -> byName.put(module.name(), module));
        return byName;
    }

    private static void addBlock(List<ModelModule> modules, ModelConfig c, String block) {
        int hidden = c.hiddenSize();
        String attention = block + ".self_attn";
        String mlp = block + ".mlp";
        modules.add(ModelModule.container(block));
        modules.add(ModelModule.norm(block + ".input_layernorm", hidden));
        modules.add(ModelModule.container(attention));
        modules.add(ModelModule.linear(attention + ".q_proj", c.queryWidth(), hidden, c.attentionBias()));
        modules.add(ModelModule.linear(attention + ".k_proj", c.keyValueWidth(), hidden, c.attentionBias()));
        modules.add(ModelModule.linear(attention + ".v_proj", c.keyValueWidth(), hidden, c.attentionBias()));
        if (c.qkNorm()) {
            modules.add(ModelModule.norm(attention + ".q_norm", c.headDim()));
            modules.add(ModelModule.norm(attention + ".k_norm", c.headDim()));
        }
        modules.add(ModelModule.linear(attention + ".o_proj", hidden, c.queryWidth(), c.outputBias()));
        modules.add(ModelModule.norm(block + ".post_attention_layernorm", hidden));
        modules.add(ModelModule.container(mlp));
        modules.add(ModelModule.linear(mlp + ".gate_proj", c.intermediateSize(), hidden, c.mlpBias()));
        modules.add(ModelModule.linear(mlp + ".up_proj", c.intermediateSize(), hidden, c.mlpBias()));
        modules.add(ModelModule.container(mlp + ".act_fn"));
        modules.add(ModelModule.linear(mlp + ".down_proj", hidden, c.intermediateSize(), c.mlpBias()));
    }

    static Map<String, List<Long>> tensors(ModelConfig c) {
        Map<String, List<Long>> tensors = new LinkedHashMap<>();
        for (ModelModule module : modules(c).values()) {
            boolean tiedHead = module.kind() == Kind.HEAD && c.tieWordEmbeddings();
            if (module.kind() == Kind.CONTAINER || tiedHead) {
                continue;
            }
            boolean vector = module.kind() == Kind.NORM;
            tensors.put(
                    module.name() + ".weight",
                    vector ? List.of(module.outFeatures()) : List.of(module.outFeatures(), module.inFeatures()));
            if (module.bias()) {
                tensors.put(module.name() + ".bias", List.of(module.outFeatures()));
            }
        }
        return tensors;
    }

    static void validate(ModelConfig c, Checkpoint checkpoint) throws FormatException {
        Map<String, List<Long>> expected = tensors(c);
        Set<String> explained = quantized(c, checkpoint, expected);
        Map<String, TensorInfo> found = checkpoint.tensors();
        String where = checkpoint.path() + ": ";
        String source = checkpoint instanceof GgufModel ? "its metadata" : "config.json";
        List<String> missing = expected.keySet().stream()
                .filter(name -> !found.containsKey(name))
                .toList();
        if (!missing.isEmpty()) {
            throw new FormatException(where + "missing " + some(missing) + " of the " + expected.size()
                    + " tensors that " + source + " implies for a " + c.architecture()
                    + "; the checkpoint is incomplete or " + source + " is of another model");
        }
        List<String> unexpected = found.keySet().stream()
                .filter(name -> !expected.containsKey(name) && !explained.contains(name) && !tolerated(c, name))
                .toList();
        if (!unexpected.isEmpty()) {
            throw new FormatException(
                    where + "unexpected " + some(unexpected) + ", which a " + c.architecture() + " with " + source
                            + " does not have; " + source + " is of another model, or the checkpoint is quantized");
        }
        for (Map.Entry<String, List<Long>> entry : expected.entrySet()) {
            TensorInfo info = checkpoint.tensor(entry.getKey());
            if (!info.shape().equals(entry.getValue())) {
                throw new FormatException(where + "tensor " + info.name() + " has shape " + info.shape() + "; " + source
                        + " implies " + entry.getValue() + "; checkpoint and " + source
                        + " are of different models");
            }
            boolean blocks = info.shape().size() == 2
                    && info.scheme().filter(scheme -> scheme != Scheme.DENSE).isPresent();
            if (!blocks && info.readableType().filter(WEIGHT_TYPES::contains).isEmpty()) {
                throw new FormatException(
                        where + "tensor " + info.name() + " has dtype " + info.typeName()
                                + "; supported for weights are F32, F16 and BF16, for matrices of GGUF also its blocks: convert the checkpoint");
            }
        }
        if (c.tieWordEmbeddings()) {
            validateTiedHead(checkpoint);
        }
    }

    /** Takes the weights of quantized layers from what is expected, and returns the names of the tensors that they have instead. */
    private static Set<String> quantized(ModelConfig c, Checkpoint checkpoint, Map<String, List<Long>> expected)
            throws FormatException {
        Set<String> names = new HashSet<>();
        Quantization quantization = c.quantization();
        if (quantization == null) {
            return names;
        }
        for (ModelModule module : modules(c).values()) {
            if (expected.containsKey(module.name() + ".weight") && covers(quantization, checkpoint, module)) {
                names.addAll(
                        QuantizedLayer.find(quantization, checkpoint, module).names());
                expected.remove(module.name() + ".weight");
            }
        }
        return names;
    }

    private static boolean covers(Quantization quantization, Checkpoint checkpoint, ModelModule module)
            throws FormatException {
        try {
            return quantization.covers(module);
        } catch (IllegalArgumentException e) {
            // An expression that takes too long to match.
            throw new FormatException(
                    checkpoint.path() + ": config.json: quantization_config: modules to leave out: " + e.getMessage(),
                    e);
        }
    }

    /** transformers 4 would use the embedding and transformers 5 the head where a tied model's checkpoint has both and they differ. */
    private static void validateTiedHead(Checkpoint checkpoint) throws FormatException {
        if (checkpoint.tensors().containsKey(HEAD) && checkpoint.data(HEAD).mismatch(checkpoint.data(EMBEDDING)) >= 0) {
            throw new FormatException(checkpoint.path() + ": tensor " + HEAD + " differs from " + EMBEDDING
                    + ", but config.json says tie_word_embeddings; set it to false to use the head of the checkpoint");
        }
    }

    private static boolean tolerated(ModelConfig c, String name) {
        return name.endsWith("rotary_emb.inv_freq") || (name.equals(HEAD) && c.tieWordEmbeddings());
    }

    private static String some(List<String> names) {
        String shown = String.join(", ", names.subList(0, Math.min(SHOWN, names.size())));
        return names.size() <= SHOWN ? shown : shown + " and " + (names.size() - SHOWN) + " more";
    }
}
