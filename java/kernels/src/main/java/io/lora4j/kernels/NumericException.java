package io.lora4j.kernels;

/** A NaN or Inf where a finite value is required; the message names the place. Its status is {@link Status#ENUMERIC}. */
public final class NumericException extends Lora4jException {
    private static final long serialVersionUID = 1L;

    /** Creates an exception with a message for the user. */
    public NumericException(String message) {
        super(Status.ENUMERIC, message);
    }
}
