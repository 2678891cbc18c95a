package io.lora4j.train.data;

import io.lora4j.formats.Encoding;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.Span;
import io.lora4j.formats.SpecialToken;
import io.lora4j.formats.Tokenizer;
import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import io.lora4j.formats.template.Rendering;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Makes token ids and the loss mask of a row. Thread-safe.
 *
 * <ul>
 *   <li>{@code text}: the tokenizer's special tokens are added (BOS where the model has one), EOS ends the row; all is learned.
 *   <li>{@code prompt} and {@code completion}: one text, encoded as a whole, with special tokens and EOS as above. The
 *       completion and the EOS are learned, or everything without {@code completion_only_loss}.
 *   <li>{@code messages}: the text that the chat template renders, encoded without special tokens, which the template has
 *       printed. Learned is what the assistant says in each of its turns: the content through the end-of-turn token and what
 *       the template prints right after it, never the role header; or everything without {@code assistant_only_loss}. Where
 *       prompt and completion are lists of messages, only the turns of the completion count.
 * </ul>
 *
 * <p>A token is learned if any character that it stands for is to be learned; one that stands for none (a BOS that was added)
 * is learned only where everything is. BOS never stands twice at the beginning and EOS never twice at the end of a row.
 */
public final class RowEncoder {
    private final Tokenizer tokenizer;
    private final @Nullable ChatTemplate template;
    private final Map<String, String> variables;
    private final boolean completionOnly;
    private final boolean assistantOnly;
    private final ZonedDateTime clock;

    /**
     * Creates an encoder.
     *
     * @param tokenizer the model's tokenizer
     * @param completionOnly {@code completion_only_loss}
     * @param assistantOnly {@code assistant_only_loss}
     * @param clock the time that templates with a date in them show
     * @throws FormatException if the model's chat template is not understood
     */
    public RowEncoder(Tokenizer tokenizer, boolean completionOnly, boolean assistantOnly, ZonedDateTime clock)
            throws FormatException {
        this.tokenizer = tokenizer;
        this.completionOnly = completionOnly;
        this.assistantOnly = assistantOnly;
        this.clock = clock;
        Optional<String> source = tokenizer.chatTemplate();
        this.template = source.isPresent() ? ChatTemplate.parse(source.get(), tokenizer.chatTemplateSource()) : null;
        this.variables = templateVariables(tokenizer);
    }

    /** Returns what a chat template may read beside the messages: the texts of the tokenizer's special tokens. */
    public static Map<String, String> templateVariables(Tokenizer tokenizer) {
        Map<String, String> variables = new LinkedHashMap<>();
        putToken(variables, "bos_token", tokenizer.bos());
        putToken(variables, "eos_token", tokenizer.eos());
        putToken(variables, "pad_token", tokenizer.pad());
        putToken(variables, "unk_token", tokenizer.unk());
        return variables;
    }

    private static void putToken(Map<String, String> variables, String name, Optional<SpecialToken> token) {
        token.ifPresent(t -> variables.put(name, t.text()));
    }

    /**
     * Encodes a row.
     *
     * @param file the file it comes from, for messages
     * @throws FormatException if it cannot be encoded; the message names file and line
     */
    public Row encode(Path file, Example example) throws FormatException {
        try {
            return switch (example) {
                case Example.Text(int line, String text) -> ended(text, List.of(), true, line);
                case Example.Completion(int line, String prompt, String completion) ->
                    ended(
                            prompt + completion,
                            List.of(new Span(prompt.length(), prompt.length() + completion.length())),
                            !completionOnly,
                            line);
                case Example.Chat chat -> chat(chat);
            };
        } catch (FormatException e) {
            throw new FormatException(file + ":" + example.line() + ": " + e.getMessage(), e);
        }
    }

    /** A text of its own: special tokens before it, EOS behind it. */
    private Row ended(String text, List<Span> learned, boolean all, int line) throws FormatException {
        int eos = tokenizer
                .eos()
                .orElseThrow(() -> new FormatException(
                        "the tokenizer has no eos_token to end a row with;" + " name one in tokenizer_config.json"))
                .id();
        Encoding encoding = tokenizer.encodeWithOffsets(text, true);
        int[] ids = encoding.ids();
        BitSet mask = mask(encoding, learned, all);
        if (ids.length > 1 && ids[0] == ids[1] && isBos(ids[0])) {
            ids = Arrays.copyOfRange(ids, 1, ids.length);
            mask = mask.get(1, ids.length + 1);
        }
        int length = ids.length;
        while (length > 0 && ids[length - 1] == eos) {
            length--;
        }
        int[] closed = Arrays.copyOf(ids, length + 1);
        closed[length] = eos;
        mask.clear(length, ids.length);
        mask.set(length);
        return new Row(closed, mask, line);
    }

    private boolean isBos(int id) {
        return tokenizer.bos().map(bos -> bos.id() == id).orElse(false);
    }

    private Row chat(Example.Chat chat) throws FormatException {
        if (template == null) {
            throw new FormatException("a row with messages needs a chat template, and the tokenizer has none"
                    + " (chat_template.jinja, or chat_template in tokenizer_config.json)");
        }
        List<Message> messages = chat.messages();
        boolean all = chat.promptMessages() < 0 ? !assistantOnly : !completionOnly;
        if (all) {
            String text = template.renderText(messages, variables, false, clock);
            return row(tokenizer.encodeWithOffsets(text, false), List.of(), true, chat.line());
        }
        Rendering rendering = template.render(messages, variables, false, clock);
        List<Span> learned = rendering.assistantSpans();
        if (chat.promptMessages() > 0) {
            long turns =
                    messages.stream().filter(m -> m.role().equals("assistant")).count();
            if (learned.size() != turns) {
                throw new FormatException("the template marks " + learned.size() + " answers in " + turns
                        + " turns of the assistant, so that those of the completion cannot be told; use messages");
            }
            int completions = messages.size() - chat.promptMessages();
            learned = learned.subList(learned.size() - completions, learned.size());
        }
        return row(tokenizer.encodeWithOffsets(rendering.text(), false), learned, false, chat.line());
    }

    private Row row(Encoding encoding, List<Span> learned, boolean all, int line) throws FormatException {
        int[] ids = encoding.ids();
        if (ids.length > 1 && ids[0] == ids[1] && isBos(ids[0])) {
            throw new FormatException(
                    "the chat template prints BOS twice; remove one from " + tokenizer.chatTemplateSource());
        }
        return new Row(encoding.ids(), mask(encoding, learned, all), line);
    }

    private static BitSet mask(Encoding encoding, List<Span> learned, boolean all) {
        BitSet mask = new BitSet(encoding.size());
        if (all) {
            mask.set(0, encoding.size());
            return mask;
        }
        boolean[] covered = encoding.covers(learned);
        for (int t = 0; t < covered.length; t++) {
            mask.set(t, covered[t]);
        }
        return mask;
    }
}
