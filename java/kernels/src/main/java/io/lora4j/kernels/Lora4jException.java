package io.lora4j.kernels;

/**
 * A device, queue, weight or operation refused or failed. {@link #status()} says why; the message names the argument, what was
 * found and what was expected.
 *
 * <p>The scheme of the whole package:
 *
 * <ul>
 *   <li>whatever a call on the kernels refuses is a {@code Lora4jException}, and the status is the same whether these classes or
 *       the native library found it;
 *   <li>a NaN or Inf where a finite value is required is its subclass {@link NumericException};
 *   <li>use of a closed device, queue, weight or arena is an {@link IllegalStateException}, as for any
 *       {@link java.lang.foreign.Arena}; of an arena that belongs to another thread, a {@link WrongThreadException};
 *   <li>{@link Tensor}, a plain Java view, throws {@link IllegalArgumentException} and {@link IndexOutOfBoundsException};
 *   <li>a native library that cannot be loaded is an {@link UnsatisfiedLinkError}.
 * </ul>
 */
public class Lora4jException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final Status status;

    /** Creates an exception with a status and a message for the user. */
    public Lora4jException(Status status, String message) {
        super(message);
        this.status = status;
    }

    /** Returns the reason; never {@link Status#OK}. */
    public Status status() {
        return status;
    }

    static Lora4jException invalid(String message) {
        return new Lora4jException(Status.EINVAL, message);
    }

    static Lora4jException of(Status status, String message) {
        return status == Status.ENUMERIC ? new NumericException(message) : new Lora4jException(status, message);
    }
}
