package io.lora4j.train.data;

import io.lora4j.formats.Encoding;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.Span;
import io.lora4j.formats.Tokenizer;
import io.lora4j.formats.template.Message;
import io.lora4j.formats.template.Rendering;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

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
 *       prompt and completion are lists of messages, only the turns of the completion count. A turn with {@code "train": false}
 *       is not learned, whatever else is.
 * </ul>
 *
 * <p>A token is learned if any character that it stands for is to be learned; one that stands for none (a BOS that was added)
 * is learned only where everything is. BOS never stands twice at the beginning and EOS never twice at the end of a row.
 */
public final class RowEncoder {
    private final Tokenizer tokenizer;
    private final ChatFormat format;
    private final boolean completionOnly;
    private final boolean assistantOnly;

    /**
     * Creates an encoder.
     *
     * @param tokenizer the model's tokenizer
     * @param format how conversations are rendered
     * @param completionOnly {@code completion_only_loss}
     * @param assistantOnly {@code assistant_only_loss}
     */
    public RowEncoder(Tokenizer tokenizer, ChatFormat format, boolean completionOnly, boolean assistantOnly) {
        this.tokenizer = tokenizer;
        this.format = format;
        this.completionOnly = completionOnly;
        this.assistantOnly = assistantOnly;
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
        List<Message> messages = chat.messages();
        boolean all = chat.promptMessages() < 0 ? !assistantOnly : !completionOnly;
        if (all && messages.stream().allMatch(Message::train)) {
            return row(tokenizer.encodeWithOffsets(format.text(messages, false), false), List.of(), true, chat.line());
        }
        Rendering rendering = format.render(messages);
        List<Span> learned = new ArrayList<>();
        List<Span> spared = new ArrayList<>();
        for (Rendering.Answer answer : rendering.answers()) {
            boolean wanted = answer.message() < 0
                    ? isForAll(chat)
                    : answer.message() >= chat.promptMessages()
                            && messages.get(answer.message()).train();
            (wanted ? learned : spared).add(answer.span());
        }
        Encoding encoding = tokenizer.encodeWithOffsets(rendering.text(), false);
        if (!all) {
            return row(encoding, learned, false, chat.line());
        }
        Row row = row(encoding, List.of(), true, chat.line());
        BitSet mask = new BitSet(encoding.size());
        mask.set(0, encoding.size());
        mask.andNot(mask(encoding, spared, false));
        return new Row(row.ids(), mask, row.line());
    }

    /** A generation block outside every turn is learned where all turns are; whose it is cannot be told. */
    private static boolean isForAll(Example.Chat chat) throws FormatException {
        if (chat.promptMessages() > 0 || !chat.messages().stream().allMatch(Message::train)) {
            throw new FormatException(
                    "the template has a {% generation %} block outside its loop over the messages, so that"
                            + " answers that are not to be learned cannot be told from the others");
        }
        return true;
    }

    private Row row(Encoding encoding, List<Span> learned, boolean all, int line) throws FormatException {
        int[] ids = encoding.ids();
        if (ids.length > 1 && ids[0] == ids[1] && isBos(ids[0])) {
            throw new FormatException("the chat template prints BOS twice; remove one from " + format.source());
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
