package io.lora4j.kernels;

/**
 * The precision of an operation's products ({@code fpmath mode} of oneDNN). Everything else, inputs and outputs included, is fp32.
 *
 * <p>Thread-safe: an immutable enum.
 */
public enum Compute {
    /** Fused multiply-adds in fp32. */
    F32(0),
    /**
     * Both operands of every product are rounded to bf16 (nearest, ties to even), multiplied exactly and accumulated in fp32. It
     * has the same bits on every tier, and is faster than {@link #F32} where {@link DeviceInfo#bf16Isa} names an instruction for it.
     */
    BF16(1);

    private final int code;

    Compute(int code) {
        this.code = code;
    }

    /** Returns the code in the C ABI. */
    public int code() {
        return code;
    }
}
