package io.lora4j.kernels;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Access to single elements of off-heap memory, aligned or not, as floating-point numbers; and where the elements of a view lie. */
final class Elements {
    static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED;
    static final ValueLayout.OfDouble F64 = ValueLayout.JAVA_DOUBLE_UNALIGNED;
    static final ValueLayout.OfShort I16 = ValueLayout.JAVA_SHORT_UNALIGNED;
    static final ValueLayout.OfInt I32 = ValueLayout.JAVA_INT_UNALIGNED;
    static final ValueLayout.OfLong I64 = ValueLayout.JAVA_LONG_UNALIGNED;

    private Elements() {}

    static double read(MemorySegment data, DType dtype, long at) {
        return switch (dtype) {
            case F32 -> data.get(F32, at);
            case F64 -> data.get(F64, at);
            case F16 -> Float.float16ToFloat(data.get(I16, at));
            case BF16 -> Float.intBitsToFloat(data.get(I16, at) << 16);
            default -> throw notFloat(dtype);
        };
    }

    /** Writes a value rounded to nearest even. */
    static void write(MemorySegment data, DType dtype, long at, double value) {
        switch (dtype) {
            case F32 -> data.set(F32, at, (float) value);
            case F64 -> data.set(F64, at, value);
            case F16 -> data.set(I16, at, Float.floatToFloat16((float) value));
            case BF16 -> data.set(I16, at, toBfloat16((float) value));
            default -> throw notFloat(dtype);
        }
    }

    /** Rounds to nearest even; a NaN stays a NaN. */
    static short toBfloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) ((bits >>> 16) | 0x40);
        }
        return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
    }

    private static IllegalArgumentException notFloat(DType dtype) {
        return new IllegalArgumentException("expected a tensor of F32, F16, BF16 or F64, found " + dtype);
    }

    /** Byte offsets of the elements of a view, in row-major order. */
    static final class Walk {
        private final int size;
        private final long[] shape;
        private final long[] strides;
        private final long[] index;
        private long at;

        Walk(long origin, int size, long[] shape, long[] strides) {
            this.at = origin;
            this.size = size;
            this.shape = shape;
            this.strides = strides;
            this.index = new long[shape.length];
        }

        long next() {
            long result = at;
            for (int i = shape.length - 1; i >= 0; i--) {
                at += strides[i] * size;
                if (++index[i] < shape[i]) {
                    break;
                }
                at -= shape[i] * strides[i] * size;
                index[i] = 0;
            }
            return result;
        }
    }
}
