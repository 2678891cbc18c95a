package io.lora4j.kernels;

/**
 * Instruction-set tiers of the CPU, and the GPU. Every tier of the CPU but {@link #REF64} gives the same bits.
 *
 * <p>Thread-safe: an immutable enum.
 */
public enum Isa {
    /** The best that CPU, operating system and build allow. */
    AUTO(0),
    /** Plain C; any CPU. */
    REF(1),
    /** AVX2, FMA and F16C. */
    AVX2(2),
    /** AVX-512 F, BW, DQ and VL. */
    AVX512(3),
    /** {@link #AVX512} and AVX512_BF16, for products of {@link Compute#BF16}. */
    AVX512_BF16(4),
    /** {@link #AVX512} and AMX-BF16, for products of {@link Compute#BF16}. */
    AMX_BF16(5),
    /** {@link #AVX512} and AVX512_VNNI, for products of {@link Compute#INT8}: what a device has, not a cap. */
    AVX512_VNNI(6),
    /** {@link #AVX512}, AVX512_VNNI and AMX-INT8, for products of {@link Compute#INT8}: what a device has, not a cap. */
    AMX_INT8(7),
    /** The accuracy oracle: {@link #REF} in fp64; activations, adapters and gradients are {@link DType#F64} tensors. */
    REF64(100),
    /** A GPU: what a device is, not a cap. */
    CUDA(200);

    private final int code;

    Isa(int code) {
        this.code = code;
    }

    /** Returns the code in the C ABI. */
    public int code() {
        return code;
    }

    static Isa of(int code) {
        for (Isa isa : values()) {
            if (isa.code == code) {
                return isa;
            }
        }
        throw new AssertionError("the native library reports the unknown ISA tier " + code);
    }
}
