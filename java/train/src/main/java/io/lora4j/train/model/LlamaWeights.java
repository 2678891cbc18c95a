package io.lora4j.train.model;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.TensorInfo;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
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
                weights[projection.ordinal()] = all.matrix(module + ".weight");
                if (all.checkpoint.tensors().containsKey(module + ".bias")) {
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

    private final Checkpoint checkpoint;
    private final Queue queue;
    private final WeightMode mode;
    private final Arena arena = Arena.ofShared();
    private final List<Weight> opened = new ArrayList<>();

    LlamaWeights(ModelConfig config, Checkpoint checkpoint, Queue queue, WeightMode mode) throws FormatException {
        this.checkpoint = checkpoint;
        this.queue = queue;
        this.mode = mode;
        config.validate(checkpoint);
        try {
            embedding = matrix("model.embed_tokens.weight");
            for (int layer = 0; layer < config.numHiddenLayers(); layer++) {
                layers.add(new Layer(this, layer, config.qkNorm()));
            }
            finalNorm = vector("model.norm.weight");
            head = config.tieWordEmbeddings() ? embedding : matrix("lm_head.weight");
        } catch (Throwable failure) {
            close();
            throw failure;
        }
    }

    private Weight matrix(String name) throws FormatException {
        Tensor values = tensor(name);
        try {
            Weight weight =
                    mode == WeightMode.PACK ? Weight.pack(queue, values) : Weight.borrow(queue.device(), values);
            opened.add(weight);
            if (mode == WeightMode.PACK && values.data().isMapped()) {
                values.data().unload(); // The packed copy replaces the file's pages in memory.
            }
            return weight;
        } catch (NumericException e) {
            throw new FormatException(
                    checkpoint.path() + ": tensor " + name + " holds a NaN or infinite value (" + e.getMessage()
                            + "); the file is damaged, or its training diverged",
                    e);
        }
    }

    private Tensor vector(String name) throws FormatException {
        Tensor source = tensor(name);
        float[] values = source.toFloatArray();
        for (int i = 0; i < values.length; i++) {
            if (!Float.isFinite(values[i])) {
                throw new FormatException(checkpoint.path() + ": tensor " + name + " holds " + values[i]
                        + " at element " + i + "; the file is damaged, or its training diverged");
            }
        }
        Tensor copy = Tensor.allocate(arena, source.dtype(), source.shape());
        copy.copyFrom(source);
        return copy;
    }

    private Tensor tensor(String name) throws FormatException {
        TensorInfo info = checkpoint.tensor(name);
        DType dtype = info.dtype();
        Tensor mapped = Tensor.of(checkpoint.data(name), dtype, info.dims());
        if (mapped.data().address() % dtype.bytes() == 0) {
            return mapped;
        }
        // A file may have a header of any length, but kernels want elements at multiples of their size.
        Tensor aligned = Tensor.allocate(arena, dtype, info.dims());
        aligned.data().copyFrom(mapped.data());
        return aligned;
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
