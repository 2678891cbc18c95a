package io.lora4j.kernels;

/**
 * Element types of tensors, with the codes that the C ABI gives them ({@code l4j_dtype} in {@code lora4j.h}).
 *
 * <p>The names are those of the safetensors format. Thread-safe: an immutable enum.
 */
public enum DType {
    /** IEEE 754 binary32. */
    F32(1, 4),
    /** IEEE 754 binary16. */
    F16(2, 2),
    /** bfloat16: the upper half of a binary32. */
    BF16(3, 2),
    /** IEEE 754 binary64; computed with on the oracle tier only. */
    F64(4, 8),
    /** Signed 8-bit integer. */
    I8(5, 1),
    /** Unsigned 8-bit integer. */
    U8(6, 1),
    /** Signed 16-bit integer. */
    I16(7, 2),
    /** Signed 32-bit integer. */
    I32(8, 4),
    /** Signed 64-bit integer. */
    I64(9, 8),
    /** One byte, zero or one. */
    BOOL(10, 1);

    private final int code;
    private final int bytes;

    DType(int code, int bytes) {
        this.code = code;
        this.bytes = bytes;
    }

    /** Returns the code of this type in the C ABI. */
    public int code() {
        return code;
    }

    /** Returns the size of one element in bytes. */
    public int bytes() {
        return bytes;
    }

    /** Returns whether elements are floating-point numbers. */
    public boolean isFloat() {
        return this == F32 || this == F16 || this == BF16 || this == F64;
    }
}
