package io.lora4j.train;

import java.io.Serial;

/** A run that cannot start or go on; the message says where it stands, what was found and what to do. */
public final class TrainException extends RuntimeException {
    @Serial
    private static final long serialVersionUID = 1L;

    /** Creates an exception with a complete message. */
    public TrainException(String message) {
        super(message);
    }
}
