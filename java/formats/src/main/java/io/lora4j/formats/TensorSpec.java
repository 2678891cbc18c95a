package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.util.List;

/**
 * A tensor of a safetensors file whose bytes are made when its turn comes.
 *
 * @param name its name in the file
 * @param dtype element type
 * @param shape sizes, slowest dimension first; empty for a scalar
 */
public record TensorSpec(String name, DType dtype, List<Long> shape) {

    /** Copies the shape and refuses negative sizes. */
    public TensorSpec {
        shape = List.copyOf(shape);
        if (shape.stream().anyMatch(size -> size < 0)) {
            throw new IllegalArgumentException("tensor " + name + ": negative size in shape " + shape);
        }
    }

    /** Returns the number of elements: the product of the shape. */
    public long elements() {
        return shape.stream().reduce(1L, Math::multiplyExact);
    }

    /** Returns the bytes of the elements. */
    public long bytes() {
        return Math.multiplyExact(elements(), (long) dtype.bytes());
    }
}
