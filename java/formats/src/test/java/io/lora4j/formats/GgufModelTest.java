package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Scheme;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;

/** What a GGUF file says of its model. What the weights compute, the tests of the models say. */
class GgufModelTest {
    private static final Path FAMILIES =
            Path.of(System.getProperty("lora4j.root"), "java/train/src/test/resources/io/lora4j/train/model/families");
    private static final Path LLAMA = FAMILIES.resolve("gguf_llama/model.gguf");

    @TempDir
    Path dir;

    @Test
    void readsTheConfigOfALlama() throws IOException {
        ModelConfig config = ModelConfig.read(LLAMA);
        assertThat(config).isEqualTo(ModelConfig.read(LLAMA.getParent()));
        assertThat(config.architecture()).isEqualTo("LlamaForCausalLM");
        assertThat(config.vocabSize()).isEqualTo(270);
        assertThat(config.hiddenSize()).isEqualTo(64);
        assertThat(config.intermediateSize()).isEqualTo(96);
        assertThat(config.numHiddenLayers()).isEqualTo(2);
        assertThat(config.numAttentionHeads()).isEqualTo(4);
        assertThat(config.numKeyValueHeads()).isEqualTo(2);
        assertThat(config.headDim()).isEqualTo(16);
        assertThat(config.maxPositionEmbeddings()).isEqualTo(64);
        assertThat(config.rmsNormEps()).isEqualTo(1e-5f);
        assertThat(config.tieWordEmbeddings()).isTrue();
        assertThat(config.rope()).isEqualTo(new Rope.Default(10000));
        assertThat(config.eosTokenIds()).containsExactly(2, 5);
        assertThat(GenerationConfig.read(LLAMA).eosTokenIds()).containsExactly(2, 5);
        assertThat(config.bosTokenId()).isEqualTo(1);
        assertThat(config.padTokenId()).isEqualTo(3);
    }

    @Test
    void readsTheOtherFamilies() throws IOException {
        ModelConfig qwen2 = ModelConfig.read(FAMILIES.resolve("gguf_qwen2"));
        assertThat(qwen2.architecture()).isEqualTo("Qwen2ForCausalLM");
        assertThat(qwen2.attentionBias()).isTrue();
        assertThat(qwen2.tieWordEmbeddings()).isFalse();
        ModelConfig qwen3 = ModelConfig.read(FAMILIES.resolve("gguf_qwen3"));
        assertThat(qwen3.qkNorm()).isTrue();
        assertThat(qwen3.headDim()).isEqualTo(32);
        assertThat(ModelConfig.read(FAMILIES.resolve("gguf_llama3")).rope())
                .isEqualTo(new Rope.Divided(10000, List.of(1f, 1f, 1f, 1.5f, 2.25f, 4f, 8f, 8f)));
    }

    @Test
    void handsOutBlocksAsTheyAreButRowsOfHeadsInOrder() throws IOException {
        try (GgufFile file = GgufFile.open(LLAMA);
                ModelWeights weights = ModelWeights.open(LLAMA);
                Arena copies = Arena.ofConfined()) {
            StoredWeight up = weights.matrix("model.layers.1.mlp.up_proj", copies);
            assertThat(up.scheme()).isEqualTo(Scheme.GGUF_Q4_1);
            assertThat(up.rows()).isEqualTo(96);
            assertThat(up.cols()).isEqualTo(64);
            assertThat(up.values().data().mismatch(file.data("blk.1.ffn_up.weight")))
                    .isEqualTo(-1);
            StoredWeight query = weights.matrix("model.layers.1.self_attn.q_proj", copies);
            long row = 2 * 20;
            assertThat(query.values().dtype()).isEqualTo(DType.U8);
            assertThat(query.values().shape()).containsExactly(64, row);
            var interleaved = file.data("blk.1.attn_q.weight");
            // The second head: its rows 0, 1 and 8 are the file's 0, 2 and 1.
            for (int[] pair : new int[][] {{16, 16}, {17, 18}, {24, 17}, {31, 31}}) {
                assertThat(query.values()
                                .data()
                                .asSlice(pair[0] * row, row)
                                .mismatch(interleaved.asSlice(pair[1] * row, row)))
                        .isEqualTo(-1);
            }
            assertThat(weights.matrix("model.layers.1.mlp.down_proj", copies).scheme())
                    .isEqualTo(Scheme.DENSE);
            weights.unload("model.layers.1.self_attn.q_proj");
            assertThat(up.values().data().mismatch(file.data("blk.1.ffn_up.weight")))
                    .isEqualTo(-1);
        }
    }

    @Test
    void readsTokenizerAndChatTemplate() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(LLAMA)) {
            assertThat(tokenizer.vocabSize()).isEqualTo(270);
            String text = ChatTemplate.parse(tokenizer.chatTemplate().orElseThrow(), tokenizer.chatTemplateSource())
                    .render(List.of(new Message("user", "in the")), Map.of(), ZonedDateTime.now(ZoneOffset.UTC))
                    .text();
            assertThat(text).isEqualTo("<|im_start|>user\nin the<|im_end|>\n");
            int[] ids = tokenizer.encode("in the<|im_end|>", true);
            // Merges: "i n" makes the third token after specials and bytes, "Ġ the" the fifth.
            assertThat(ids).containsExactly(6 + 256 + 2, 6 + 256 + 4, 5);
            assertThat(tokenizer.decode(ids, true)).isEqualTo("in the");
        }
    }

    /** A tokenizer.json written into the metadata of a GGUF file gives the ids that transformers has for the tokenizer.json. */
    @ParameterizedTest
    @CsvSource({"gpt2, gpt-2, false", "smollm2, smollm, false", "qwen2, qwen2, false", "llama3, llama-bpe, true"})
    void tokenizersOfEveryKindGiveTheIdsOfTransformers(String kind, String pre, boolean bos) throws Exception {
        JsonNode json = TestData.json("tokenizers/kinds/" + kind + "/tokenizer.json");
        Map<Integer, String> tokens = new TreeMap<>();
        json.get("model")
                .get("vocab")
                .properties()
                .forEach(e -> tokens.put(e.getValue().intValue(), e.getKey()));
        Map<Integer, Long> types = new TreeMap<>();
        for (JsonNode added : json.get("added_tokens").values()) {
            tokens.put(added.get("id").intValue(), added.get("content").stringValue());
            types.put(added.get("id").intValue(), added.get("special").booleanValue() ? 3L : 4L);
        }
        List<String> merges = new ArrayList<>();
        for (JsonNode merge : json.get("model").get("merges").values()) {
            merges.add(merge.get(0).stringValue() + " " + merge.get(1).stringValue());
        }
        GgufBuilder builder = GgufBuilder.of(LLAMA)
                .put("tokenizer.ggml.pre", pre)
                .put("tokenizer.ggml.tokens", List.copyOf(tokens.values()))
                .put(
                        "tokenizer.ggml.token_type",
                        tokens.keySet().stream()
                                .map(id -> types.getOrDefault(id, 1L))
                                .toList())
                .put("tokenizer.ggml.merges", merges)
                .put("tokenizer.ggml.add_bos_token", bos);
        JsonNode golden = TestData.json("tokenizers/kinds.json");
        JsonNode cases = golden.get("kinds").get(kind).get("cases");
        int compared = 0;
        try (Tokenizer tokenizer = Tokenizer.open(builder.write(dir.resolve("kind.gguf")))) {
            for (int i = 0; i < cases.size(); i++) {
                String text = golden.get("texts").get(i).stringValue();
                // GGUF does not say of a token that it takes spaces or whole words only.
                if (!text.contains("[WORD]") && !text.contains("[LEFT]") && !text.contains("[RIGHT]")) {
                    assertThat(tokenizer.encode(text, false))
                            .as(text)
                            .isEqualTo(ints(cases.get(i).get(0)));
                    compared++;
                }
            }
            assertThat(tokenizer.encode("x", true)).hasSize(bos ? 2 : 1);
        }
        assertThat(compared).isGreaterThan(200);
    }

    /** SentencePiece has scores: here those that put the tokens in the order of the merges that made them. */
    @Test
    void sentencePieceGivesTheIdsOfTransformers() throws Exception {
        JsonNode json = TestData.json("tokenizers/kinds/llama2/tokenizer.json");
        Map<Integer, String> tokens = new TreeMap<>();
        Map<Integer, Long> types = new TreeMap<>();
        json.get("model").get("vocab").properties().forEach(e -> {
            tokens.put(e.getValue().intValue(), e.getKey());
            types.put(e.getValue().intValue(), e.getKey().startsWith("<0x") ? 6L : 1L);
        });
        for (JsonNode added : json.get("added_tokens").values()) {
            int id = added.get("id").intValue();
            tokens.put(id, added.get("content").stringValue());
            types.put(id, id == 0 ? 2L : added.get("special").booleanValue() ? 3L : 4L);
        }
        Map<String, Double> ranks = new java.util.HashMap<>();
        for (JsonNode merge : json.get("model").get("merges").values()) {
            ranks.putIfAbsent(merge.get(0).stringValue() + merge.get(1).stringValue(), -1.0 - ranks.size());
        }
        GgufBuilder builder = GgufBuilder.of(LLAMA)
                .put("tokenizer.ggml.model", "llama")
                .put("tokenizer.ggml.tokens", List.copyOf(tokens.values()))
                .put("tokenizer.ggml.token_type", List.copyOf(types.values()))
                .put(
                        "tokenizer.ggml.scores",
                        tokens.values().stream()
                                .map(token -> ranks.getOrDefault(token, -1e6))
                                .toList())
                .remove("tokenizer.ggml.pre")
                .remove("tokenizer.ggml.merges")
                .remove("tokenizer.ggml.add_bos_token");
        JsonNode golden = TestData.json("tokenizers/kinds.json");
        JsonNode cases = golden.get("kinds").get("llama2").get("cases");
        int compared = 0;
        try (Tokenizer tokenizer = Tokenizer.open(builder.write(dir.resolve("kind.gguf")))) {
            for (int i = 0; i < cases.size(); i++) {
                String text = golden.get("texts").get(i).stringValue();
                // Tokens that take spaces or whole words only, or that are looked for after normalization, GGUF does
                // not have.
                if (!text.contains("[") && !text.contains("<0x")) {
                    int[] ids = tokenizer.encode(text, false);
                    assertThat(ids).as(text).isEqualTo(ints(cases.get(i).get(0)));
                    compared++;
                }
            }
            assertThat(tokenizer.encode("the fox", true)[0]).isEqualTo(1);
            assertThat(tokenizer.decode(tokenizer.encode("the fox 😀", true), true))
                    .isEqualTo("the fox 😀");
        }
        throughAFolder(dir.resolve("kind.gguf"));
        assertThat(compared).isGreaterThan(200);
        List<String> longer = new ArrayList<>(tokens.values());
        longer.set(400, "a".repeat(513));
        refusedTokenizer(
                builder.put("tokenizer.ggml.tokens", longer),
                "tokenizer.ggml.tokens has 513 characters at 400; expected at most 512");
        refusedTokenizer(
                builder.put("tokenizer.ggml.scores", List.of(1.0)), "tokenizer.ggml.scores is not a list of 501");
    }

    /** The tokenizer of the folder that the file becomes, and that of the file which the folder becomes, do the same. */
    private void throughAFolder(Path file) throws IOException {
        Path folder = Files.createDirectory(dir.resolve("folder"));
        ModelFolder.writeSideFiles(file, folder);
        Files.writeString(folder.resolve("config.json"), """
                {"architectures": ["LlamaForCausalLM"], "vocab_size": 501, "hidden_size": 64, "num_attention_heads": 4}
                """);
        Path back = dir.resolve("back.gguf");
        GgufWriter.write(back, tokenizerMetadata(folder), List.of(), (tensor, sink) -> {}, whole -> {});
        String json = Files.readString(folder.resolve("tokenizer.json"));
        String[][] changes = {
            {"\"type\": \"Prepend\"", "\"type\": \"Append\"", "writes spaces by"},
            {"\"fuse_unk\": true,", "\"fuse_unk\": true, \"dropout\": 0.1,", "model.dropout is 0.1"},
            {"\"merges\": \\[\\s*\\[[^]]*\\],", "\"merges\": [", "but llama.cpp would"},
        };
        for (String[] change : changes) {
            String changed = json.replaceFirst(change[0], change[1]);
            assertThat(changed).as(change[0]).isNotEqualTo(json);
            Files.writeString(folder.resolve("tokenizer.json"), changed);
            assertThatThrownBy(() -> tokenizerMetadata(folder))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining(change[2]);
        }
        Files.writeString(folder.resolve("tokenizer.json"), json);
        JsonNode texts = TestData.json("tokenizers/kinds.json").get("texts");
        try (Tokenizer first = Tokenizer.open(file);
                Tokenizer second = Tokenizer.open(folder);
                Tokenizer third = Tokenizer.open(back);
                GgufFile before = GgufFile.open(file);
                GgufFile after = GgufFile.open(back)) {
            int compared = 0;
            for (JsonNode node : texts.values()) {
                String text = node.stringValue();
                int[] ids = first.encode(text, true);
                assertThat(second.encode(text, true)).isEqualTo(ids);
                assertThat(third.encode(text, true)).isEqualTo(ids);
                // Special tokens are cut out of a text before it is merged.
                if (!text.isEmpty() && !text.contains("[") && !text.contains("<")) {
                    assertThat(mergedByScore(after, text)).as(text).isEqualTo(first.encode(text, false));
                    compared++;
                }
            }
            assertThat(compared).isGreaterThan(200);
            for (String key : List.of("model", "tokens", "token_type", "bos_token_id", "eos_token_id")) {
                assertThat(after.values().get("tokenizer.ggml." + key))
                        .as(key)
                        .isEqualTo(before.values().get("tokenizer.ggml." + key));
            }
            assertThat(after.values()).containsEntry("tokenizer.ggml.add_space_prefix", true);
        }
    }

    /** What llama.cpp does with scores, one merge after the other: the neighbours that make the token of the highest score, leftmost first. */
    private static int[] mergedByScore(GgufFile file, String text) {
        List<?> tokens = (List<?>) file.values().get("tokenizer.ggml.tokens");
        List<?> scores = (List<?>) file.values().get("tokenizer.ggml.scores");
        List<String> parts = new ArrayList<>();
        (" " + text).replace(' ', '\u2581').codePoints().forEach(c -> parts.add(Character.toString(c)));
        int best = 0;
        while (best >= 0) {
            best = -1;
            double highest = Double.NEGATIVE_INFINITY;
            for (int i = 0; i + 1 < parts.size(); i++) {
                int id = tokens.indexOf(parts.get(i) + parts.get(i + 1));
                if (id >= 0 && (Double) scores.get(id) > highest) {
                    highest = (Double) scores.get(id);
                    best = i;
                }
            }
            if (best >= 0) {
                parts.set(best, parts.get(best) + parts.remove(best + 1));
            }
        }
        List<Integer> ids = new ArrayList<>();
        for (String part : parts) {
            if (tokens.contains(part)) {
                ids.add(tokens.indexOf(part));
            } else {
                for (byte b : part.getBytes(StandardCharsets.UTF_8)) {
                    ids.add(tokens.indexOf("<0x%02X>".formatted(b & 0xff)));
                }
            }
        }
        return ids.stream().mapToInt(Integer::intValue).toArray();
    }

    private static GgufMetadata tokenizerMetadata(Path folder) throws IOException {
        GgufMetadata metadata = new GgufMetadata();
        GgufTokenizerMetadata.put(metadata, ModelConfig.read(folder), folder);
        return metadata;
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            general.architecture                   | text:mamba | general.architecture is mamba; supported are [llama, qwen2, qwen3]
            general.architecture                   |            | general.architecture is null; supported are
            llama.block_count                      |            | llama.block_count is missing; expected a positive integer
            llama.block_count                      | 2147483647 | llama.block_count is 2147483647; expected at most its 20 tensors
            llama.embedding_length                 | text:64    | llama.embedding_length is 64; expected a positive integer
            llama.embedding_length                 | 128        | tensor model.embed_tokens.weight has shape [270, 64]; its metadata implies [270, 128]
            llama.feed_forward_length              | 4611686018427387904 | expected a positive integer
            llama.attention.head_count             | 0          | llama.attention.head_count is 0; expected a positive integer
            llama.attention.head_count             | 8          | tensor model.layers.0.self_attn.q_proj.weight has shape [64, 64]; its metadata implies [128, 64]
            llama.attention.head_count_kv          | 3          | num_attention_heads 4 is not a multiple of num_key_value_heads 3
            llama.attention.value_length           | 8          | llama.attention.value_length is 8; expected the width of a head, 16
            llama.attention.layer_norm_rms_epsilon |            | llama.attention.layer_norm_rms_epsilon is missing; expected a finite number
            llama.expert_count                     | 8          | llama.expert_count is 8, which lora4j does not understand
            llama.rope.scaling.type                | text:yarn  | llama.rope.scaling.type is yarn; expected none or linear
            llama.vocab_size                       | 271        | has shape [270, 64]; its metadata implies [271, 64]
            split.count                            | 3          | is one of 3 parts of a model
            tokenizer.ggml.eos_token_id            | 270        | tokenizer.ggml.eos_token_id is 270; expected a token id from 0 to 269
            """)
    void refusesWrongMetadata(String key, String value, String message) throws IOException {
        GgufBuilder builder = GgufBuilder.of(LLAMA).remove(key);
        if (value != null) {
            builder.put(key, value.startsWith("text:") ? value.substring(5) : (Object) Long.valueOf(value));
        }
        refused(builder, message);
    }

    @Test
    void refusesWrongTensors() throws IOException {
        String up = "blk.1.ffn_up.weight";
        refused(GgufBuilder.of(LLAMA).describe(up, up, List.of(64L, 96L)), "has shape [64, 96]; its metadata implies");
        refused(
                GgufBuilder.of(LLAMA).describe(up, "blk.1.ffn_other", List.of(96L, 64L)),
                "missing model.layers.1.mlp.up_proj");
        refused(
                GgufBuilder.of(LLAMA).describe(up, "model.layers.0.mlp.up_proj.weight", List.of(96L, 64L)),
                "are both model.layers.0.mlp.up_proj.weight");
        refused(GgufBuilder.of(LLAMA).describe(up, up, List.of(9600L, 64L)), "the file is truncated or damaged");
        refused(
                GgufBuilder.of(LLAMA)
                        .put("llama.attention.head_count", 1L << 16)
                        .put("llama.attention.key_length", 1L << 16)
                        .put("llama.attention.value_length", 1L << 16)
                        .put("llama.rope.dimension_count", 1L << 16)
                        .describe("blk.0.attn_q.weight", "blk.0.attn_q.weight", List.of(0L, 64L)),
                "num_attention_heads 65536 times head_dim 65536 is more than any layer has");
        refused(
                GgufBuilder.of(LLAMA).put("llama.x", Collections.nCopies(1000, 7L)),
                "llama.x is [7, 7, 7, 7, 7, 7, 7, 7, …] (1000 entries), which");
        GgufBuilder unknown = GgufBuilder.of(LLAMA);
        unknown.tensors.replaceAll(
                t -> t.name().equals(up) ? new GgufBuilder.Described(up, 99, t.shape(), t.bytes()) : t);
        refused(unknown, "tensor model.layers.1.mlp.up_proj.weight has dtype ggml type 99; supported for weights are");
        GgufBuilder more = GgufBuilder.of(LLAMA);
        more.tensors.add(new GgufBuilder.Described("rope_freqs.weight", 0, List.of(2L), new byte[8]));
        refused(more, "tensor rope_freqs.weight is F32 [2]; expected F32 [8], a divisor for each pair of a head");
        more.tensors.set(
                more.tensors.size() - 1, new GgufBuilder.Described("rope_freqs.weight", 0, List.of(8L), new byte[32]));
        refused(more, "tensor rope_freqs.weight holds 0.0 at element 0; expected positive numbers");
    }

    private void refused(GgufBuilder builder, String message) throws IOException {
        Path file = builder.write(dir.resolve("bad.gguf"));
        assertThatThrownBy(() -> ModelWeights.open(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file.toString())
                .hasMessageContaining(message);
    }

    @Test
    void refusesTokenizersThatItWouldReadWrongly() throws IOException {
        refusedTokenizer(GgufBuilder.of(LLAMA).put("tokenizer.ggml.model", "t5"), "tokenizer.ggml.model is t5");
        refusedTokenizer(GgufBuilder.of(LLAMA).put("tokenizer.ggml.pre", "viking"), "tokenizer.ggml.pre is \"viking\"");
        refusedTokenizer(GgufBuilder.of(LLAMA).remove("tokenizer.ggml.pre"), "tokenizer.ggml.pre is missing");
        refusedTokenizer(GgufBuilder.of(LLAMA).remove("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens is missing");
        refusedTokenizer(GgufBuilder.of(LLAMA).remove("tokenizer.ggml.merges"), "tokenizer.ggml.merges is missing");
        refusedTokenizer(
                GgufBuilder.of(LLAMA).put("tokenizer.ggml.token_type", List.of(1L)), "is not a list of 270 types");
        refusedTokenizer(
                GgufBuilder.of(LLAMA).put("tokenizer.ggml.tokens", Collections.nCopies(270, "a")), "has \"a\" twice");
    }

    private void refusedTokenizer(GgufBuilder builder, String message) throws IOException {
        Path file = builder.write(dir.resolve("bad.gguf"));
        assertThatThrownBy(() -> Tokenizer.open(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file.toString())
                .hasMessageContaining(message);
    }

    @Test
    void aDirectoryOfSeveralFilesIsAmbiguous() throws IOException {
        Files.copy(LLAMA, dir.resolve("a.gguf"));
        Files.copy(LLAMA, dir.resolve("b.gguf"));
        assertThatThrownBy(() -> ModelWeights.open(dir)).hasMessageContaining("holds 2 GGUF files ([a.gguf, b.gguf])");
        assertThat(ModelConfig.read(dir.resolve("a.gguf")).hiddenSize()).isEqualTo(64);
    }
}
