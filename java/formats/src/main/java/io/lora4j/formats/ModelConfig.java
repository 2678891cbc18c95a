package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The {@code config.json} of a Llama-family model: a decoder of pre-norm blocks with rotary grouped-query attention and a
 * SwiGLU MLP. Reads the spellings of transformers 4 and 5; whatever would change the result and is not understood is refused
 * by name. Immutable.
 *
 * @param architecture the model's class name, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or
 *     Qwen3ForCausalLM
 * @param modelType {@code model_type}
 * @param vocabSize V, rows of the embedding
 * @param hiddenSize width of the residual stream
 * @param intermediateSize width of the MLP
 * @param numHiddenLayers number of blocks
 * @param numAttentionHeads H, query heads
 * @param numKeyValueHeads key and value heads; divides H
 * @param headDim D, width of a head; H·D may differ from the hidden size
 * @param hiddenAct activation of the MLP's gate: {@code silu}
 * @param maxPositionEmbeddings the longest context that the model was made for
 * @param rmsNormEps added to the mean square in every RMSNorm
 * @param tieWordEmbeddings whether the output head is the embedding
 * @param attentionBias whether q, k and v projections have a bias
 * @param outputBias whether the attention's output projection has a bias
 * @param mlpBias whether the MLP's projections have a bias
 * @param qkNorm whether every query and key head is RMS-normalised before rotation (Qwen3)
 * @param slidingWindow tokens that a sliding layer attends to; 0 if no layer slides
 * @param slidingLayers indices of the sliding layers, ascending
 * @param rope rotary embedding
 * @param bosTokenId first token of a text, if the model has one
 * @param eosTokenIds tokens that end a text, maybe none
 * @param padTokenId padding, if the model has one
 * @param dtype the type that the config says the weights have, if it says so
 * @param quantization how the linear layers are quantized; null if config.json says that they are not. (The tensors of a GGUF file say
 *     themselves what they are.)
 */
public record ModelConfig(
        String architecture,
        String modelType,
        int vocabSize,
        int hiddenSize,
        int intermediateSize,
        int numHiddenLayers,
        int numAttentionHeads,
        int numKeyValueHeads,
        int headDim,
        String hiddenAct,
        int maxPositionEmbeddings,
        double rmsNormEps,
        boolean tieWordEmbeddings,
        boolean attentionBias,
        boolean outputBias,
        boolean mlpBias,
        boolean qkNorm,
        int slidingWindow,
        List<Integer> slidingLayers,
        Rope rope,
        @Nullable Integer bosTokenId,
        List<Integer> eosTokenIds,
        @Nullable Integer padTokenId,
        @Nullable DType dtype,
        @Nullable Quantization quantization) {

    /** Copies the lists. */
    public ModelConfig {
        slidingLayers = List.copyOf(slidingLayers);
        eosTokenIds = List.copyOf(eosTokenIds);
    }

    /**
     * Reads a config.
     *
     * @param fileOrDir {@code config.json}, a GGUF file, or the directory of a model in one of both layouts
     * @throws FormatException if it is missing, not understood, or of a model that is not supported
     */
    public static ModelConfig read(Path fileOrDir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(fileOrDir);
        if (gguf.isPresent()) {
            return GgufModel.readConfig(gguf.get());
        }
        Path file = Files.isDirectory(fileOrDir) ? fileOrDir.resolve("config.json") : fileOrDir;
        if (!Files.exists(file) && Files.exists(file.resolveSibling("params.json"))) {
            throw new FormatException(file.resolveSibling("params.json")
                    + ": is of a model in the layout of Mistral's or Meta's own programs, and there is no config.json;"
                    + " use the model in Hugging Face's layout (config.json and model*.safetensors)");
        }
        return ModelConfigReader.read(file, Json.readObject(file));
    }

    /** Returns the width of all query heads together, H·D. */
    public int queryWidth() {
        return numAttentionHeads * headDim;
    }

    /** Returns the width of all key heads together. */
    public int keyValueWidth() {
        return numKeyValueHeads * headDim;
    }

    /** Returns the attention window of a layer in tokens; 0 if it attends to everything before. */
    public int slidingWindow(int layer) {
        return slidingLayers.contains(layer) ? slidingWindow : 0;
    }

    /** Returns every module of the model by its Hugging Face name, in the order of the forward pass. */
    public Map<String, ModelModule> modules() {
        return ModelLayout.modules(this);
    }

    /** Returns the shape of every tensor that a dense checkpoint of this model holds, in the order of the forward pass. */
    public Map<String, List<Long>> expectedTensors() {
        return ModelLayout.tensors(this);
    }

    /**
     * Checks that a checkpoint holds exactly the tensors of this model, each with the right shape and in F32, F16 or BF16, or, of
     * matrices, in blocks of GGUF that the kernels read; and of quantized layers the tensors that their method has. Tolerated are {@code rotary_emb.inv_freq} buffers of old checkpoints and the head of a tied model.
     *
     * @throws FormatException naming the first tensors that are missing, unexpected, or of wrong shape or type
     */
    public void validate(Checkpoint checkpoint) throws FormatException {
        ModelLayout.validate(this, checkpoint);
    }

    /** Returns the number of parameters, the tied head counted once. */
    public long parameters() {
        return expectedTensors().values().stream()
                .mapToLong(shape -> shape.stream().reduce(1L, Math::multiplyExact))
                .sum();
    }
}
