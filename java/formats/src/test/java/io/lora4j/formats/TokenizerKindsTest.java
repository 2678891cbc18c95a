package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.stream.IntStream;
import org.assertj.core.api.SoftAssertions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

/** A tokenizer of each kind on the 400 texts of test-data/tokenizers/kinds.json: ids and decoded texts as transformers'. */
class TokenizerKindsTest {

    @ParameterizedTest
    @ValueSource(strings = {"gpt2", "llama3", "qwen2", "smollm2", "llama2", "mistral", "gemma", "t5", "xlm"})
    void idsAndTextsAreTransformers(String kind) throws Exception {
        JsonNode golden = TestData.json("tokenizers/kinds.json");
        JsonNode expected = golden.get("kinds").get(kind);
        int[] before = ints(expected.get("before"));
        int[] after = ints(expected.get("after"));
        SoftAssertions soft = new SoftAssertions();
        try (Tokenizer tokenizer = Tokenizer.open(TestData.path("tokenizers/kinds/" + kind))) {
            for (int i = 0; i < golden.get("texts").size(); i++) {
                String text = golden.get("texts").get(i).stringValue();
                JsonNode c = expected.get("cases").get(i);
                int[] ids = ints(c.get(0));
                int[] all = IntStream.concat(
                                IntStream.concat(IntStream.of(before), IntStream.of(ids)), IntStream.of(after))
                        .toArray();
                soft.assertThat(tokenizer.encode(text, false)).as(text).isEqualTo(ids);
                soft.assertThat(tokenizer.encode(text, true)).as(text).isEqualTo(all);
                Encoding encoding = tokenizer.encodeWithOffsets(text, true);
                soft.assertThat(encoding.ids()).as(text).isEqualTo(all);
                String plain = tokenizer.decode(ids, true);
                if (c.has(1)) {
                    soft.assertThat(digest(tokenizer.decode(ids, false)))
                            .as("decoded: %s", text)
                            .isEqualTo(c.get(1).stringValue());
                    soft.assertThat(digest(plain))
                            .as("decoded: %s", text)
                            .isEqualTo(c.get(2).stringValue());
                }
                soft.assertThat(streamed(tokenizer, ids))
                        .as("streamed: %s", text)
                        .isEqualTo(plain);
            }
        }
        soft.assertAll();
        assertThat(golden.get("texts").size()).isEqualTo(400);
    }

    private static String streamed(Tokenizer tokenizer, int[] ids) {
        StreamDecoder decoder = new StreamDecoder(tokenizer, true);
        StringBuilder out = new StringBuilder();
        for (int id : ids) {
            out.append(decoder.add(id));
        }
        return out.append(decoder.finish()).toString();
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }

    private static String digest(String text) throws IOException, java.security.NoSuchAlgorithmException {
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
        return HexFormat.of().formatHex(hash).substring(0, 8);
    }
}
