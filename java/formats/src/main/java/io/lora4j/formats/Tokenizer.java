package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalInt;

/**
 * A model's tokenizer, with what {@code tokenizer_config.json} adds to it. Never truncates and never pads.
 *
 * <p>Thread-safe until closed. Text must be well-formed UTF-16; a lone surrogate is an {@link IllegalArgumentException}.
 */
public interface Tokenizer extends AutoCloseable {

    /**
     * Opens the tokenizer of a model directory: {@code tokenizer.json}, and if present {@code tokenizer_config.json},
     * {@code special_tokens_map.json} and {@code chat_template.jinja}; or that in the metadata of a GGUF file, or of the one that the
     * directory holds.
     *
     * @throws FormatException if a file is missing or not understood
     */
    static Tokenizer open(Path fileOrDir) throws IOException {
        return DjlTokenizer.open(fileOrDir);
    }

    /**
     * Returns the tokens of a text.
     *
     * @param addSpecialTokens whether to add what the model wants around a text, usually BOS; false for a rendered chat
     *     template, which has them already
     */
    int[] encode(String text, boolean addSpecialTokens);

    /** As {@link #encode}, with the part of the text that each token stands for. */
    Encoding encodeWithOffsets(String text, boolean addSpecialTokens);

    /**
     * Returns the text of tokens; bytes that are not UTF-8 become U+FFFD. Ids beyond the vocabulary, which a model with a
     * padded embedding can produce, have no text.
     *
     * @param skipSpecial whether special tokens are left out
     * @throws IllegalArgumentException if an id is negative
     */
    String decode(int[] ids, boolean skipSpecial);

    /** Returns the number of ids: one more than the largest. A model's embedding may have more rows. */
    int vocabSize();

    /** Returns the id of a token given by its exact text in the vocabulary. */
    OptionalInt tokenToId(String token);

    /** Returns the token that begins a sequence. */
    Optional<SpecialToken> bos();

    /** Returns the token that ends a sequence. */
    Optional<SpecialToken> eos();

    /** Returns the token that fills up batches. */
    Optional<SpecialToken> pad();

    /** Returns the token for what the vocabulary cannot express. */
    Optional<SpecialToken> unk();

    /** Returns the source of the model's chat template. */
    Optional<String> chatTemplate();

    /** Returns where the chat template stands, for messages. */
    String chatTemplateSource();

    /** Frees the native tokenizer. */
    @Override
    void close();
}
