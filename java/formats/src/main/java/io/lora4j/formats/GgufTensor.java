package io.lora4j.formats;

import java.util.List;

/**
 * A tensor of a GGUF file that is to be written.
 *
 * @param name its name in the file
 * @param type how its values are stored
 * @param shape sizes as PyTorch gives them, slowest dimension first: GGUF's {@code ne} reversed
 */
public record GgufTensor(String name, GgmlType type, List<Long> shape) {

    /** Copies the shape and checks that rows are whole blocks. */
    public GgufTensor {
        shape = List.copyOf(shape);
        if (shape.isEmpty() || shape.getLast() % type.blockSize != 0) {
            throw new IllegalArgumentException("tensor " + name + ": shape " + shape + " has no rows of whole " + type
                    + " blocks of " + type.blockSize);
        }
    }

    /** Returns the number of values. */
    public long elements() {
        return shape.stream().reduce(1L, Math::multiplyExact);
    }

    /** Returns the bytes of the blocks. */
    public long bytes() {
        return Math.multiplyExact(elements() / type.blockSize, (long) type.blockBytes);
    }
}
