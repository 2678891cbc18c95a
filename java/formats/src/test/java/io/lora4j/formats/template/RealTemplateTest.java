package io.lora4j.formats.template;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.Span;
import io.lora4j.formats.TestData;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.assertj.core.api.SoftAssertions;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import tools.jackson.databind.JsonNode;

/**
 * The chat templates of real models, which are not part of this project, against what transformers renders with them: every
 * template with every conversation of test-data/formats/real_templates.json, byte for byte, and the assistant spans where
 * they are known. test-data/formats/real_templates.py gets the templates; a package that it could not get is a skipped test.
 */
class RealTemplateTest {
    private final JsonNode golden;
    private final Path folder;
    private final ZonedDateTime now;

    RealTemplateTest() throws IOException {
        golden = TestData.json("formats/real_templates.json");
        String given = System.getenv("LORA4J_REAL_TEMPLATES");
        folder = given != null
                ? Path.of(given)
                : TestData.path("formats/real_templates.json").resolveSibling(".cache/real-templates");
        now = LocalDateTime.parse(golden.get("now").stringValue()).atZone(ZoneOffset.UTC);
    }

    @TestFactory
    Stream<DynamicTest> rendersRealTemplatesAsTransformersDoes() throws IOException {
        Map<String, DynamicTest> missing = new LinkedHashMap<>();
        List<DynamicTest> tests = new ArrayList<>();
        for (JsonNode template : golden.get("templates").values()) {
            String source = template.get("source").stringValue();
            String name = template.get("name").stringValue();
            Path file = folder.resolve(source).resolve(name + ".jinja");
            if (Files.exists(file)) {
                tests.add(DynamicTest.dynamicTest(source + ", " + name, () -> check(file, template)));
            } else {
                missing.computeIfAbsent(source, s -> DynamicTest.dynamicTest(s, () -> skip(s)));
            }
        }
        tests.addAll(missing.values());
        return tests.stream();
    }

    private void skip(String source) throws IOException {
        Path reason = folder.resolve(source + ".missing");
        assumeTrue(
                false,
                "the templates of " + source + " are not in " + folder + ": "
                        + (Files.exists(reason)
                                ? Files.readString(reason).strip()
                                : "run test-data/formats/real_templates.py"));
    }

    private void check(Path file, JsonNode golden) throws Exception {
        byte[] source = Files.readAllBytes(file);
        assertThat(sha256(source)).isEqualTo(golden.get("sha256").stringValue());
        ChatTemplate template = ChatTemplate.parse(new String(source, StandardCharsets.UTF_8), file.toString());
        SoftAssertions soft = new SoftAssertions();
        int index = 0;
        for (Map.Entry<String, JsonNode> entry :
                this.golden.get("conversations").properties()) {
            JsonNode expected = golden.get("cases").get(index++);
            List<Message> messages =
                    TemplateGoldenTest.messages(entry.getValue().get("messages"));
            Map<String, Object> variables = new LinkedHashMap<>();
            putAll(variables, this.golden.get("tokens"));
            putAll(variables, entry.getValue().path("variables"));
            check(soft, entry.getKey(), template, messages, variables, false, expected.get(0));
            check(soft, entry.getKey() + ", prompt", template, messages, variables, true, expected.get(1));
            if (expected.has(2)) {
                checkSpans(soft, entry.getKey(), template, messages, variables, expected.get(2));
            }
        }
        soft.assertAll();
    }

    private static void putAll(Map<String, Object> variables, JsonNode from) {
        from.properties().forEach(e -> variables.put(e.getKey(), TestData.plain(e.getValue())));
    }

    private void check(
            SoftAssertions soft,
            String name,
            ChatTemplate template,
            List<Message> messages,
            Map<String, Object> variables,
            boolean prompt,
            JsonNode expected) {
        String outcome = expected.stringValue();
        String found;
        try {
            String text = template.renderText(messages, variables, prompt, now);
            found = sha256(text.getBytes(StandardCharsets.UTF_8)).substring(0, 12);
        } catch (FormatException e) {
            String raised = outcome.substring(1);
            found = outcome.startsWith("!") && e.getMessage().contains(raised) ? outcome : "!" + e.getMessage();
        }
        soft.assertThat(found).as(name).isEqualTo(outcome);
    }

    private void checkSpans(
            SoftAssertions soft,
            String name,
            ChatTemplate template,
            List<Message> messages,
            Map<String, Object> variables,
            JsonNode expected)
            throws FormatException {
        List<Span> spans = new ArrayList<>();
        expected.values()
                .forEach(s -> spans.add(new Span(s.get(0).intValue(), s.get(1).intValue())));
        List<Span> found = merged(template.render(messages, variables, now).assistantSpans());
        soft.assertThat(found).as(name).isEqualTo(spans);
    }

    /** transformers makes one of adjoining generation blocks, and so do we; the last turn of Phi-3 has two. */
    private static List<Span> merged(List<Span> spans) {
        List<Span> merged = new ArrayList<>();
        for (Span span : spans) {
            if (!merged.isEmpty() && merged.getLast().end() == span.start()) {
                span = new Span(merged.removeLast().start(), span.end());
            }
            merged.add(span);
        }
        return merged;
    }

    private static String sha256(byte[] bytes) throws IllegalStateException {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }
}
