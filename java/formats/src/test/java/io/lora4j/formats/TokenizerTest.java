package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

class TokenizerTest {
    private static final List<String> STREAMED = List.of(
            "plain words",
            "👩‍👩‍👧 and 🇩🇪",
            "日本 is 日本",
            "déjà vu",
            "𝒳𝒴 the cat",
            "a\u0301 ☃ ﷺ",
            "",
            "😀😀😀",
            "x👍🏽y");

    @TempDir
    Path dir;

    @ParameterizedTest
    @ValueSource(strings = {"bytes", "spaces"})
    void encodesAndDecodesAsTransformersDoes(String name) throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/" + name))) {
            for (JsonNode c :
                    TestData.json("tokenizers/golden.json").get("cases").values()) {
                if (!c.get("tokenizer").stringValue().equals(name)) {
                    continue;
                }
                String text = c.get("text").stringValue();
                boolean special = c.get("special").booleanValue();
                int[] ids = c.get("ids").values().stream()
                        .mapToInt(JsonNode::intValue)
                        .toArray();
                assertThat(tokenizer.encode(text, special)).as(text).isEqualTo(ids);
                assertThat(tokenizer.decode(ids, false))
                        .isEqualTo(c.get("decoded").stringValue());
                assertThat(tokenizer.decode(ids, true)).isEqualTo(c.get("plain").stringValue());
                Encoding encoding = tokenizer.encodeWithOffsets(text, special);
                assertThat(encoding.ids()).isEqualTo(ids);
                checkOffsets(text, encoding, c.get("offsets"));
            }
        }
    }

    /** Ours cover what transformers' do and, where those were trimmed, the spaces between, so that no part is left out. */
    private static void checkOffsets(String text, Encoding encoding, JsonNode golden) {
        int covered = 0;
        for (int i = 0; i < encoding.size(); i++) {
            Span ours = encoding.span(i);
            int start = golden.get(i).get(0).intValue();
            int end = golden.get(i).get(1).intValue();
            if (end > start) {
                assertThat(ours.start()).isLessThanOrEqualTo(start);
                assertThat(ours.end()).isEqualTo(end);
                assertThat(text.substring(ours.start(), start)).isBlank();
            }
            assertThat(ours.start()).isLessThanOrEqualTo(covered);
            assertThat(text.codePointCount(0, ours.start())).isNotNegative();
            assertThat(splitsPair(text, ours.start()) || splitsPair(text, ours.end()))
                    .isFalse();
            covered = Math.max(covered, ours.end());
        }
        assertThat(text.substring(covered)).isBlank();
    }

    private static boolean splitsPair(String text, int index) {
        return index > 0
                && index < text.length()
                && Character.isSurrogatePair(text.charAt(index - 1), text.charAt(index));
    }

    @Test
    void tellsWhichTokensASpanCovers() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/bytes"))) {
            String text = "the<|im_end|>👍  cat";
            Encoding encoding = tokenizer.encodeWithOffsets(text, false);
            int cat = text.indexOf("👍");
            boolean[] covered = encoding.covers(List.of(new Span(cat, text.length())));
            StringBuilder inside = new StringBuilder();
            for (int i = 0; i < covered.length; i++) {
                assertThat(covered[i]).isEqualTo(encoding.span(i).end() > cat);
                inside.append(covered[i] ? '1' : '0');
            }
            // the, <|im_end|>; then the four bytes of the emoji, a space, " cat".
            assertThat(inside.toString()).matches("0+1{5,}");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"bytes", "spaces"})
    void streamsOnlyWholeCharacters(String name) throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/" + name))) {
            for (String text : STREAMED) {
                StreamDecoder decoder = new StreamDecoder(tokenizer, true);
                StringBuilder streamed = new StringBuilder();
                int[] ids = tokenizer.encode(text, true);
                for (int id : ids) {
                    String piece = decoder.add(id);
                    assertThat(piece).doesNotContain("\uFFFD");
                    assertThat(piece.isEmpty() || !Character.isLowSurrogate(piece.charAt(0)))
                            .isTrue();
                    assertThat(piece.isEmpty() || !Character.isHighSurrogate(piece.charAt(piece.length() - 1)))
                            .isTrue();
                    streamed.append(piece);
                }
                assertThat(decoder.finish()).isEmpty();
                assertThat(streamed.toString())
                        .isEqualTo(tokenizer.decode(ids, true))
                        .isEqualTo(text);
            }
        }
    }

    @Test
    void givesOutBytesThatNeverBecomeACharacter() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/bytes"))) {
            int[] emoji = tokenizer.encode("👍", false);
            assertThat(emoji.length).isGreaterThan(1);
            StreamDecoder decoder = new StreamDecoder(tokenizer, true);
            assertThat(decoder.add(emoji[0])).isEmpty();
            int[] word = tokenizer.encode("the", false);
            StringBuilder text = new StringBuilder();
            for (int id : word) {
                text.append(decoder.add(id));
            }
            assertThat(text.toString()).isEqualTo("\uFFFDthe");
            assertThat(decoder.add(emoji[0])).isEmpty();
            assertThat(decoder.finish()).isEqualTo("\uFFFD");
            assertThat(decoder.add(word[0])).isNotEmpty();
        }
    }

    @Test
    void knowsTheSpecialTokensAndTheTemplate() throws IOException {
        try (Tokenizer bytes = Tokenizer.open(TestData.path("tokenizers/bytes"))) {
            assertThat(bytes.bos()).contains(new SpecialToken("<|im_start|>", 1));
            assertThat(bytes.eos()).contains(new SpecialToken("<|im_end|>", 2));
            assertThat(bytes.pad()).contains(new SpecialToken("<|endoftext|>", 0));
            assertThat(bytes.tokenToId("<|im_end|>")).hasValue(2);
            assertThat(bytes.tokenToId("no such token")).isEmpty();
            assertThat(bytes.vocabSize()).isEqualTo(383);
            assertThat(bytes.chatTemplate()).get().asString().startsWith("{% for message in messages %}");
            assertThat(bytes.chatTemplateSource()).endsWith("tokenizer_config.json: chat_template");
        }
        try (Tokenizer spaces = Tokenizer.open(TestData.path("tokenizers/spaces"))) {
            assertThat(spaces.bos()).contains(new SpecialToken("<s>", 1));
            assertThat(spaces.pad()).isEmpty();
            assertThat(spaces.unk()).contains(new SpecialToken("<unk>", 0));
            assertThat(spaces.chatTemplate()).contains("{{ bos_token }}{{ messages[0].content }}");
            assertThat(spaces.encode("the", true)[0]).isEqualTo(1);
            assertThat(spaces.encode("the", false)[0]).isNotEqualTo(1);
        }
    }

    @Test
    void neitherTruncatesNorPads() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/bytes"))) {
            assertThat(tokenizer.encode("the cat ".repeat(500), false).length).isGreaterThan(999);
            assertThat(tokenizer.encode("the", false)).hasSize(1);
        }
    }

    @Test
    void refusesHalfASurrogatePairAndNegativeIds() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/bytes"))) {
            assertThatThrownBy(() -> tokenizer.encode("ab\ud800c", false))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("half a surrogate pair (U+d800) at index 2");
            assertThatThrownBy(() -> tokenizer.encode("\udc00", false)).hasMessageContaining("index 0");
            assertThatThrownBy(() -> tokenizer.decode(new int[] {-1}, false)).hasMessageContaining("-1 is negative");
            assertThat(tokenizer.decode(new int[] {1_000_000}, false)).isEmpty();
        }
    }

    private Path copy(Map<String, Object> changes) throws IOException {
        Path from = TestData.path("tokenizers/bytes");
        Files.copy(
                from.resolve("tokenizer.json"),
                dir.resolve("tokenizer.json"),
                java.nio.file.StandardCopyOption.REPLACE_EXISTING);
        Map<String, Object> config = new TreeMap<>();
        TestData.parse(Files.readString(from.resolve("tokenizer_config.json")))
                .properties()
                .forEach(e -> config.put(e.getKey(), TestData.plain(e.getValue())));
        config.putAll(changes);
        Bytes.write(dir.resolve("tokenizer_config.json"), PythonJson.pretty().write(config));
        return dir;
    }

    /** As in transformers 5: whoever wants BOS says so in tokenizer.json. */
    @Test
    void theConfigDoesNotDecideOnBos() throws IOException {
        copy(Map.of("add_bos_token", true, "add_eos_token", true));
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThat(tokenizer.encode("the", true)).hasSize(1);
        }
    }

    @Test
    void prefersTheTemplateFile() throws IOException {
        copy(Map.of());
        Bytes.write(dir.resolve("chat_template.jinja"), "{{ 1 }}");
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThat(tokenizer.chatTemplate()).contains("{{ 1 }}");
            assertThat(tokenizer.chatTemplateSource()).endsWith("chat_template.jinja");
        }
    }

    @Test
    void ofSeveralTemplateFilesTheDefaultCounts() throws IOException {
        copy(Map.of());
        Path more = Files.createDirectories(dir.resolve("additional_chat_templates"));
        Bytes.write(more.resolve("tool_use.jinja"), "{{ 2 }}");
        refused("additional_chat_templates: has the templates [tool_use] but none named \"default\"");
        Bytes.write(dir.resolve("chat_template.jinja"), "{{ 1 }}");
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThat(tokenizer.chatTemplate()).contains("{{ 1 }}");
        }
        Bytes.write(more.resolve("default.jinja"), "{{ 3 }}");
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThat(tokenizer.chatTemplate()).contains("{{ 3 }}");
        }
    }

    @Test
    void readsTheOldMapOfSpecialTokens() throws IOException {
        Files.copy(TestData.path("tokenizers/bytes").resolve("tokenizer.json"), dir.resolve("tokenizer.json"));
        Bytes.write(dir.resolve("special_tokens_map.json"), "{\"eos_token\":{\"content\":\"<|im_end|>\"}}");
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThat(tokenizer.eos()).contains(new SpecialToken("<|im_end|>", 2));
            assertThat(tokenizer.chatTemplate()).isEmpty();
        }
    }

    private void refused(String message) {
        assertThatThrownBy(() -> Tokenizer.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(message);
    }

    @Test
    void refusesDamage() throws IOException {
        refused("tokenizer.json: no such file");
        Bytes.write(dir.resolve("tokenizer.model"), "x");
        refused("has tokenizer.model but no tokenizer.json; convert it");
        Bytes.write(dir.resolve("tokenizer.json"), "{}");
        refused("has no model.vocab");
        Bytes.write(dir.resolve("tokenizer.json"), "{\"model\":{\"vocab\":{\"a\":-1}}}");
        refused("token \"a\" has the id -1");
        Bytes.write(dir.resolve("tokenizer.json"), "{\"model\":{\"type\":\"Strange\",\"vocab\":{\"a\":0}}}");
        refused("the tokenizers library cannot load it");
        copy(Map.of("eos_token", "<nowhere>"));
        refused("eos_token \"<nowhere>\" is not in the vocabulary");
        copy(Map.of("added_tokens_decoder", Map.of("7", Map.of("content", "<|im_end|>"))));
        refused("added_tokens_decoder gives \"<|im_end|>\" the id 7");
        List<Object> named = new ArrayList<>(List.of(Map.of("name", "rag", "template", "x")));
        copy(Map.of("chat_template", named));
        refused("has the templates [rag] but none named \"default\"");
    }
}
