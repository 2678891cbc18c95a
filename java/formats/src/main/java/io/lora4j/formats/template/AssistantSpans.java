package io.lora4j.formats.template;

import io.lora4j.formats.Span;
import java.util.ArrayList;
import java.util.List;

/**
 * Finds in a rendered conversation what the assistant says. Nothing is searched by its wording and no prefix is rendered: the
 * characters themselves know where they come from.
 */
final class AssistantSpans {
    private AssistantSpans() {}

    static List<Span> find(Text text, List<Message> messages) {
        List<Span> marked = generationBlocks(text);
        if (!marked.isEmpty()) {
            return marked;
        }
        List<Span> spans = new ArrayList<>();
        for (int i = 0; i < messages.size(); i++) {
            if (messages.get(i).role().equals("assistant")) {
                spans.add(turn(text, i));
            }
        }
        return spans;
    }

    private static List<Span> generationBlocks(Text text) {
        List<Span> spans = new ArrayList<>();
        int start = -1;
        for (int i = 0; i <= text.length(); i++) {
            boolean inside = i < text.length() && text.generated(i);
            if (inside && start < 0) {
                start = i;
            } else if (!inside && start >= 0) {
                spans.add(new Span(start, i));
                start = -1;
            }
        }
        return spans;
    }

    /** From the first character of the message's content to the end of what was printed in its turn. */
    private static Span turn(Text text, int message) {
        int start = -1;
        int last = -1;
        for (int i = 0; i < text.length(); i++) {
            if (text.origin(i) == message) {
                start = start < 0 ? i : start;
                last = i;
            }
        }
        if (start < 0) {
            throw new TemplateError(
                    "nothing of the content of message " + (message + 1)
                            + " (assistant) can be found in the rendered text: it is empty, or the template leaves it out or rewrites it");
        }
        int end = start;
        while (end < text.length() && text.owner(end) == message) {
            end++;
        }
        if (end <= last) {
            throw new TemplateError("the template prints the content of message " + (message + 1)
                    + " (assistant) in several places or outside a loop over the messages, so that its answer cannot be told"
                    + " from the rest; mark it with {% generation %}");
        }
        return new Span(start, end);
    }
}
