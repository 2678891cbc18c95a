package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import io.lora4j.formats.template.Rendering;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;

/**
 * The real tokenizer of SmolLM2-135M-Instruct. Its folder comes from LORA4J_SMOLLM2; the chats with their ids and labels, as
 * transformers and PEFT trained on them, from LORA4J_SMOLLM2_GOLDEN (data.jsonl, reference.json, adapter_init).
 */
class SmolLm2Test {
    private Path model;

    @BeforeEach
    void find() {
        String folder = System.getenv("LORA4J_SMOLLM2");
        assumeTrue(folder != null, "LORA4J_SMOLLM2 does not name the folder of SmolLM2-135M-Instruct");
        model = Path.of(folder);
    }

    private static Path golden() {
        String folder = System.getenv("LORA4J_SMOLLM2_GOLDEN");
        assumeTrue(folder != null, "LORA4J_SMOLLM2_GOLDEN does not name the folder of the reference run");
        return Path.of(folder);
    }

    @Test
    void idsAndLabelsOfTheReferenceRun() throws IOException {
        Path golden = golden();
        JsonNode reference = TestData.parse(Files.readString(golden.resolve("reference.json")));
        List<String> rows = Files.readAllLines(golden.resolve("data.jsonl"));
        try (Tokenizer tokenizer = Tokenizer.open(model)) {
            ChatTemplate template =
                    ChatTemplate.parse(tokenizer.chatTemplate().orElseThrow(), tokenizer.chatTemplateSource());
            for (int row = 0; row < rows.size(); row++) {
                List<Message> messages = new ArrayList<>();
                for (JsonNode m : TestData.parse(rows.get(row)).get("messages").values()) {
                    messages.add(new Message(
                            m.get("role").stringValue(), m.get("content").stringValue()));
                }
                Rendering rendering = template.render(messages, Map.of(), ZonedDateTime.now(ZoneOffset.UTC));
                Encoding encoding = tokenizer.encodeWithOffsets(rendering.text(), false);
                boolean[] targets = encoding.covers(rendering.assistantSpans());
                int[] labels = encoding.ids();
                for (int i = 0; i < labels.length; i++) {
                    labels[i] = targets[i] ? labels[i] : -100;
                }
                assertThat(encoding.ids())
                        .isEqualTo(ints(reference.get("input_ids").get(row)));
                assertThat(labels).isEqualTo(ints(reference.get("labels").get(row)));
            }
        }
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }

    @Test
    void readsConfigAndAdapter() throws IOException {
        ModelConfig config = ModelConfig.read(model);
        assertThat(config.parameters()).isEqualTo(134_515_008);
        assertThat(GenerationConfig.read(model).eosTokenIds()).containsExactly(2);
        try (java.lang.foreign.Arena arena = java.lang.foreign.Arena.ofConfined()) {
            PeftAdapter adapter = PeftAdapter.read(golden().resolve("adapter_init"), arena);
            adapter.requireFits("adapter_init", config.modules());
            assertThat(adapter.modules()).hasSize(210);
        }
    }

    @Test
    void streamsEmojiAndChinese() throws IOException {
        try (Tokenizer tokenizer = Tokenizer.open(model)) {
            String text = "She said 👩‍👩‍👧‍👦 and 你好，世界 🇯🇵👍🏽!";
            StreamDecoder decoder = new StreamDecoder(tokenizer, true);
            StringBuilder streamed = new StringBuilder();
            for (int id : tokenizer.encode(text, false)) {
                String piece = decoder.add(id);
                assertThat(piece).doesNotContain("\uFFFD");
                streamed.append(piece);
            }
            assertThat(streamed.append(decoder.finish()).toString()).isEqualTo(text);
        }
    }
}
