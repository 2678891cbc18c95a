package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** Rounds float32 numbers to the type of a dense weight: to nearest, ties to even. */
final class Narrowing {
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfShort U16 = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private Narrowing() {}

    /**
     * Copies float32 {@code from} to {@code to}.
     *
     * @param dtype F32, F16 or BF16
     * @return the index of the first number that is not finite in the type, or -1
     */
    static long fromFloat32(MemorySegment from, DType dtype, MemorySegment to) {
        long count = from.byteSize() / DType.F32.bytes();
        long bad = -1;
        if (dtype == DType.F32) {
            to.copyFrom(from);
            for (long i = 0; i < count && bad < 0; i++) {
                bad = Float.isFinite(from.get(F32, 4 * i)) ? -1 : i;
            }
            return bad;
        }
        for (long i = 0; i < count; i++) {
            float value = from.get(F32, 4 * i);
            short bits = dtype == DType.F16 ? Float.floatToFloat16(value) : bfloat16(value);
            int exponent = dtype == DType.F16 ? 0x7C00 : 0x7F80;
            if (bad < 0 && (bits & exponent) == exponent) {
                bad = i;
            }
            to.set(U16, 2 * i, bits);
        }
        return bad;
    }

    private static short bfloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        return (short) ((bits + 0x7FFF + (bits >>> 16 & 1)) >>> 16);
    }
}
