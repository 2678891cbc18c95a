package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * A tokenizer as llama.cpp wants it in a model's metadata: byte-level BPE ({@code tokenizer.ggml.model} gpt2) or {@linkplain
 * GgufSentencePieceMetadata SentencePiece} (llama), its tokens with their types, merges or scores, special tokens and the chat template. What tokenizer.json does that llama.cpp would not do is refused, for the tokens
 * would be others. Source: gguf-py's vocabulary code.
 */
final class GgufTokenizerMetadata {
    private static final String PREFIX = "tokenizer.ggml.";
    private static final int NORMAL = 1;
    private static final int UNKNOWN = 2;
    private static final int CONTROL = 3;
    private static final int USER_DEFINED = 4;
    private static final int UNUSED = 5;
    private static final int BYTE = 6;
    private static final Pattern BYTE_TOKEN = Pattern.compile("<0x[0-9A-F]{2}>");

    private static final String CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
    private static final String REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

    /** llama.cpp's name of a way of splitting text before merging, by the steps that {@link #steps} lists. */
    private static final Map<String, String> SPLITS = Map.of(
            "bytes+words",
            "gpt-2",
            "digits bytes+words",
            "smollm",
            "split:" + CONTRACTION + "\\p{N}{1,3}" + REST + " bytes",
            "llama-bpe",
            "nfc split:" + CONTRACTION + "\\p{N}" + REST + " bytes",
            "qwen2");

    private final Path file;
    private final ObjectNode json;
    private final TokenizerFiles files;

    private GgufTokenizerMetadata(TokenizerFiles files) throws FormatException {
        this.files = files;
        this.file = files.file();
        this.json = Json.parseObject(files.effectiveJson(), file.toString());
    }

    static void put(GgufMetadata m, ModelConfig config, Path dir) throws IOException {
        GgufTokenizerMetadata tokenizer = new GgufTokenizerMetadata(TokenizerFiles.read(dir));
        boolean pieces = GgufSentencePieceMetadata.is(tokenizer.json);
        m.string(PREFIX + "model", pieces ? "llama" : "gpt2");
        m.string(PREFIX + "pre", pieces ? "default" : tokenizer.split());
        tokenizer.putTokens(m, config.vocabSize(), pieces);
        if (!pieces) {
            m.strings(PREFIX + "merges", tokenizer.merges());
        }
        tokenizer.putSpecial(m, config);
        if (tokenizer.files.template() != null) {
            m.string("tokenizer.chat_template", tokenizer.files.template());
        }
    }

    /** Returns the model; the parts of one that llama.cpp has not are refused. */
    private JsonNode model() throws FormatException {
        JsonNode model = json.path("model");
        String type = model.path("type").stringValue("BPE");
        if (!type.equals("BPE")) {
            throw error("model is " + type + "; written to GGUF is BPE, byte-level or SentencePiece's");
        }
        for (String other : List.of("dropout", "continuing_subword_prefix", "end_of_word_suffix")) {
            JsonNode value = model.path(other);
            if (!value.isMissingNode()
                    && !value.isNull()
                    && !value.stringValue("?").isEmpty()) {
                throw error("model." + other + " is " + value + "; llama.cpp has none");
            }
        }
        return model;
    }

    private String split() throws FormatException {
        JsonNode model = model();
        String steps = steps();
        String name = SPLITS.get(steps);
        if (name == null) {
            throw error("splits text by [" + steps + "], which is none of llama.cpp's ways known here ("
                    + SPLITS.values().stream().sorted().toList() + "); its tokens would be others");
        }
        boolean whole = model.path("ignore_merges").booleanValue(false);
        if (whole != name.equals("llama-bpe")) {
            throw error("model.ignore_merges is " + whole + ", but llama.cpp takes it for " + !whole + " with " + name);
        }
        return name;
    }

    /** Returns normalizer and pre-tokenizer in words: what is not understood stands there as it is and matches nothing. */
    private String steps() {
        List<String> steps = new ArrayList<>();
        JsonNode normalizer = json.path("normalizer");
        if (!normalizer.isNull() && !normalizer.isMissingNode()) {
            steps.add(normalizer.path("type").stringValue("").equals("NFC") ? "nfc" : normalizer.toString());
        }
        JsonNode pre = json.path("pre_tokenizer");
        if (pre.path("type").stringValue("").equals("Sequence")) {
            pre.path("pretokenizers").values().forEach(step -> steps.add(step(step)));
        } else {
            steps.add(step(pre));
        }
        return String.join(" ", steps);
    }

    private static String step(JsonNode step) {
        return switch (step.path("type").stringValue("")) {
            case "Digits" -> step.path("individual_digits").booleanValue(false) ? "digits" : step.toString();
            case "ByteLevel" ->
                step.path("add_prefix_space").booleanValue(true)
                        ? step.toString()
                        : step.path("use_regex").booleanValue(true) ? "bytes+words" : "bytes";
            case "Split" ->
                step.path("behavior").stringValue("").equals("Isolated")
                                && !step.path("invert").booleanValue(false)
                        ? "split:" + step.path("pattern").path("Regex").stringValue("")
                        : step.toString();
            default -> step.toString();
        };
    }

    private void putTokens(GgufMetadata m, int rows, boolean pieces) throws FormatException {
        String[] tokens = new String[rows];
        int[] types = new int[rows];
        Arrays.fill(types, UNUSED);
        for (Map.Entry<String, Integer> entry : files.vocabulary().entrySet()) {
            int id = entry.getValue();
            if (id >= rows) {
                throw error("token \"" + entry.getKey() + "\" has the id " + id + ", but the model's embedding has "
                        + rows + " rows; the files are of different models");
            }
            if (tokens[id] != null) {
                throw error("gives \"" + tokens[id] + "\" and \"" + entry.getKey() + "\" the same id " + id);
            }
            tokens[id] = entry.getKey();
            types[id] = NORMAL;
        }
        for (JsonNode added : json.path("added_tokens").values()) {
            types[added.path("id").intValue()] = added.path("special").booleanValue(false) ? CONTROL : USER_DEFINED;
        }
        for (int id = 0; id < rows; id++) {
            tokens[id] = tokens[id] == null ? "[PAD" + id + "]" : tokens[id];
        }
        m.strings(PREFIX + "tokens", List.of(tokens));
        if (pieces) {
            putScores(m, List.of(tokens), types);
        }
        m.i32s(PREFIX + "token_type", types);
    }

    /** Bytes and the unknown token, which byte-level BPE does not have, get their types here. */
    private void putScores(GgufMetadata m, List<String> tokens, int[] types) throws FormatException {
        String unknown = model().path("unk_token").stringValue("");
        boolean[] mergeable = new boolean[types.length];
        for (int id = 0; id < types.length; id++) {
            if (tokens.get(id).equals(unknown)) {
                types[id] = UNKNOWN;
            } else if (types[id] == NORMAL && BYTE_TOKEN.matcher(tokens.get(id)).matches()) {
                types[id] = BYTE;
            }
            mergeable[id] = types[id] == NORMAL;
        }
        if (unknown.isEmpty() || !tokens.contains(unknown)) {
            throw error("model.unk_token is missing or not among the tokens; llama.cpp needs it for SentencePiece");
        }
        for (JsonNode added : json.path("added_tokens").values()) {
            for (String flag : List.of("single_word", "lstrip", "rstrip")) {
                if (added.path(flag).booleanValue(false)) {
                    throw error(
                            "added token " + added.path("content") + " has " + flag + ", which llama.cpp does not do");
                }
            }
        }
        GgufSentencePieceMetadata pieces = new GgufSentencePieceMetadata(file.toString(), json);
        m.f32s(PREFIX + "scores", pieces.scores(tokens, mergeable));
        m.bool(PREFIX + "add_space_prefix", pieces.addsSpace());
    }

    private List<String> merges() throws FormatException {
        List<String> merges = new ArrayList<>();
        for (JsonNode merge : json.path("model").path("merges").values()) {
            String text = merge.isArray()
                    ? merge.path(0).stringValue("") + " " + merge.path(1).stringValue("")
                    : merge.stringValue("");
            if (text.length() < 3 || text.indexOf(' ') < 1 || text.indexOf(' ') != text.lastIndexOf(' ')) {
                throw error("model.merges has " + merge + "; expected two tokens without spaces");
            }
            merges.add(text);
        }
        return merges;
    }

    private void putSpecial(GgufMetadata m, ModelConfig config) throws FormatException {
        Map<String, Integer> ids = new HashMap<>();
        putId(m, ids, "bos", "bos_token", config.bosTokenId());
        putId(
                m,
                ids,
                "eos",
                "eos_token",
                config.eosTokenIds().isEmpty() ? null : config.eosTokenIds().getFirst());
        putId(m, ids, "unknown", "unk_token", null);
        putId(m, ids, "padding", "pad_token", config.padTokenId());
        boolean[] added = addedAround(ids);
        m.bool(PREFIX + "add_bos_token", added[0]);
        m.bool(PREFIX + "add_eos_token", added[1]);
    }

    /** The tokenizer has the say; a config that names an id speaks where it says nothing. */
    private void putId(GgufMetadata m, Map<String, Integer> ids, String role, String key, @Nullable Integer otherwise) {
        SpecialToken token = files.special(key);
        Integer id = token != null ? Integer.valueOf(token.id()) : otherwise;
        if (id != null) {
            ids.put(role, id);
            m.u32(PREFIX + role + "_token_id", id);
        }
    }

    /** Returns whether BOS is put before a text and EOS behind it. */
    private boolean[] addedAround(Map<String, Integer> ids) throws FormatException {
        JsonNode template = json.path("post_processor");
        if (template.path("type").stringValue("").equals("Sequence")) {
            for (JsonNode step : template.path("processors").values()) {
                if (!step.path("type").stringValue("").equals("ByteLevel")) {
                    template = step;
                }
            }
        }
        boolean[] added = {false, false};
        if (!template.path("type").stringValue("").equals("TemplateProcessing")) {
            if (!template.isNull()
                    && !template.isMissingNode()
                    && !List.of("ByteLevel", "Sequence")
                            .contains(template.path("type").stringValue(""))) {
                throw error("post_processor is " + template.path("type") + "; llama.cpp only adds BOS and EOS");
            }
            return added;
        }
        int side = 0;
        for (JsonNode piece : template.path("single").values()) {
            String special = piece.path("SpecialToken").path("id").stringValue("");
            if (piece.has("Sequence")) {
                side = 1;
            } else if (!added[side]
                    && ids.getOrDefault(side == 0 ? "bos" : "eos", -1)
                            .equals(files.vocabulary().get(special))) {
                added[side] = true;
            } else {
                throw error("post_processor adds " + special + (side == 0 ? " before" : " behind")
                        + " a text; llama.cpp only adds BOS before and EOS behind it");
            }
        }
        return added;
    }

    private FormatException error(String message) {
        return new FormatException(file + ": " + message);
    }
}
