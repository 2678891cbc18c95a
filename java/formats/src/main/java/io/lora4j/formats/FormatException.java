package io.lora4j.formats;

import java.io.IOException;
import java.io.Serial;
import org.jspecify.annotations.Nullable;

/**
 * A file that is not what it should be. The message names the file, the tensor, field or line in it, what was found, what
 * was expected, and what to do.
 */
public final class FormatException extends IOException {
    @Serial
    private static final long serialVersionUID = 1L;

    /** Creates an exception with a complete message. */
    public FormatException(String message) {
        super(message);
    }

    /** Creates an exception with a complete message and the failure behind it. */
    public FormatException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
