package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A model's {@code generation_config.json}. Immutable; absent values are null or empty.
 *
 * @param bosTokenId first token of a text
 * @param eosTokenIds tokens that end generation: the file may give a number or a list
 * @param padTokenId padding
 * @param doSample whether the model's makers sample by default
 * @param temperature divisor of the logits
 * @param topK candidates by rank
 * @param topP candidates by cumulated probability
 * @param repetitionPenalty divisor of the logits of tokens that occurred
 * @param maxNewTokens default length of an answer
 */
public record GenerationConfig(
        @Nullable Integer bosTokenId,
        List<Integer> eosTokenIds,
        @Nullable Integer padTokenId,
        @Nullable Boolean doSample,
        @Nullable Double temperature,
        @Nullable Integer topK,
        @Nullable Double topP,
        @Nullable Double repetitionPenalty,
        @Nullable Integer maxNewTokens) {

    /** What a model without the file has. */
    public static final GenerationConfig EMPTY =
            new GenerationConfig(null, List.of(), null, null, null, null, null, null, null);

    /** Copies the list. */
    public GenerationConfig {
        eosTokenIds = List.copyOf(eosTokenIds);
    }

    /**
     * Reads a model's generation config; {@link #EMPTY} if the directory holds none. Of a GGUF file it is the special tokens of its
     * metadata.
     *
     * @param fileOrDir {@code generation_config.json}, the model's directory or its GGUF file
     */
    public static GenerationConfig read(Path fileOrDir) throws IOException {
        Optional<Path> gguf = Checkpoint.gguf(fileOrDir);
        if (gguf.isPresent()) {
            return GgufModel.readGeneration(gguf.get());
        }
        Path file = fileOrDir;
        if (Files.isDirectory(fileOrDir)) {
            file = fileOrDir.resolve("generation_config.json");
            if (!Files.exists(file)) {
                return EMPTY;
            }
        }
        Fields f = Fields.of(file, Json.readObject(file));
        Integer topK = f.get("top_k") == null ? null : (Integer) (int) f.number("top_k");
        return new GenerationConfig(
                f.idOrNull("bos_token_id"),
                f.ids("eos_token_id"),
                f.idOrNull("pad_token_id"),
                f.get("do_sample") == null ? null : (Boolean) f.flag("do_sample", false),
                f.numberOrNull("temperature"),
                topK,
                f.numberOrNull("top_p"),
                f.numberOrNull("repetition_penalty"),
                f.countOrNull("max_new_tokens"));
    }
}
