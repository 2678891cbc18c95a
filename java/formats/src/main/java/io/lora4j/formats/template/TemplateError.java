package io.lora4j.formats.template;

import java.io.Serial;
import org.jspecify.annotations.Nullable;

/** A mistake in a template, or one that it raises; becomes a FormatException with the template's name at the border. */
final class TemplateError extends RuntimeException {
    @Serial
    private static final long serialVersionUID = 1L;

    /** Line of the template, from 1; 0 where it is not known yet. */
    final int line;

    TemplateError(int line, String message) {
        super(message, null, false, false);
        this.line = line;
    }

    /** A failure without a place; the evaluator adds the line. */
    TemplateError(String message) {
        this(0, message);
    }

    TemplateError at(int where) {
        return line > 0 ? this : new TemplateError(where, message());
    }

    String message() {
        @Nullable String message = getMessage();
        return message == null ? "" : message;
    }
}
