package io.lora4j.formats.template;

import io.lora4j.formats.Span;
import io.lora4j.formats.template.Rendering.Answer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Finds in a rendered conversation what the assistant says. Nothing is searched by its wording and no part of the conversation
 * is rendered alone, whose length would prove nothing: the characters themselves know whose content they are and in whose turn
 * they were printed. Where that leaves a doubt, it is an error.
 */
final class AssistantSpans {
    private static final String MARK =
            "; mark answers with {% generation %} and {% endgeneration %} in a template of your own";

    private final Text text;

    private AssistantSpans(Text text) {
        this.text = text;
    }

    /** Returns what stands in the template's own generation blocks. */
    static List<Answer> marked(Text text) {
        List<Answer> answers = new ArrayList<>();
        int start = 0;
        for (int i = 1; i <= text.length(); i++) {
            boolean ends = i == text.length()
                    || text.generated(i) != text.generated(start)
                    || text.owner(i) != text.owner(start);
            if (ends && text.generated(start)) {
                answers.add(new Answer(new Span(start, i), text.owner(start)));
            }
            start = ends ? i : start;
        }
        return answers;
    }

    /**
     * Returns the assistant's answers in a text without generation blocks.
     *
     * @param header what the template prints to have the assistant speak; empty if it is not known
     * @param eos the end-of-sequence token, which some templates print behind the last turn
     */
    static List<Answer> located(Text text, List<Message> messages, String header, String eos) {
        AssistantSpans spans = new AssistantSpans(text);
        List<Answer> answers = new ArrayList<>();
        for (int i = 0; i < messages.size(); i++) {
            if (messages.get(i).role().equals("assistant")) {
                Span turn = spans.turn(i);
                int start = spans.start(i, messages.get(i), turn, header);
                int end = i == messages.size() - 1 ? spans.pastEos(turn.end(), eos) : turn.end();
                spans.requireOneAnswer(i, start, end);
                answers.add(new Answer(new Span(start, end), i));
            }
        }
        return answers;
    }

    /** What was printed while a loop stood on a message; all of its content must be there, and nothing else between. */
    private Span turn(int message) {
        int first = -1;
        int last = -1;
        boolean elsewhere = false;
        for (int i = 0; i < text.length(); i++) {
            if (text.owner(i) == message) {
                first = first < 0 ? i : first;
                last = i;
            } else if (text.origin(i) == message) {
                elsewhere = true;
            }
        }
        if (first < 0 && !elsewhere) {
            throw lost(message);
        }
        for (int i = first; i <= last && !elsewhere; i++) {
            elsewhere = text.owner(i) != message;
        }
        if (elsewhere) {
            throw new TemplateError("the template prints " + named(message)
                    + " in several places, outside a loop over the messages or with other messages between, so that the"
                    + " answer cannot be told from the rest" + MARK);
        }
        return new Span(first, last + 1);
    }

    /**
     * Behind the header where the turn begins with it, so that an answer begins where the model will begin to write: what is
     * printed before the content, such as the mark of a thought, is part of it. Otherwise at the content.
     */
    private int start(int message, Message said, Span turn, String header) {
        int content = turn.start();
        while (content < turn.end() && text.origin(content) != message) {
            content++;
        }
        if (content == turn.end() && !isEmpty(said.content())) {
            throw lost(message);
        }
        int behind = turn.start() + header.length();
        boolean begins = !header.isEmpty() && text.toString().startsWith(header, turn.start());
        int start = begins && behind <= content ? behind : content;
        if (start == turn.end()) {
            throw lost(message);
        }
        return start;
    }

    private static boolean isEmpty(@Nullable Object content) {
        return switch (content) {
            case null -> true;
            case CharSequence words -> words.toString().isBlank();
            case List<?> parts ->
                parts.stream().allMatch(part -> part instanceof Map<?, ?> map && isEmpty(map.get("text")));
            default -> false;
        };
    }

    private int pastEos(int end, String eos) {
        String rest = text.toString().substring(end);
        return !eos.isEmpty() && rest.strip().equals(eos) ? text.length() : end;
    }

    /** Some templates print what a tool said inside the turn of the assistant that called it, and some end no turn. */
    private void requireOneAnswer(int message, int start, int end) {
        for (int i = start; i < end; i++) {
            int other = text.origin(i);
            if (other >= 0 && other != message) {
                throw new TemplateError("the template prints message " + (other + 1) + " inside the turn of "
                        + named(message) + ", so that the answer cannot be told from it" + MARK);
            }
        }
        if (text.origin(end - 1) == message) {
            throw new TemplateError("the template prints nothing behind " + named(message)
                    + " in its turn, so that where to stop cannot be learned" + MARK);
        }
    }

    private static TemplateError lost(int message) {
        return new TemplateError("nothing of " + named(message)
                + " can be found in the rendered text: it is empty, or the template leaves it out or rewrites it");
    }

    private static String named(int message) {
        return "message " + (message + 1) + " (assistant)";
    }
}
