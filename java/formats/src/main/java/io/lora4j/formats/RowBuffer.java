package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.util.List;

/** Goes through the rows of a tensor in pieces that fit into a buffer, so that memory does not depend on the tensor's size. */
final class RowBuffer {
    /** Values of a piece: 16 MiB of float32. */
    private static final long VALUES = 1L << 22;

    /** Does something with a piece. */
    @FunctionalInterface
    interface Action {
        /** Takes rows {@code [from, from + rows.size(0))}, which are valid until it returns. */
        void accept(long from, Tensor rows) throws IOException;
    }

    private RowBuffer() {}

    static long rows(List<Long> shape) {
        return shape.getFirst();
    }

    static long columns(List<Long> shape) {
        return shape.size() == 1 ? 1 : shape.getLast();
    }

    /**
     * Reads a tensor.
     *
     * @param multiple every piece begins at a multiple of this row, heads that stay together for instance
     */
    static void forEach(ModelValues values, String name, List<Long> shape, long multiple, Action action)
            throws IOException {
        long rows = rows(shape);
        long columns = columns(shape);
        long step = Math.max(1, VALUES / columns / multiple) * multiple;
        try (Arena arena = Arena.ofShared()) {
            Tensor buffer = Tensor.allocate(arena, DType.F32, Math.min(step, rows), columns);
            for (long from = 0; from < rows; from += step) {
                Tensor piece = buffer.rows(0, Math.min(step, rows - from));
                values.read(name, from, piece);
                action.accept(from, piece);
            }
        }
        values.release(name);
    }
}
