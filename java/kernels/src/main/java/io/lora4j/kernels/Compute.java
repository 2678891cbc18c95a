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
    BF16(1),
    /**
     * For inference: {@link Lora}'s forward on GGUF weights alone, on the CPU. The input is rounded to signed bytes with one scale for
     * 32 columns, as ggml rounds activations to Q8_0, and multiplied with the weight's codes in integers; adapters stay fp32. The
     * relative error of a result is some 5e-3. It has the same bits on every tier. Backward, other weights and other operations
     * refuse it.
     */
    INT8(2);

    private final int code;

    Compute(int code) {
        this.code = code;
    }

    /** Returns the code in the C ABI. */
    public int code() {
        return code;
    }
}
