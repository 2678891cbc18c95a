package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** Widens half-precision numbers to float32, exactly. */
final class Widening {
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfShort U16 = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private Widening() {}

    /**
     * Copies {@code from} to {@code to} as float32.
     *
     * @param dtype F32, F16 or BF16
     * @return the index of the first element that is not finite, or -1
     */
    static long toFloat32(MemorySegment from, DType dtype, MemorySegment to) {
        long count = from.byteSize() / dtype.bytes();
        long bad = -1;
        for (long i = 0; i < count; i++) {
            float value = switch (dtype) {
                case F32 -> from.get(F32, 4 * i);
                case F16 -> Float.float16ToFloat(from.get(U16, 2 * i));
                case BF16 -> Float.intBitsToFloat(from.get(U16, 2 * i) << 16);
                default -> throw new IllegalArgumentException(dtype + " is not widened");
            };
            if (bad < 0 && !Float.isFinite(value)) {
                bad = i;
            }
            to.set(F32, 4 * i, value);
        }
        return bad;
    }

    /** Returns element {@code index} of float32 data. */
    static float get(MemorySegment data, long index) {
        return data.get(F32, 4 * index);
    }
}
