package io.lora4j.formats.template;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.template.Node.Statement;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A model's chat template: turns messages into the text that the model was trained on, with the environment that
 * transformers' {@code apply_chat_template} sets up (blocks trimmed, a sandbox without side effects, {@code raise_exception},
 * {@code strftime_now}, loop controls, {@code {% generation %}}).
 *
 * <p>A subset of Jinja: what it lacks is refused by name with its line, at parsing where possible. Immutable and thread-safe.
 */
public final class ChatTemplate {
    private final String name;
    private final List<Statement> body;
    private final boolean marksGeneration;

    private ChatTemplate(String name, List<Statement> body, boolean marksGeneration) {
        this.name = name;
        this.body = body;
        this.marksGeneration = marksGeneration;
    }

    /**
     * Parses a template.
     *
     * @param source the template
     * @param nameForErrors begins every message: the file, and the field if it is in one
     * @throws FormatException if the template is malformed or uses what is not supported
     */
    public static ChatTemplate parse(String source, String nameForErrors) throws FormatException {
        try {
            Parser parser = new Parser(source);
            List<Statement> body = parser.template();
            return new ChatTemplate(nameForErrors, body, parser.marksGeneration());
        } catch (TemplateError e) {
            throw failure(nameForErrors, e);
        } catch (StackOverflowError e) {
            throw new FormatException(nameForErrors + ": the template is nested too deeply to be parsed", e);
        }
    }

    /** Returns whether the template itself marks what the assistant says. */
    public boolean marksGeneration() {
        return marksGeneration;
    }

    /**
     * Renders a conversation, without a generation prompt, and locates what the assistant says in it.
     *
     * @param messages the conversation
     * @param variables what the template may read besides: {@code bos_token}, {@code eos_token}, {@code tools}, …
     * @param now the time that {@code strftime_now} shows
     * @throws FormatException if the template refuses the messages, or an assistant's answer cannot be located
     */
    public Rendering render(List<Message> messages, Map<String, ?> variables, ZonedDateTime now)
            throws FormatException {
        Text text = run(messages, variables, false, now);
        try {
            List<Rendering.Answer> answers = marksGeneration
                    ? AssistantSpans.marked(text)
                    : AssistantSpans.located(
                            text,
                            messages,
                            generationPrompt(text, messages, variables, now),
                            variables.get("eos_token") instanceof String eos ? eos : "");
            return new Rendering(text.toString(), answers);
        } catch (TemplateError e) {
            throw failure(name, e);
        }
    }

    /** What the template prints to have the assistant speak after a conversation; empty if it does not or will not. */
    private String generationPrompt(Text text, List<Message> messages, Map<String, ?> variables, ZonedDateTime now) {
        Text prompted;
        try {
            prompted = run(messages, variables, true, now);
        } catch (FormatException e) {
            return "";
        }
        if (prompted.toString().startsWith(text.toString())) {
            return prompted.toString().substring(text.length());
        }
        // Instead of what else ends the text: then it is what no message's turn has printed.
        int start = prompted.length();
        while (start > 0 && prompted.owner(start - 1) < 0) {
            start--;
        }
        return prompted.toString().substring(start);
    }

    /**
     * Renders a conversation without locating answers.
     *
     * @param messages the conversation
     * @param variables as in {@link #render}
     * @param addGenerationPrompt whether to end with the header of an assistant's turn that is to be generated
     * @param now the time that {@code strftime_now} shows
     * @throws FormatException if the template refuses the messages
     */
    public String renderText(
            List<Message> messages, Map<String, ?> variables, boolean addGenerationPrompt, ZonedDateTime now)
            throws FormatException {
        return run(messages, variables, addGenerationPrompt, now).toString();
    }

    private Text run(List<Message> messages, Map<String, ?> variables, boolean addGenerationPrompt, ZonedDateTime now)
            throws FormatException {
        if (messages.size() > Text.MAX_MESSAGES) {
            throw new FormatException(name + ": a conversation of " + messages.size() + " messages; at most "
                    + Text.MAX_MESSAGES + " are supported");
        }
        IdentityHashMap<Object, Integer> indices = new IdentityHashMap<>();
        List<Object> values = new ArrayList<>();
        for (int i = 0; i < messages.size(); i++) {
            Object value = value(messages.get(i), i);
            indices.put(value, i);
            values.add(value);
        }
        // The environment's functions lie one scope out, where a template's own variables can hide them.
        Scope environment = new Scope(null);
        Evaluator.functions(now).forEach(environment::set);
        environment.set("tools", None.NONE);
        environment.set("documents", None.NONE);
        variables.forEach((key, value) -> environment.set(key, Values.of(value)));
        environment.set("messages", values);
        environment.set("add_generation_prompt", addGenerationPrompt);
        try {
            return new Evaluator(indices).run(body, new Scope(environment));
        } catch (TemplateError e) {
            throw failure(name, e);
        } catch (StackOverflowError e) {
            throw new FormatException(name + ": the template is nested too deeply to be rendered", e);
        }
    }

    private static Object value(Message message, int index) {
        Map<Object, Object> map = new LinkedHashMap<>();
        map.put("role", Text.of(message.role()));
        map.put("content", content(message.content(), index));
        message.extra().forEach((key, value) -> map.put(key, Values.of(value)));
        addReasoning(map, message.extra(), index);
        return map;
    }

    /** As transformers: what was thought before the answer goes by several names, and templates read the first or second. */
    private static void addReasoning(Map<Object, Object> map, Map<String, Object> extra, int index) {
        for (String name : List.of("reasoning_content", "thinking", "reasoning")) {
            Object reasoning = extra.get(name);
            if (reasoning != null) {
                map.put("reasoning_content", content(reasoning, index));
                map.put("thinking", content(extra.getOrDefault("thinking", reasoning), index));
                return;
            }
        }
    }

    /** Marks the words of a message: its content, or the texts of the parts that it is made of. */
    private static Object content(@Nullable Object content, int index) {
        if (content instanceof CharSequence text) {
            return Text.content(text.toString(), index);
        }
        if (!(content instanceof List<?> parts)) {
            return Values.of(content);
        }
        List<Object> marked = new ArrayList<>();
        for (Object part : parts) {
            Object value = Values.of(part);
            if (value instanceof Map<?, ?> map && map.get("text") instanceof Text text) {
                Map<Object, Object> copy = new LinkedHashMap<>(map);
                copy.put("text", Text.content(text.toString(), index));
                value = copy;
            }
            marked.add(value);
        }
        return marked;
    }

    private static FormatException failure(String name, TemplateError e) {
        return new FormatException(name + (e.line > 0 ? ": line " + e.line : "") + ": " + e.message(), e);
    }
}
