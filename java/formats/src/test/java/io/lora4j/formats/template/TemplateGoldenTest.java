package io.lora4j.formats.template;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.Span;
import io.lora4j.formats.TestData;
import java.io.IOException;
import java.nio.file.Files;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import tools.jackson.databind.JsonNode;

/** Every template of test-data/formats/templates against what transformers renders, and against its assistant spans. */
class TemplateGoldenTest {

    @TestFactory
    Stream<DynamicTest> rendersAsTransformersDoes() throws IOException {
        JsonNode golden = TestData.json("formats/templates.json");
        ZonedDateTime now = LocalDateTime.parse(golden.get("now").stringValue()).atZone(ZoneOffset.UTC);
        return StreamSupport.stream(golden.get("cases").values().spliterator(), false)
                .map(c -> DynamicTest.dynamicTest(
                        c.get("template").stringValue() + ", "
                                + c.get("conversation").stringValue()
                                + (c.get("add_generation_prompt").booleanValue() ? ", prompt" : ""),
                        () -> check(c, now)));
    }

    private static void check(JsonNode golden, ZonedDateTime now) throws IOException {
        String name = golden.get("template").stringValue();
        String source = Files.readString(TestData.path("formats/templates/" + name));
        ChatTemplate template = ChatTemplate.parse(source, name);
        List<Message> messages = messages(golden.get("messages"));
        Map<String, Object> variables = new LinkedHashMap<>();
        golden.get("variables").properties().forEach(e -> variables.put(e.getKey(), TestData.plain(e.getValue())));
        boolean prompt = golden.get("add_generation_prompt").booleanValue();
        if (golden.has("error")) {
            assertThatThrownBy(() -> template.renderText(messages, variables, prompt, now))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining(name + ": line ")
                    .hasMessageContaining("refuses the messages");
            return;
        }
        assertThat(template.renderText(messages, variables, prompt, now))
                .isEqualTo(golden.get("text").stringValue());
        if (golden.has("spans") && !prompt) {
            List<Span> spans = new ArrayList<>();
            golden.get("spans")
                    .values()
                    .forEach(s ->
                            spans.add(new Span(s.get(0).intValue(), s.get(1).intValue())));
            Rendering rendering = template.render(messages, variables, now);
            assertThat(rendering.assistantSpans()).isEqualTo(spans);
        }
    }

    static List<Message> messages(JsonNode json) {
        List<Message> messages = new ArrayList<>();
        for (JsonNode m : json.values()) {
            Map<String, Object> extra = new LinkedHashMap<>();
            m.properties().forEach(e -> {
                if (!e.getKey().equals("role") && !e.getKey().equals("content")) {
                    extra.put(e.getKey(), TestData.plain(e.getValue()));
                }
            });
            messages.add(new Message(m.get("role").stringValue(), TestData.plain(m.get("content")), extra));
        }
        return messages;
    }
}
