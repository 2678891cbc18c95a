package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;

/** The weights of a dense model in Hugging Face's layout. */
public final class StoredValues implements ModelValues {
    private final ModelConfig config;
    private final Checkpoint checkpoint;

    private StoredValues(ModelConfig config, Checkpoint checkpoint) {
        this.config = config;
        this.checkpoint = checkpoint;
    }

    /**
     * Opens a model.
     *
     * @param dir a folder with config.json and safetensors files
     * @throws FormatException if a file is missing or damaged, or the tensors are not those of the config
     */
    public static StoredValues open(Path dir) throws IOException {
        ModelConfig config = ModelConfig.read(dir);
        Checkpoint checkpoint = Checkpoint.open(dir);
        try {
            config.validate(checkpoint);
            return new StoredValues(config, checkpoint);
        } catch (IOException | RuntimeException e) {
            checkpoint.close();
            throw e;
        }
    }

    @Override
    public ModelConfig config() {
        return config;
    }

    @Override
    public DType dtype(String name) throws FormatException {
        return checkpoint.tensor(name).dtype();
    }

    @Override
    public void read(String name, long from, Tensor out) throws IOException {
        TensorInfo info = checkpoint.tensor(name);
        DType dtype = info.dtype();
        long columns = out.size(1);
        MemorySegment rows =
                checkpoint.data(name).asSlice(from * columns * dtype.bytes(), out.elements() * dtype.bytes());
        long bad = Widening.toFloat32(rows, dtype, out.data());
        if (bad >= 0) {
            throw new FormatException(checkpoint.path() + ": tensor " + name + " holds "
                    + Widening.get(out.data(), bad) + " at row " + (from + bad / columns) + ", column " + bad % columns
                    + "; the file is damaged, or its training diverged");
        }
    }

    @Override
    public void release(String name) throws IOException {
        MemorySegment data = checkpoint.data(name);
        if (data.isMapped()) {
            data.unload();
        }
    }

    @Override
    public void close() {
        checkpoint.close();
    }
}
