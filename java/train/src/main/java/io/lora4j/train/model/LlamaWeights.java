package io.lora4j.train.model;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.LoraWeights;
import io.lora4j.formats.LowRankUpdate;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModelWeights;
import io.lora4j.formats.StoredWeight;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** The frozen weights of a model, checked against its config. Matrices stay where {@link WeightMode} says; vectors are copied. */
final class LlamaWeights implements AutoCloseable {

    /** The weights of one decoder block. */
    static final class Layer {
        final Tensor inputNorm;
        final Tensor postAttentionNorm;
        final @Nullable Tensor queryNorm;
        final @Nullable Tensor keyNorm;
        private final Weight[] weights = new Weight[Projection.values().length];
        private final @Nullable Tensor[] biases = new Tensor[Projection.values().length];

        private Layer(LlamaWeights all, int index, boolean qkNorm) throws FormatException {
            String block = "model.layers." + index;
            inputNorm = all.vector(block + ".input_layernorm.weight");
            postAttentionNorm = all.vector(block + ".post_attention_layernorm.weight");
            queryNorm = qkNorm ? all.vector(block + ".self_attn.q_norm.weight") : null;
            keyNorm = qkNorm ? all.vector(block + ".self_attn.k_norm.weight") : null;
            for (Projection projection : Projection.values()) {
                String module = projection.module(index);
                weights[projection.ordinal()] = all.matrix(module, all.form.fourBit());
                if (all.files.has(module + ".bias")) {
                    biases[projection.ordinal()] = all.vector(module + ".bias");
                }
            }
        }

        Weight weight(Projection projection) {
            return weights[projection.ordinal()];
        }

        @Nullable
        Tensor bias(Projection projection) {
            return biases[projection.ordinal()];
        }
    }

    final Weight embedding;
    final Weight head;
    final Tensor finalNorm;
    final List<Layer> layers = new ArrayList<>();

    private final ModelWeights files;
    private final Queue queue;
    private final ModelForm form;
    private final Arena arena = Arena.ofShared();
    private final List<Weight> opened = new ArrayList<>();

    LlamaWeights(ModelWeights files, Queue queue, ModelForm form) throws FormatException {
        ModelConfig config = files.config();
        this.files = files;
        this.queue = queue;
        this.form = form;
        try {
            embedding = matrix("model.embed_tokens", null);
            for (int layer = 0; layer < config.numHiddenLayers(); layer++) {
                layers.add(new Layer(this, layer, config.qkNorm()));
            }
            finalNorm = vector("model.norm.weight");
            head = config.tieWordEmbeddings() ? embedding : matrix("lm_head", null);
        } catch (Throwable failure) {
            close();
            throw failure;
        }
    }

    private Weight matrix(String module, @Nullable FourBit quantized) throws FormatException {
        boolean pack = form.mode() == WeightMode.PACK;
        try (Arena sources = Arena.ofShared()) {
            Arena owner = pack ? sources : arena;
            StoredWeight stored = files.matrix(module, owner);
            LoraWeights less =
                    form.less() == null ? null : form.less().modules().get(module);
            if (less != null) {
                stored = less(module, stored, less, owner);
            }
            if (quantized != null) {
                stored = quantized.quantize(queue, dense(module, stored, "load_in_4bit"), owner);
            }
            Weight weight = pack ? pack(stored) : stored.weight().borrow(queue.device());
            opened.add(weight);
            if (pack || quantized != null || less != null) {
                files.unload(module); // The copy replaces the file's pages in memory.
            }
            return weight;
        } catch (NumericException e) {
            throw new FormatException(
                    files.path() + ": tensor " + module + ".weight holds a NaN or infinite value (" + e.getMessage()
                            + "); the file is damaged, or its training diverged",
                    e);
        }
    }

    private Weight pack(StoredWeight stored) {
        Weight.Builder weight = stored.weight();
        return (stored.scheme() == Scheme.DENSE ? weight.compute(form.compute()) : weight).pack(queue);
    }

    private Tensor dense(String module, StoredWeight stored, String option) throws FormatException {
        if (stored.scheme() != Scheme.DENSE) {
            throw new FormatException(files.path() + ": tensor " + module + ".weight is quantized already ("
                    + stored.scheme() + "); " + option + " is for dense models: remove the option");
        }
        return stored.values();
    }

    private StoredWeight less(String module, StoredWeight stored, LoraWeights update, Arena owner)
            throws FormatException {
        Tensor source = dense(module, stored, "init_lora_weights");
        Tensor rest = Tensor.allocate(owner, DType.F32, source.shape());
        rest.copyFrom(source);
        LowRankUpdate.add(
                queue, update, -Objects.requireNonNull(form.less()).config().scaling(module), 0, rest);
        return new StoredWeight(Scheme.DENSE, stored.rows(), stored.cols(), Map.of(Part.VALUES, rest));
    }

    private Tensor vector(String name) throws FormatException {
        Tensor source = files.tensor(name, arena);
        float[] values = source.toFloatArray();
        for (int i = 0; i < values.length; i++) {
            if (!Float.isFinite(values[i])) {
                throw new FormatException(files.path() + ": tensor " + name + " holds " + values[i] + " at element " + i
                        + "; the file is damaged, or its training diverged");
            }
        }
        Tensor copy = Tensor.allocate(arena, source.dtype(), source.shape());
        copy.copyFrom(source);
        return copy;
    }

    /** Returns the native memory that the weights own, beside the mapped file. */
    long bytesHeld() {
        return opened.stream().mapToLong(Weight::bytesHeld).sum();
    }

    @Override
    public void close() {
        opened.forEach(Weight::close);
        arena.close();
    }
}
