package io.lora4j.train.model;

import io.lora4j.kernels.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ForkJoinTask;
import java.util.stream.IntStream;

/**
 * A matrix in float32 times vectors in float64. Every sum has one order, so that the bits are the same on every machine and with any
 * number of threads: those of the {@link ForkJoinPool} that it is called in, else one.
 */
final class DenseMatrix implements LinearMap {
    /** Values of the rows or columns that a thread takes at a time; less is not worth another thread. */
    private static final int PART = 1 << 18;

    private final MemorySegment values;
    private final int rows;
    private final int columns;

    /** @param values [rows, columns], F32, contiguous; not copied */
    DenseMatrix(Tensor values) {
        this.values = values.data();
        this.rows = Math.toIntExact(values.size(0));
        this.columns = Math.toIntExact(values.size(1));
    }

    @Override
    public int rows() {
        return rows;
    }

    @Override
    public int columns() {
        return columns;
    }

    @Override
    public void times(double[] x, double[] out) {
        forParts(rows, columns, (begin, end) -> {
            float[] row = new float[columns];
            for (int n = begin; n < end; n++) {
                read(n, 0, row);
                out[n] = dot(row, x);
            }
        });
    }

    /** Four sums beside each other, for the processor's sake. */
    private static double dot(float[] row, double[] x) {
        double a = 0;
        double b = 0;
        double c = 0;
        double d = 0;
        int whole = row.length & -4;
        for (int k = 0; k < whole; k += 4) {
            a += row[k] * x[k];
            b += row[k + 1] * x[k + 1];
            c += row[k + 2] * x[k + 2];
            d += row[k + 3] * x[k + 3];
        }
        double sum = (a + b) + (c + d);
        for (int k = whole; k < row.length; k++) {
            sum += row[k] * x[k];
        }
        return sum;
    }

    @Override
    public void transposedTimes(double[] y, double[] out) {
        forParts(columns, rows, (begin, end) -> {
            float[] row = new float[end - begin];
            Arrays.fill(out, begin, end, 0);
            for (int n = 0; n < rows; n++) {
                read(n, begin, row);
                double factor = y[n];
                for (int k = 0; k < row.length; k++) {
                    out[begin + k] += factor * row[k];
                }
            }
        });
    }

    private void read(int row, int from, float[] into) {
        MemorySegment.copy(
                values,
                ValueLayout.JAVA_FLOAT_UNALIGNED,
                ((long) row * columns + from) * Float.BYTES,
                into,
                0,
                into.length);
    }

    /** Does something with a range. */
    @FunctionalInterface
    private interface Action {
        void accept(int begin, int end);
    }

    /** Shares out {@code count} rows or columns of {@code each} values. A result is written by one thread alone. */
    private static void forParts(int count, int each, Action action) {
        ForkJoinPool pool = ForkJoinTask.getPool();
        int parts = (int) Math.clamp((long) count * each / PART, 1, pool == null ? 1 : pool.getParallelism());
        IntStream.range(0, parts)
                .parallel()
                .forEach(part ->
                        action.accept((int) ((long) count * part / parts), (int) ((long) count * (part + 1) / parts)));
    }
}
