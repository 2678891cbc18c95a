package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Writes a tensor of a model that stays dense. */
final class DenseTensor {
    private DenseTensor() {}

    /** Writes a tensor, rounded to the type of its spec, and returns what it changed by. */
    static TensorReport write(ModelValues values, TensorSpec tensor, TensorSink sink) throws IOException {
        TensorReport.Meter meter = new TensorReport.Meter();
        RowBuffer.forEach(values, tensor.name(), tensor.shape(), 1, (from, rows) -> {
            try (Arena arena = Arena.ofConfined()) {
                MemorySegment narrow = GgufQuantization.dense(tensor.dtype(), rows, arena, tensor.name());
                sink.accept(narrow);
                Tensor decoded = Tensor.allocate(arena, DType.F32, rows.shape());
                Widening.toFloat32(narrow, tensor.dtype(), decoded.data());
                meter.add(rows.data(), decoded.data());
            }
        });
        return meter.report(tensor.name(), tensor.dtype().name(), tensor.shape(), tensor.bytes());
    }
}
