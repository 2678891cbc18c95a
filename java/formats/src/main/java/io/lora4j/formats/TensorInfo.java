package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Scheme;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/**
 * What a checkpoint says about one tensor. Immutable.
 *
 * @param name the tensor's name in the file
 * @param typeName the element type or block format as the file's format names it, for example {@code BF16} or {@code Q4_K}
 * @param shape sizes, slowest dimension first (row-major, as PyTorch prints it); empty for a scalar
 * @param offset position of the first byte of data in its file
 * @param bytes length of the data in bytes
 */
public record TensorInfo(String name, String typeName, List<Long> shape, long offset, long bytes) {

    /** Copies the shape. */
    public TensorInfo {
        shape = List.copyOf(shape);
    }

    /** Returns the element type, empty for block formats and types that the kernels do not read. */
    public Optional<DType> readableType() {
        for (DType dtype : DType.values()) {
            if (dtype.name().equals(typeName)) {
                return Optional.of(dtype);
            }
        }
        return Optional.empty();
    }

    /** Returns how a weight of these bytes is stored, empty for types that the kernels do not read. */
    public Optional<Scheme> scheme() {
        if (readableType().isPresent()) {
            return Optional.of(Scheme.DENSE);
        }
        String name = "GGUF_" + typeName;
        return Arrays.stream(Scheme.values())
                .filter(scheme -> scheme.name().equals(name))
                .findFirst();
    }

    /**
     * Returns the element type.
     *
     * @throws IllegalStateException if the data is in a format that has no plain element type
     */
    public DType dtype() {
        return readableType()
                .orElseThrow(() -> new IllegalStateException(
                        "tensor " + name + " is stored as " + typeName + ", which has no plain element type"));
    }

    /** Returns the number of elements: the product of the shape. */
    public long elements() {
        long product = 1;
        for (long size : shape) {
            product = Math.multiplyExact(product, size);
        }
        return product;
    }

    /** Returns the shape as a new array. */
    public long[] dims() {
        return shape.stream().mapToLong(Long::longValue).toArray();
    }
}
