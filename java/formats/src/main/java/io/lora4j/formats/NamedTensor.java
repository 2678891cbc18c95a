package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * A tensor to be written to a file.
 *
 * @param name its name in the file
 * @param dtype element type of {@code data}
 * @param shape sizes, slowest dimension first; empty for a scalar
 * @param data contiguous row-major little-endian elements; exactly the bytes that {@code dtype} and {@code shape} imply
 */
public record NamedTensor(String name, DType dtype, List<Long> shape, MemorySegment data) {

    /** Checks that the data has the size that the type and shape imply. */
    public NamedTensor {
        shape = List.copyOf(shape);
        long bytes = dtype.bytes();
        for (long size : shape) {
            if (size < 0) {
                throw new IllegalArgumentException("tensor " + name + ": negative size in shape " + shape);
            }
            bytes = Math.multiplyExact(bytes, size);
        }
        if (data.byteSize() != bytes) {
            throw new IllegalArgumentException("tensor " + name + ": " + dtype + " " + shape + " takes " + bytes
                    + " bytes, but the data has " + data.byteSize());
        }
    }
}
