package io.lora4j.formats.template;

import io.lora4j.formats.Span;
import java.util.List;

/**
 * A conversation as a model reads it.
 *
 * @param text the whole text
 * @param answers what the assistant says in it, in order
 */
public record Rendering(String text, List<Answer> answers) {
    /** Copies the list. */
    public Rendering {
        answers = List.copyOf(answers);
    }

    /**
     * What the assistant says in one turn.
     *
     * @param span from behind the header of the turn, or from the content where the template prints other headers than the one
     *     that it prompts with, through the end-of-turn token and what the template prints after it in the same turn; or what
     *     stands in a generation block
     * @param message the index of the message; −1 if a generation block stands outside the turns of the messages
     */
    public record Answer(Span span, int message) {}

    /** Returns where the answers stand. */
    public List<Span> assistantSpans() {
        return answers.stream().map(Answer::span).toList();
    }
}
