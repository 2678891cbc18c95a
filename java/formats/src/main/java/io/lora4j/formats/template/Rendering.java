package io.lora4j.formats.template;

import io.lora4j.formats.Span;
import java.util.List;

/**
 * A conversation as a model reads it.
 *
 * @param text the whole text
 * @param assistantSpans the parts of it that the assistant says, in order: each message's content through the end-of-turn
 *     token and what the template prints after it in the same turn, never the role header
 */
public record Rendering(String text, List<Span> assistantSpans) {
    /** Copies the list. */
    public Rendering {
        assistantSpans = List.copyOf(assistantSpans);
    }
}
