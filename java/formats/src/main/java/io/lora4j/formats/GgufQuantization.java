package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Dequantize;
import io.lora4j.kernels.DequantizeOps;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Quantize;
import io.lora4j.kernels.QuantizeOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Rows of float32 as blocks of a ggml type and back. */
final class GgufQuantization {
    private GgufQuantization() {}

    /** Returns the kernels' name of a block type. */
    static Scheme scheme(GgmlType type) {
        return Scheme.valueOf("GGUF_" + type.name());
    }

    /**
     * Encodes rows.
     *
     * @param rows [rows, K], F32
     * @param arena owns the result
     * @param tensor for messages
     */
    static MemorySegment encode(Queue queue, GgmlType type, Tensor rows, Arena arena, String tensor)
            throws FormatException {
        if (type.blockSize == 1) {
            return dense(DType.valueOf(type.name()), rows, arena, tensor);
        }
        long bytes = rows.size(1) / type.blockSize * type.blockBytes;
        Tensor blocks = Tensor.allocate(arena, DType.U8, rows.size(0), bytes);
        try {
            QuantizeOps.forward(
                    queue,
                    Quantize.builder(arena)
                            .scheme(scheme(type))
                            .x(rows)
                            .part(Part.VALUES, blocks)
                            .build());
        } catch (NumericException e) {
            throw new FormatException(
                    "tensor " + tensor + " cannot be stored as " + type + ": " + e.getMessage()
                            + "; BF16 and F32 hold every finite value",
                    e);
        }
        return blocks.data();
    }

    /** Decodes what {@link #encode} made of rows. */
    static void decode(Queue queue, GgmlType type, MemorySegment encoded, Tensor out, Arena arena) {
        if (type.blockSize == 1) {
            Widening.toFloat32(encoded, DType.valueOf(type.name()), out.data());
            return;
        }
        Tensor blocks = Tensor.of(encoded, DType.U8, out.size(0), encoded.byteSize() / out.size(0));
        try (Weight weight = Weight.builder(scheme(type), out.size(0), out.size(1))
                .part(Part.VALUES, blocks)
                .borrow(queue.device())) {
            DequantizeOps.forward(
                    queue, Dequantize.builder(arena).weight(weight).out(out).build());
        }
    }

    /** Rounds rows to a dense type. */
    static MemorySegment dense(DType dtype, Tensor rows, Arena arena, String tensor) throws FormatException {
        MemorySegment narrow = arena.allocate(rows.elements() * dtype.bytes(), 64);
        long bad = Narrowing.fromFloat32(rows.data(), dtype, narrow);
        if (bad >= 0) {
            throw new FormatException("tensor " + tensor + " holds " + Widening.get(rows.data(), bad)
                    + ", which is beyond " + dtype + "; choose BF16 or F32");
        }
        return narrow;
    }
}
