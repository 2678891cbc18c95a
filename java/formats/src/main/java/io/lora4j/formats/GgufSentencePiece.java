package io.lora4j.formats;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import tools.jackson.databind.node.ArrayNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * The model part of a {@code tokenizer.json} for a SentencePiece vocabulary ({@code tokenizer.ggml.model} llama): BPE over characters
 * with spaces written ▁, and bytes for what has no token. SentencePiece merges the two neighbours that make the token of the highest
 * score; as ranked merges that is every way to put a token together from two others, by falling score, as transformers ranks them.
 */
final class GgufSentencePiece {
    private static final String SPACE = "\u2581";

    private GgufSentencePiece() {}

    /**
     * Fills in normalizer, decoder and model.
     *
     * @param tokens every token
     * @param scores of every token
     * @param mergeable whether a token is made of text: not a special token, not a byte
     * @param prefix whether a text begins with a space
     */
    static void write(
            ObjectNode json,
            List<String> tokens,
            List<Double> scores,
            List<Boolean> mergeable,
            boolean prefix,
            String unknown) {
        ArrayNode normalizers = sequence(json, "normalizer", "normalizers");
        if (prefix) {
            normalizers.addObject().put("type", "Prepend").put("prepend", SPACE);
        }
        replace(normalizers.addObject(), " ", SPACE);
        ArrayNode decoders = sequence(json, "decoder", "decoders");
        replace(decoders.addObject(), SPACE, " ");
        decoders.addObject().put("type", "ByteFallback");
        decoders.addObject().put("type", "Fuse");
        if (prefix) {
            decoders.addObject()
                    .put("type", "Strip")
                    .put("content", " ")
                    .put("start", 1)
                    .put("stop", 0);
        }
        ObjectNode model = json.putObject("model")
                .put("type", "BPE")
                .put("unk_token", unknown)
                .put("fuse_unk", true)
                .put("byte_fallback", true)
                .put("ignore_merges", false);
        merges(model.putArray("merges"), tokens, scores, mergeable);
    }

    private static ArrayNode sequence(ObjectNode json, String name, String parts) {
        return json.putObject(name).put("type", "Sequence").putArray(parts);
    }

    private static void replace(ObjectNode node, String from, String to) {
        node.put("type", "Replace").put("content", to).putObject("pattern").put("String", from);
    }

    private record Merge(String left, String right, double score) {}

    private static void merges(ArrayNode array, List<String> tokens, List<Double> scores, List<Boolean> mergeable) {
        Set<String> known = new HashSet<>();
        for (int id = 0; id < tokens.size(); id++) {
            if (mergeable.get(id)) {
                known.add(tokens.get(id));
            }
        }
        List<Merge> merges = new ArrayList<>();
        for (int id = 0; id < tokens.size(); id++) {
            String token = tokens.get(id);
            for (int at = 1; mergeable.get(id) && at < token.length(); at++) {
                String left = token.substring(0, at);
                String right = token.substring(at);
                if (known.contains(left) && known.contains(right)) {
                    merges.add(new Merge(left, right, scores.get(id)));
                }
            }
        }
        merges.sort(Comparator.comparingDouble(Merge::score)
                .thenComparingInt(merge -> merge.left.length())
                .reversed());
        for (Merge merge : merges) {
            array.addArray().add(merge.left).add(merge.right);
        }
    }
}
