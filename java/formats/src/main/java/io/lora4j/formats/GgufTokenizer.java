package io.lora4j.formats;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.node.ArrayNode;
import tools.jackson.databind.node.JsonNodeFactory;
import tools.jackson.databind.node.ObjectNode;

/**
 * The tokenizer of a GGUF model as the {@code tokenizer.json} and {@code tokenizer_config.json} that the model would have: byte-level BPE
 * ({@code tokenizer.ggml.model} gpt2) or {@linkplain GgufSentencePiece SentencePiece} (llama). How byte-level BPE splits text before it
 * merges is known by a name, {@code tokenizer.ggml.pre}; a name that is not known here is refused, for its tokens would be others.
 */
final class GgufTokenizer {
    private static final String PREFIX = "tokenizer.ggml.";
    private static final int NORMAL = 1;
    private static final int UNKNOWN = 2;
    private static final int CONTROL = 3;
    private static final int USER_DEFINED = 4;
    private static final int BYTE = 6;

    /**
     * How a family of tokenizers splits text.
     *
     * @param pattern what a piece is; null for the one of GPT-2, which the library has
     * @param digits whether each digit is a piece, before anything else
     * @param nfc whether text is composed first
     * @param wholeWords whether a piece that is a token is not merged
     * @param bos whether a text begins with BOS where {@code add_bos_token} does not say
     */
    private record Split(@Nullable String pattern, boolean digits, boolean nfc, boolean wholeWords, boolean bos) {}

    private static final String CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
    private static final String REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    private static final Split LLAMA3 = new Split(CONTRACTION + "\\p{N}{1,3}" + REST, false, false, true, true);
    private static final Map<String, Split> SPLITS = Map.of(
            "gpt-2", new Split(null, false, false, false, false),
            "smollm", new Split(null, true, false, false, false),
            "qwen2", new Split(CONTRACTION + "\\p{N}" + REST, false, true, false, false),
            "llama-bpe", LLAMA3,
            "llama3", LLAMA3);

    /** Longer pieces are taken for damage (SentencePiece makes some of 16 characters): putting them together takes the square of that. */
    private static final int MAX_PIECE = 512;

    private final GgufFile file;
    private final List<String> tokens;

    GgufTokenizer(GgufFile file) throws FormatException {
        this.file = file;
        this.tokens = texts("tokens");
    }

    /** Returns a special token's id; null if the file has none. */
    static @Nullable Integer id(GgufFile file, String role) throws FormatException {
        String key = PREFIX + role + "_token_id";
        Object value = file.values().get(key);
        int size = file.values().get(GgufConfig.TOKENS) instanceof List<?> tokens ? tokens.size() : Integer.MAX_VALUE;
        if (value == null) {
            return null;
        }
        if (value instanceof Long id && id >= 0 && id < size) {
            return id.intValue();
        }
        throw new FormatException(file.path() + ": metadata " + key + " is " + GgufFile.brief(value)
                + "; expected a token id from 0 to " + (size - 1));
    }

    /** Returns the ids of the tokens that end a text or a turn. */
    static List<Integer> ends(GgufFile file) throws FormatException {
        List<Integer> ends = new ArrayList<>();
        for (String role : List.of("eos", "eot")) {
            Integer id = id(file, role);
            if (id != null && !ends.contains(id)) {
                ends.add(id);
            }
        }
        return ends;
    }

    /** Returns the tokenizer.json. */
    ObjectNode json() throws FormatException {
        ObjectNode json = JsonNodeFactory.instance.objectNode();
        json.put("version", "1.0");
        List<Integer> types = types();
        addedTokens(json.putArray("added_tokens"), types);
        Object model = file.values().get(PREFIX + "model");
        boolean bos;
        if ("gpt2".equals(model)) {
            bos = byteLevel(json);
        } else if ("llama".equals(model)) {
            sentencePiece(json, types);
            bos = true;
        } else {
            throw error(
                    "model",
                    "is " + GgufFile.brief(model)
                            + "; read are gpt2 (byte-level BPE) and llama (SentencePiece BPE): use the model in"
                            + " Hugging Face's layout, with its tokenizer.json");
        }
        if (flag("add_bos_token", bos)) {
            postProcessor(json.putObject("post_processor"));
        }
        if (flag("add_eos_token", false)) {
            throw error("add_eos_token", "is true, which is not supported; expected false");
        }
        ObjectNode vocabulary = ((ObjectNode) json.get("model")).putObject("vocab");
        for (int id = 0; id < tokens.size(); id++) {
            if (vocabulary.has(tokens.get(id))) {
                throw error("tokens", "has \"" + GgufFile.brief(tokens.get(id)) + "\" twice; the file is damaged");
            }
            vocabulary.put(tokens.get(id), id);
        }
        return json;
    }

    /** Returns whether a text begins with BOS where the file does not say. */
    private boolean byteLevel(ObjectNode json) throws FormatException {
        Split split = split();
        if (split.nfc) {
            json.putObject("normalizer").put("type", "NFC");
        }
        preTokenizer(json.putObject("pre_tokenizer"), split);
        byteLevel(json.putObject("decoder"), true);
        ObjectNode model = json.putObject("model").put("type", "BPE").put("ignore_merges", split.wholeWords);
        ArrayNode merges = model.putArray("merges");
        texts("merges").forEach(merges::add);
        return split.bos;
    }

    private void sentencePiece(ObjectNode json, List<Integer> types) throws FormatException {
        List<Double> scores = new ArrayList<>();
        if (file.values().get(PREFIX + "scores") instanceof List<?> list && list.size() == tokens.size()) {
            for (Object each : list) {
                scores.add(each instanceof Double score && Double.isFinite(score) ? score : null);
            }
        }
        if (scores.size() != tokens.size() || scores.contains(null)) {
            throw error("scores", "is not a list of " + tokens.size() + " finite numbers, one for each token");
        }
        int unknown = types.indexOf(UNKNOWN);
        if (unknown < 0) {
            throw error("token_type", "has no unknown token (" + UNKNOWN + "), which SentencePiece needs");
        }
        for (int id = 0; id < tokens.size(); id++) {
            if (tokens.get(id).length() > MAX_PIECE) {
                throw error(
                        "tokens",
                        "has " + tokens.get(id).length() + " characters at " + id + "; expected at most " + MAX_PIECE
                                + " in a piece of SentencePiece: the file is damaged");
            }
        }
        List<Boolean> mergeable = types.stream().map(type -> type == NORMAL).toList();
        boolean prefix = flag("add_space_prefix", true);
        GgufSentencePiece.write(json, tokens, scores, mergeable, prefix, tokens.get(unknown));
    }

    private List<Integer> types() throws FormatException {
        List<Integer> types = new ArrayList<>();
        if (file.values().get(PREFIX + "token_type") instanceof List<?> list) {
            for (Object each : list) {
                if (each instanceof Long type && type >= NORMAL && type <= BYTE) {
                    types.add(type.intValue());
                }
            }
        }
        if (types.size() != tokens.size()) {
            throw error("token_type", "is not a list of " + tokens.size() + " types, one for each token");
        }
        return types;
    }

    /** Returns the tokenizer_config.json. */
    ObjectNode config() throws FormatException {
        ObjectNode config = JsonNodeFactory.instance.objectNode();
        for (Map.Entry<String, String> role : Map.of(
                        "bos", "bos_token", "eos", "eos_token", "padding", "pad_token", "unknown", "unk_token")
                .entrySet()) {
            Integer id = id(file, role.getKey());
            if (id != null) {
                config.put(role.getValue(), tokens.get(id));
            }
        }
        if (file.values().get("tokenizer.chat_template") instanceof String template) {
            config.put("chat_template", template);
        }
        return config;
    }

    private Split split() throws FormatException {
        Object pre = file.values().get(PREFIX + "pre");
        Split split = pre instanceof String name ? SPLITS.get(name) : null;
        if (split == null) {
            throw error(
                    "pre",
                    "is " + (pre == null ? "missing" : "\"" + GgufFile.brief(pre) + "\"") + "; known are "
                            + new TreeSet<>(SPLITS.keySet())
                            + ": use the model in Hugging Face's layout, with its tokenizer.json");
        }
        return split;
    }

    private void addedTokens(ArrayNode added, List<Integer> types) {
        for (int id = 0; id < tokens.size(); id++) {
            int type = types.get(id);
            if (type == CONTROL || type == UNKNOWN || type == USER_DEFINED) {
                added.addObject()
                        .put("id", id)
                        .put("content", tokens.get(id))
                        .put("single_word", false)
                        .put("lstrip", false)
                        .put("rstrip", false)
                        .put("normalized", false)
                        .put("special", type != USER_DEFINED);
            }
        }
    }

    private static void preTokenizer(ObjectNode node, Split split) {
        ArrayNode steps = node.put("type", "Sequence").putArray("pretokenizers");
        if (split.digits) {
            steps.addObject().put("type", "Digits").put("individual_digits", true);
        }
        if (split.pattern != null) {
            ObjectNode step = steps.addObject().put("type", "Split");
            step.putObject("pattern").put("Regex", split.pattern);
            step.put("behavior", "Isolated").put("invert", false);
        }
        byteLevel(steps.addObject(), split.pattern == null);
    }

    private static void byteLevel(ObjectNode node, boolean regex) {
        node.put("type", "ByteLevel")
                .put("add_prefix_space", false)
                .put("trim_offsets", true)
                .put("use_regex", regex);
    }

    private void postProcessor(ObjectNode node) throws FormatException {
        Integer bos = id(file, "bos");
        if (bos == null) {
            throw error("bos_token_id", "is missing, but a text is to begin with it (add_bos_token)");
        }
        String text = tokens.get(bos);
        node.put("type", "TemplateProcessing");
        bosAndSequences(node.putArray("single"), text, "A");
        bosAndSequences(node.putArray("pair"), text, "A", "B");
        ObjectNode special = node.putObject("special_tokens").putObject(text);
        special.put("id", text).putArray("ids").add(bos);
        special.putArray("tokens").add(text);
    }

    private static void bosAndSequences(ArrayNode template, String bos, String... sequences) {
        template.addObject().putObject("SpecialToken").put("id", bos).put("type_id", 0);
        for (String sequence : sequences) {
            template.addObject().putObject("Sequence").put("id", sequence).put("type_id", 0);
        }
    }

    private boolean flag(String key, boolean otherwise) throws FormatException {
        Object value = file.values().get(PREFIX + key);
        if (value == null || value instanceof Boolean) {
            return value == null ? otherwise : (Boolean) value;
        }
        throw error(key, "is " + GgufFile.brief(value) + "; expected true or false");
    }

    private List<String> texts(String key) throws FormatException {
        List<String> texts = new ArrayList<>();
        if (file.values().get(PREFIX + key) instanceof List<?> list) {
            for (Object each : list) {
                if (each instanceof String text) {
                    texts.add(text);
                }
            }
            if (texts.size() == list.size()) {
                return texts;
            }
        }
        throw error(key, "is missing or no list of texts; the file has no tokenizer that can be read");
    }

    private FormatException error(String key, String message) {
        return new FormatException(file.path() + ": metadata " + PREFIX + key + " " + message);
    }
}
