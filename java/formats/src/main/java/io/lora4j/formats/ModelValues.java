package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.util.Map;

/**
 * The weights of a model as float32, some rows at a time, whatever they are stored as. A vector is a matrix of one column. Tensors
 * are those of {@link ModelConfig#expectedTensors}. One thread at a time.
 */
public interface ModelValues extends AutoCloseable {

    /** Returns the model's config. */
    ModelConfig config();

    /**
     * Returns the dense type that a tensor has, or would have if it were not quantized: F32, F16 or BF16.
     *
     * @throws FormatException if there is no such tensor
     */
    DType dtype(String name) throws FormatException;

    /**
     * Reads rows {@code [from, from + out.size(0))} of a tensor.
     *
     * @param out [rows, columns], F32, contiguous
     * @throws FormatException if a value is NaN or infinite; the message names file, tensor and element
     */
    void read(String name, long from, Tensor out) throws IOException;

    /**
     * Returns a matrix as it is stored where the values come from, valid until another one is read.
     *
     * @throws FormatException if there is no such matrix
     */
    StoredWeight stored(String name) throws FormatException;

    /** Returns whether the values of a tensor are others than those that {@link #stored} has. */
    default boolean isChanged(String name) {
        return false;
    }

    /**
     * Returns the tensors that a matrix is stored as, with their bytes: one, or of a quantized matrix several.
     *
     * @throws FormatException if there is no such matrix
     */
    Map<TensorInfo, MemorySegment> tensors(String name) throws FormatException;

    /** Tells that a tensor will not be read again soon: its pages may leave the memory. */
    default void release(String name) throws IOException {}

    @Override
    void close();
}
