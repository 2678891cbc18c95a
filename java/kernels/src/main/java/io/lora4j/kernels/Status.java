package io.lora4j.kernels;

/**
 * Status codes of the native library ({@code l4j_status} in {@code lora4j.h}).
 *
 * <p>Thread-safe: an immutable enum.
 */
public enum Status {
    /** Success. */
    OK(0),
    /** An argument is wrong; the message names it, what was found and what was expected. */
    EINVAL(1),
    /** Valid, but this build, device or dtype does not do it (yet). */
    ENOTSUP(2),
    /** An allocation failed. */
    ENOMEM(3),
    /** The workspace is missing, misaligned or too small. */
    EWORKSPACE(4),
    /** Data is not aligned to its element size. */
    EALIGN(5),
    /** The queue is in use by another thread, or the device or weight is still in use. */
    EBUSY(6),
    /** A tensor or handle belongs to another device. */
    EDEVICE(7),
    /** Classes and native library disagree about a struct. */
    EABI(8),
    /** A non-finite value where a finite one is required. */
    ENUMERIC(9),
    /** Given up on request. */
    ECANCELED(10),
    /** A defect of lora4j; please report it with the message. */
    EINTERNAL(11),
    /** The CUDA driver or runtime failed; the message has its text. Later calls may fail too. */
    ECUDA(12),
    /** A code that these classes do not know. */
    UNKNOWN(-1);

    private static final Status[] BY_CODE = {
        OK, EINVAL, ENOTSUP, ENOMEM, EWORKSPACE, EALIGN, EBUSY, EDEVICE, EABI, ENUMERIC, ECANCELED, EINTERNAL, ECUDA
    };

    private final int code;

    Status(int code) {
        this.code = code;
    }

    /** Returns the code in the C ABI; −1 for {@link #UNKNOWN}. */
    public int code() {
        return code;
    }

    /** Returns the status with that code, or {@link #UNKNOWN}. */
    public static Status of(int code) {
        return code >= 0 && code < BY_CODE.length ? BY_CODE[code] : UNKNOWN;
    }
}
