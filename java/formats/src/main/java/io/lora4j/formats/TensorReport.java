package io.lora4j.formats;

import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * What became of a tensor that was converted.
 *
 * @param name its name in the file written
 * @param type how it is stored there, for example {@code NF4}, {@code Q4_K} or {@code BF16}
 * @param shape sizes, slowest dimension first
 * @param bytes size in the file, scales and their like included
 * @param relativeRms root mean square of what the values changed by, over that of the values; 0 if all are zero
 * @param maxError the largest change of a value
 */
public record TensorReport(
        String name, String type, List<Long> shape, long bytes, double relativeRms, double maxError) {

    /** Copies the shape. */
    public TensorReport {
        shape = List.copyOf(shape);
    }

    /** Returns the number of values. */
    public long elements() {
        return shape.stream().reduce(1L, Math::multiplyExact);
    }

    /** Adds up, in fp64 and in the order of the values, what the values of a tensor change by. */
    static final class Meter {
        private double error;
        private double total;
        private double max;

        void add(MemorySegment before, MemorySegment after) {
            long count = before.byteSize() / Float.BYTES;
            for (long i = 0; i < count; i++) {
                double value = Widening.get(before, i);
                double change = Widening.get(after, i) - value;
                error += change * change;
                total += value * value;
                max = Math.max(max, Math.abs(change));
            }
        }

        TensorReport report(String name, String type, List<Long> shape, long bytes) {
            return new TensorReport(name, type, shape, bytes, total == 0 ? 0 : Math.sqrt(error / total), max);
        }
    }
}
