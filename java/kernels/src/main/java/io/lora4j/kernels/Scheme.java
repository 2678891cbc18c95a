package io.lora4j.kernels;

/**
 * How the values of a {@link Weight} are stored, with the codes of the C ABI ({@code L4J_SCHEME_…} in {@code lora4j.h}, which lists the
 * parts and the formula of each).
 *
 * <p>Thread-safe: an immutable enum.
 */
public enum Scheme {
    /** Plain F32, F16 or BF16. */
    DENSE(1),
    /** bitsandbytes' 4-bit NormalFloat (Dettmers et al. 2023), plain or double-quantized. */
    NF4(2),
    /** bitsandbytes' 4-bit float, plain or double-quantized. */
    FP4(3),
    /** bitsandbytes' 8-bit rows (Dettmers et al. 2022). */
    LLM_INT8(4),
    /** 8-bit integers with a scale for each row or group. */
    INT8(5),
    /** GPTQ, 4 bits, zero points stored less one. */
    GPTQ(6),
    /** GPTQ, 4 bits, zero points stored as they are. */
    GPTQ_V2(7),
    /** AWQ, 4 bits, GEMM layout. */
    AWQ(8),
    /** 8-bit floats with a scale for the tensor, each row or each block of 128 by 128. */
    FP8_E4M3(9),
    /** ggml's Q4_0. */
    GGUF_Q4_0(258),
    /** ggml's Q4_1. */
    GGUF_Q4_1(259),
    /** ggml's Q5_0. */
    GGUF_Q5_0(262),
    /** ggml's Q5_1. */
    GGUF_Q5_1(263),
    /** ggml's Q8_0. */
    GGUF_Q8_0(264),
    /** ggml's Q2_K. */
    GGUF_Q2_K(266),
    /** ggml's Q3_K. */
    GGUF_Q3_K(267),
    /** ggml's Q4_K. */
    GGUF_Q4_K(268),
    /** ggml's Q5_K. */
    GGUF_Q5_K(269),
    /** ggml's Q6_K. */
    GGUF_Q6_K(270),
    /** ggml's IQ4_NL. */
    GGUF_IQ4_NL(276),
    /** MXFP4 of the OCP microscaling formats, in ggml's blocks. */
    GGUF_MXFP4(295);

    private final int code;

    Scheme(int code) {
        this.code = code;
    }

    /** Returns the code of this scheme in the C ABI. */
    public int code() {
        return code;
    }
}
