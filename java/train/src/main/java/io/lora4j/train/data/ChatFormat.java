package io.lora4j.train.data;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.SpecialToken;
import io.lora4j.formats.Tokenizer;
import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import io.lora4j.formats.template.Rendering;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** How a conversation becomes the text that a model reads: a chat template, its variables and its clock. Immutable. */
public final class ChatFormat {
    private final @Nullable ChatTemplate template;
    private final String source;
    private final Map<String, Object> variables;
    private final ZonedDateTime clock;

    private ChatFormat(
            @Nullable ChatTemplate template, String source, Map<String, Object> variables, ZonedDateTime clock) {
        this.template = template;
        this.source = source;
        this.variables = variables;
        this.clock = clock;
    }

    /**
     * Returns the format of a model, whose template sees the texts of the tokenizer's special tokens.
     *
     * @param clock the time that templates with a date in them show
     * @throws FormatException if the model's chat template is not understood
     */
    public static ChatFormat of(Tokenizer tokenizer, ZonedDateTime clock) throws FormatException {
        Map<String, Object> variables = new LinkedHashMap<>();
        putToken(variables, "bos_token", tokenizer.bos());
        putToken(variables, "eos_token", tokenizer.eos());
        putToken(variables, "pad_token", tokenizer.pad());
        putToken(variables, "unk_token", tokenizer.unk());
        Optional<String> text = tokenizer.chatTemplate();
        String source = tokenizer.chatTemplateSource();
        return new ChatFormat(
                text.isPresent() ? ChatTemplate.parse(text.get(), source) : null, source, variables, clock);
    }

    private static void putToken(Map<String, Object> variables, String name, Optional<SpecialToken> token) {
        token.ifPresent(t -> variables.put(name, t.text()));
    }

    /**
     * Returns this with another template.
     *
     * @param file a Jinja template in UTF-8
     * @throws FormatException if there is no such file or it is not understood
     */
    public ChatFormat withTemplate(Path file) throws IOException {
        try {
            return new ChatFormat(
                    ChatTemplate.parse(Files.readString(file), file.toString()), file.toString(), variables, clock);
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; expected a chat template in Jinja", e);
        } catch (CharacterCodingException e) {
            throw new FormatException(file + ": is not valid UTF-8; expected a chat template in Jinja", e);
        }
    }

    /** Returns this with more variables, such as {@code enable_thinking}; they replace those of the same name. */
    public ChatFormat withVariables(Map<String, Object> more) {
        Map<String, Object> all = new LinkedHashMap<>(variables);
        all.putAll(more);
        return new ChatFormat(template, source, Collections.unmodifiableMap(all), clock);
    }

    /** Returns whether there is a template. */
    public boolean hasTemplate() {
        return template != null;
    }

    /** Returns where the template stands, for messages. */
    public String source() {
        return source;
    }

    /**
     * Renders a conversation and locates what the assistant says in it.
     *
     * @throws FormatException if there is no template, it refuses the messages, or an answer cannot be located
     */
    public Rendering render(List<Message> messages) throws FormatException {
        return require().render(messages, variables, clock);
    }

    /**
     * Renders a conversation.
     *
     * @param addGenerationPrompt whether the assistant is to go on
     * @throws FormatException if there is no template, or it refuses the messages
     */
    public String text(List<Message> messages, boolean addGenerationPrompt) throws FormatException {
        return require().renderText(messages, variables, addGenerationPrompt, clock);
    }

    private ChatTemplate require() throws FormatException {
        if (template == null) {
            throw new FormatException(
                    "a row with messages needs a chat template, and the tokenizer has none"
                            + " (chat_template.jinja, or chat_template in tokenizer_config.json); name one with chat_template_path");
        }
        return template;
    }
}
