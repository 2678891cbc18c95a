package io.lora4j.formats;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * A {@code tokenizer.json} of SentencePiece's kind (BPE over characters with spaces written ▁, and bytes for what has no token) as
 * llama.cpp wants it: {@code tokenizer.ggml.model} llama, with a score for each token.
 *
 * <p>llama.cpp merges the two neighbours that make the token of the highest score, whichever tokens they are; tokenizer.json merges by
 * rank, and only the pairs that it lists. The two do the same where the list has every way to put a token together from two others, and
 * all ways to make one token stand together in it: then the place of a token in the list is as good a score as SentencePiece's own, which
 * tokenizer.json does not have. Anything else is refused.
 */
final class GgufSentencePieceMetadata {
    private static final String SPACE = "\u2581";

    private final String where;
    private final ObjectNode json;

    GgufSentencePieceMetadata(String where, ObjectNode json) {
        this.where = where;
        this.json = json;
    }

    /** Returns whether a tokenizer is of this kind. */
    static boolean is(ObjectNode json) {
        return json.path("model").path("byte_fallback").booleanValue(false);
    }

    /**
     * Returns whether a text begins with a space of llama.cpp's making.
     *
     * @throws FormatException if spaces are written in a way that llama.cpp does not have
     */
    boolean addsSpace() throws FormatException {
        List<String> steps = new ArrayList<>();
        JsonNode normalizer = json.path("normalizer");
        if (normalizer.path("type").stringValue("").equals("Sequence")) {
            normalizer.path("normalizers").values().forEach(step -> steps.add(step(step)));
        } else if (normalizer.isObject()) {
            steps.add(step(normalizer));
        }
        if (json.path("pre_tokenizer").isObject()) {
            steps.add(step(json.path("pre_tokenizer")));
        }
        return switch (String.join(" ", steps)) {
            case "prepend spaces" -> true;
            case "spaces" -> false;
            default ->
                throw error("writes spaces by " + steps + "; llama.cpp puts one before every text and writes all as "
                        + SPACE + " (Prepend and Replace), or only the latter: its tokens would be others");
        };
    }

    /** What is not understood stands there as it is and matches nothing. */
    private static String step(JsonNode step) {
        String type = step.path("type").stringValue("");
        boolean replaces = step.path("pattern").path("String").stringValue("").equals(" ")
                && step.path("content").stringValue("").equals(SPACE);
        if (type.equals("Prepend") && step.path("prepend").stringValue("").equals(SPACE)) {
            return "prepend";
        }
        if (type.equals("Replace") && replaces) {
            return "spaces";
        }
        boolean metaspace = type.equals("Metaspace")
                && step.path("replacement").stringValue("").equals(SPACE)
                && step.path("prepend_scheme").stringValue("").equals("never")
                && !step.path("split").booleanValue(true);
        return metaspace ? "spaces" : step.toString();
    }

    /**
     * Returns a score for each token.
     *
     * @param tokens every token
     * @param mergeable whether a token is made of text: not a special token, not a byte
     * @throws FormatException if scores cannot say what the merges say
     */
    float[] scores(List<String> tokens, boolean[] mergeable) throws FormatException {
        JsonNode model = json.path("model");
        if (model.path("ignore_merges").booleanValue(false)
                || !model.path("dropout").isNull() && model.has("dropout")) {
            throw error("model has ignore_merges or dropout, which llama.cpp does not have for SentencePiece");
        }
        Map<String, Integer> ids = new HashMap<>();
        for (int id = 0; id < tokens.size(); id++) {
            if (mergeable[id]) {
                ids.put(tokens.get(id), id);
            }
        }
        float[] scores = new float[tokens.size()];
        Arrays.fill(scores, -tokens.size() - 1f);
        Set<String> added = new HashSet<>();
        json.path("added_tokens")
                .values()
                .forEach(token -> added.add(token.path("content").stringValue("")));
        Set<String> pairs = new HashSet<>();
        int last = -1;
        int rank = 0;
        Set<Integer> made = new HashSet<>();
        for (JsonNode merge : model.path("merges").values()) {
            String[] pair = pair(merge);
            if (added.contains(pair[0] + pair[1]) || added.contains(pair[0]) || added.contains(pair[1])) {
                continue; // Text never comes to it: added tokens are cut out before.
            }
            Integer id = ids.get(pair[0] + pair[1]);
            if (id == null
                    || !ids.containsKey(pair[0])
                    || !ids.containsKey(pair[1])
                    || !pairs.add(String.join(" ", pair))) {
                throw error("model.merges has " + merge + ", which is twice there or not of three tokens of text");
            }
            if (id != last && !made.add(id)) {
                throw error("model.merges makes \"" + tokens.get(id) + "\" at different ranks, and others between them;"
                        + " llama.cpp has one score for a token, so its tokens would be others");
            }
            rank += id != last ? 1 : 0;
            last = id;
            scores[id] = -rank;
        }
        requireAll(ids, pairs);
        return scores;
    }

    private String[] pair(JsonNode merge) throws FormatException {
        String[] pair = merge.isArray()
                ? new String[] {merge.path(0).stringValue(""), merge.path(1).stringValue("")}
                : merge.stringValue("").split(" ", -1);
        if (pair.length != 2 || pair[0].isEmpty() || pair[1].isEmpty()) {
            throw error("model.merges has " + merge + "; expected two tokens without spaces");
        }
        return pair;
    }

    private void requireAll(Map<String, Integer> ids, Set<String> pairs) throws FormatException {
        for (String token : ids.keySet()) {
            for (int at = 1; at < token.length(); at++) {
                String left = token.substring(0, at);
                String right = token.substring(at);
                if (ids.containsKey(left) && ids.containsKey(right) && !pairs.contains(left + " " + right)) {
                    throw error("model.merges does not make \"" + token + "\" from \"" + left + "\" and \"" + right
                            + "\", but llama.cpp would: its tokens would be others");
                }
            }
        }
    }

    private FormatException error(String message) {
        return new FormatException(where + ": " + message);
    }
}
