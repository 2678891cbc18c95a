package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Dequantize;
import io.lora4j.kernels.DequantizeOps;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The weights of a model as they are stored, dense or quantized, decoded where rows are read. */
public final class StoredValues implements ModelValues {
    private final ModelWeights weights;
    private final Queue queue;
    /** The matrix that was read last, opened; the next rows are likely its own. */
    private @Nullable Opened opened;

    /** A matrix and the memory of what had to be copied of it. */
    private record Opened(String module, StoredWeight stored, Arena arena) {}

    private StoredValues(ModelWeights weights, Queue queue) {
        this.weights = weights;
        this.queue = queue;
    }

    /**
     * Opens a model.
     *
     * @param model a folder in Hugging Face's layout, dense or quantized, or a GGUF file
     * @param queue decodes quantized weights
     * @throws FormatException if a file is missing or damaged, or the tensors are not those of the config
     */
    public static StoredValues open(Path model, Queue queue) throws IOException {
        return new StoredValues(ModelWeights.open(model), queue);
    }

    @Override
    public ModelConfig config() {
        return weights.config();
    }

    @Override
    public DType dtype(String name) throws FormatException {
        DType otherwise = config().dtype() == null ? DType.F32 : config().dtype();
        if (isVector(name)) {
            try (Arena arena = Arena.ofConfined()) {
                return weights.tensor(name, arena).dtype();
            }
        }
        StoredWeight stored = matrix(name);
        return stored.scheme() == Scheme.DENSE ? stored.values().dtype() : otherwise;
    }

    @Override
    public void read(String name, long from, Tensor out) throws IOException {
        if (isVector(name)) {
            try (Arena arena = Arena.ofConfined()) {
                widen(name, weights.tensor(name, arena), from, out);
            }
            return;
        }
        StoredWeight stored = matrix(name);
        if (stored.scheme() == Scheme.DENSE) {
            widen(name, stored.values(), from, out);
            return;
        }
        try (Weight weight = stored.weight().borrow(queue.device());
                Arena arena = Arena.ofShared()) {
            DequantizeOps.forward(
                    queue,
                    Dequantize.builder(arena)
                            .weight(weight)
                            .rowBegin(from)
                            .out(out)
                            .build());
        } catch (NumericException e) {
            throw new FormatException(
                    weights.path() + ": tensor " + name + " holds a NaN or infinite value (" + e.getMessage()
                            + "); the file is damaged, or its training diverged",
                    e);
        }
    }

    @Override
    public StoredWeight stored(String name) throws FormatException {
        return matrix(name);
    }

    @Override
    public Map<TensorInfo, MemorySegment> tensors(String name) throws FormatException {
        return weights.tensors(name.substring(0, name.length() - ".weight".length()));
    }

    private boolean isVector(String name) throws FormatException {
        var shape = config().expectedTensors().get(name);
        if (shape == null) {
            throw new FormatException(weights.path() + ": the model has no tensor " + name);
        }
        return shape.size() == 1;
    }

    private StoredWeight matrix(String name) throws FormatException {
        String module = name.substring(0, name.length() - ".weight".length());
        if (opened == null || !opened.module.equals(module)) {
            forget();
            Arena arena = newArena();
            try {
                opened = new Opened(module, weights.matrix(module, arena), arena);
            } catch (FormatException | RuntimeException e) {
                arena.close();
                throw e;
            }
        }
        return opened.stored;
    }

    @SuppressWarnings("MustBeClosed") // Closed by forget.
    private static Arena newArena() {
        return Arena.ofShared();
    }

    private void widen(String name, Tensor values, long from, Tensor out) throws FormatException {
        long columns = out.size(1);
        DType dtype = values.dtype();
        MemorySegment rows = values.data().asSlice(from * columns * dtype.bytes(), out.elements() * dtype.bytes());
        long bad = Widening.toFloat32(rows, dtype, out.data());
        if (rows.isMapped()) {
            rows.unload(); // Or the pages of a large tensor would all be in memory in the end.
        }
        if (bad >= 0) {
            throw new FormatException(weights.path() + ": tensor " + name + " holds " + Widening.get(out.data(), bad)
                    + " at row " + (from + bad / columns) + ", column " + bad % columns
                    + "; the file is damaged, or its training diverged");
        }
    }

    @Override
    public void release(String name) throws IOException {
        if (!isVector(name)) {
            forget();
            weights.unload(name.substring(0, name.length() - ".weight".length()));
        }
    }

    private void forget() {
        if (opened != null) {
            opened.arena.close();
            opened = null;
        }
    }

    @Override
    public void close() {
        forget();
        weights.close();
    }
}
