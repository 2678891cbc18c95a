package io.lora4j.train;

import java.io.Serial;

/** An option that does not exist or has a value that cannot be; the message names the option and what is expected. */
public final class OptionException extends IllegalArgumentException {
    @Serial
    private static final long serialVersionUID = 1L;

    /** Creates an exception with a complete message. */
    public OptionException(String message) {
        super(message);
    }
}
