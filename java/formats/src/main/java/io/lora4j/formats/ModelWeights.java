package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The weights of a model on disk under Hugging Face's names, checked against its config: a directory in Hugging Face's layout, or a GGUF
 * file. Quantized matrices are handed out as they are stored.
 *
 * <p>Threads: as {@link Checkpoint}.
 */
public final class ModelWeights implements AutoCloseable {
    private final ModelConfig config;
    private final Checkpoint checkpoint;
    private final Map<String, ModelModule> modules;

    private ModelWeights(ModelConfig config, Checkpoint checkpoint) {
        this.config = config;
        this.checkpoint = checkpoint;
        this.modules = config.modules();
    }

    /**
     * Opens a model's config and weights.
     *
     * @throws FormatException if a file is missing, damaged or not understood, or config and weights do not belong together
     */
    public static ModelWeights open(Path fileOrDir) throws IOException {
        ModelConfig config = ModelConfig.read(fileOrDir);
        Optional<Path> gguf = Checkpoint.gguf(fileOrDir);
        Checkpoint checkpoint = gguf.isPresent() ? GgufModel.open(gguf.get()) : Checkpoint.open(fileOrDir);
        try {
            return of(config, checkpoint);
        } catch (IOException | RuntimeException e) {
            checkpoint.close();
            throw e;
        }
    }

    /** @param checkpoint is closed with the weights */
    static ModelWeights of(ModelConfig config, Checkpoint checkpoint) throws FormatException {
        config.validate(checkpoint);
        return new ModelWeights(config, checkpoint);
    }

    /** Returns the config. */
    public ModelConfig config() {
        return config;
    }

    /** Returns the file, or the index of a sharded checkpoint. */
    public Path path() {
        return checkpoint.path();
    }

    /** Returns whether there is a tensor of this name. */
    public boolean has(String tensor) {
        return checkpoint.tensors().containsKey(tensor);
    }

    /**
     * Returns the matrix of a linear layer, the head or the embedding.
     *
     * @param module the module's name, for example {@code model.layers.0.self_attn.q_proj}
     * @param copies owns what has to be copied: tensors at odd addresses, rows in another order
     */
    public StoredWeight matrix(String module, Arena copies) throws FormatException {
        QuantizedLayer quantized = quantized(module);
        if (quantized != null) {
            return quantized.open(copies);
        }
        TensorInfo info = checkpoint.tensor(module + ".weight");
        Scheme scheme = info.scheme().orElseThrow();
        long rows = info.shape().getFirst();
        Tensor values = scheme == Scheme.DENSE
                ? tensor(info.name(), copies)
                : Tensor.of(checkpoint.data(info.name(), copies), DType.U8, rows, info.bytes() / rows);
        return new StoredWeight(scheme, rows, info.shape().getLast(), Map.of(Part.VALUES, values));
    }

    /** Returns the tensors that {@link #matrix} is made of, with their bytes as they lie in the file. */
    public Map<TensorInfo, MemorySegment> tensors(String module) throws FormatException {
        Map<TensorInfo, MemorySegment> tensors = new LinkedHashMap<>();
        for (String name : names(module)) {
            tensors.put(checkpoint.tensor(name), checkpoint.data(name));
        }
        return tensors;
    }

    private Set<String> names(String module) throws FormatException {
        QuantizedLayer quantized = quantized(module);
        return quantized == null ? Set.of(module + ".weight") : new TreeSet<>(quantized.names());
    }

    private @Nullable QuantizedLayer quantized(String name) throws FormatException {
        Quantization quantization = config.quantization();
        ModelModule module = modules.get(name);
        return module == null || quantization == null || !quantization.covers(module)
                ? null
                : QuantizedLayer.find(quantization, checkpoint, module);
    }

    /**
     * Returns a tensor that has a plain element type, such as the weight of a norm.
     *
     * @param copies owns the copy of a tensor at an odd address
     */
    public Tensor tensor(String name, Arena copies) throws FormatException {
        TensorInfo info = checkpoint.tensor(name);
        return aligned(checkpoint.data(name, copies), info.dtype(), info.dims(), copies);
    }

    /** A file may have a header of any length, but kernels want elements at multiples of their size. */
    static Tensor aligned(MemorySegment bytes, DType dtype, long[] shape, Arena copies) {
        if (bytes.address() % dtype.bytes() == 0) {
            return Tensor.of(bytes, dtype, shape);
        }
        Tensor aligned = Tensor.allocate(copies, dtype, shape);
        aligned.data().copyFrom(bytes);
        return aligned;
    }

    /** Lets the pages of a module's tensors leave memory; reading them again reads the file again. */
    public void unload(String module) throws FormatException {
        for (String tensor : names(module)) {
            checkpoint.unload(tensor);
        }
    }

    @Override
    public void close() {
        checkpoint.close();
    }
}
