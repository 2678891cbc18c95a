package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.Tokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** Token ids and masks; what is learned stands in ⟦ ⟧. The tokenizer of tiny-llama adds BOS to texts. */
class RowEncoderTest {
    private static final Path TINY = Path.of(System.getProperty("lora4j.root"), "test-data", "tiny-llama");
    private static final ZonedDateTime CLOCK = ZonedDateTime.of(2026, 1, 2, 3, 4, 5, 0, ZoneOffset.UTC);

    @TempDir
    Path dir;

    private Path data(String lines) throws IOException {
        return Files.writeString(dir.resolve("data.jsonl"), lines);
    }

    private Dataset load(String lines, Tokenizer tokenizer, boolean onlyAnswers, int maxLength) throws IOException {
        RowEncoder encoder = new RowEncoder(tokenizer, ChatFormat.of(tokenizer, CLOCK), onlyAnswers, onlyAnswers);
        return Dataset.load(data(lines), encoder, RowOptions.truncate(maxLength), ModelConfig.read(TINY));
    }

    private static String marked(Row row, Tokenizer tokenizer) {
        return Dataset.preview(row, tokenizer).stream()
                .map(piece -> piece.learned() ? "⟦" + piece.text() + "⟧" : piece.text())
                .collect(Collectors.joining())
                .replace("\n", "/")
                .replace("<|im_start|>", "<")
                .replace("<|im_end|>", ">")
                .replace("<|begin_of_text|>", "^")
                .replace("<|end_of_text|>", "$");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                // text: all learned but BOS, which nothing comes before; BOS and EOS once
                "true  | {\"text\": \"The fox ran.\"}                  | ^⟦The fox ran.$⟧",
                "true  | {\"text\": \"^The fox ran.\"}                 | ^⟦The fox ran.$⟧",
                "true  | {\"text\": \"The fox ran.$\"}                 | ^⟦The fox ran.$⟧",
                "true  | {\"text\": \"The fox ran.$$\"}                | ^⟦The fox ran.$⟧",
                "false | {\"text\": \"The fox ran.\"}                  | ^⟦The fox ran.$⟧",
                // prompt and completion
                "true  | {\"prompt\": \"The fox\", \"completion\": \" ran.\"}    | ^The fox⟦ ran.$⟧",
                "true  | {\"prompt\": \"The fox\", \"completion\": \" ran.$\"}   | ^The fox⟦ ran.$⟧",
                "true  | {\"prompt\": \"^The fox\", \"completion\": \" ran.\"}   | ^The fox⟦ ran.$⟧",
                "true  | {\"prompt\": \"The fox \", \"completion\": \"ran.\"}    | ^The fox⟦ ran.$⟧", // the token "
                // ran" reaches
                // across
                "true  | {\"prompt\": \"One 🦊 \", \"completion\": \"🦊!\"}        | ^One 🦊 ⟦🦊!$⟧",
                "true  | {\"prompt\": \"The fox\", \"completion\": \"\"}         | ^The fox⟦$⟧",
                "false | {\"prompt\": \"The fox\", \"completion\": \" ran.\"}    | ^⟦The fox ran.$⟧",
                // messages: the template prints BOS itself
                "true  | {\"messages\": [U Hi., A Yes 🦊.]}                      | ^<user/Hi.>/<assistant/⟦Yes 🦊.>/⟧",
                "true  | {\"messages\": [U Hi., A Hi., U Hi., A Hi.]}            | ^<user/Hi.>/<assistant/⟦Hi.>/⟧<user/Hi.>/<assistant/⟦Hi.>/⟧",
                "true  | {\"messages\": [S Be kind., U Hi., A Yes., U And?]}     | ^<system/Be kind.>/<user/Hi.>/<assistant/⟦Yes.>/⟧<user/And?>/",
                "false | {\"messages\": [U Hi., A Yes.]}                         | ^⟦<user/Hi.>/<assistant/Yes.>/⟧",
                "true  | {\"prompt\": [U Hi., A Yes., U And?], \"completion\": [A No.]}  | ^<user/Hi.>/<assistant/Yes.>/<user/And?>/<assistant/⟦No.>/⟧",
                "false | {\"prompt\": [U Hi.], \"completion\": [A No.]}          | ^⟦<user/Hi.>/<assistant/No.>/⟧",
                // N is a turn of the assistant with train false
                "true  | {\"messages\": [U Hi., N Hi., U Hi., A Hi.]}            | ^<user/Hi.>/<assistant/Hi.>/<user/Hi.>/<assistant/⟦Hi.>/⟧",
                "true  | {\"messages\": [U Hi., A Hi., U Hi., N Hi.]}            | ^<user/Hi.>/<assistant/⟦Hi.>/⟧<user/Hi.>/<assistant/Hi.>/",
                "false | {\"messages\": [U Hi., N Yes., U And?, A No.]}          | ^⟦<user/Hi.>/<assistant/⟧Yes.>/⟦<user/And?>/<assistant/No.>/⟧",
                "true  | {\"prompt\": [U Hi.], \"completion\": [N No., A Yes.]}  | ^<user/Hi.>/<assistant/No.>/<assistant/⟦Yes.>/⟧"
            })
    void masks(boolean onlyAnswers, String line, String expected) throws Exception {
        String json = line.replace("^", "<|begin_of_text|>")
                .replace("$", "<|end_of_text|>")
                .replaceAll("\\bU ([^,\\]]*)", "{\"role\": \"user\", \"content\": \"$1\"}")
                .replaceAll("\\bA ([^,\\]]*)(?=[,\\]])", "{\"role\": \"assistant\", \"content\": \"$1\"}")
                .replaceAll(
                        "\\bN ([^,\\]]*)(?=[,\\]])", "{\"role\": \"assistant\", \"content\": \"$1\", \"train\": false}")
                .replaceAll("\\bS ([^,\\]]*)", "{\"role\": \"system\", \"content\": \"$1\"}");
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            Row row = load(json, tokenizer, onlyAnswers, 0).rows().getFirst();
            assertThat(marked(row, tokenizer)).isEqualTo(expected);
        }
    }

    @Test
    void rowsAreCutAtTheEndAndThoseWithoutTargetsDropped() throws Exception {
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            String answered = "{\"prompt\": \"The fox\", \"completion\": \" ran away.\"}\n";
            Dataset all = load(
                    answered.repeat(2) + "{\"prompt\": \"The fox ran and ran and ran\", \"completion\": \" on.\"}",
                    tokenizer,
                    true,
                    5);
            assertThat(all.rows()).hasSize(2);
            assertThat(all.rowsRead()).isEqualTo(3);
            assertThat(all.rowsCut()).isEqualTo(3);
            assertThat(all.rowsDropped()).isEqualTo(1);
            assertThat(all.longest()).isEqualTo(5);
            assertThat(marked(all.rows().getFirst(), tokenizer))
                    .startsWith("^The fox⟦ ran")
                    .doesNotContain("$");
            assertThat(all.targetTokens()).isEqualTo(4);
            assertThat(all.tokens()).isEqualTo(10);
        }
    }

    @Test
    void nothingToLearnIsRefused() throws Exception {
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            assertThatThrownBy(() ->
                            load("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi.\"}]}", tokenizer, true, 0))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("data.jsonl: none of its 1 rows has a token to learn");
            assertThatThrownBy(() -> load("{\"prompt\": \"The fox\", \"completion\": \" ran.\"}", tokenizer, true, 2))
                    .hasMessageContaining("(1 were cut to max_length 2)");
        }
    }

    @Test
    void rowsLongerThanTheContextAreRefused() throws Exception {
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            String line = "{\"text\": \"" + "fox ".repeat(600) + "\"}";
            assertThatThrownBy(() -> load("{\"text\": \"a\"}\n" + line, tokenizer, true, 0))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("data.jsonl:2: has ")
                    .hasMessageContaining("the model's context is 512");
            assertThat(load(line, tokenizer, true, 512).rowsCut()).isEqualTo(1);
        }
    }

    @Test
    void tokensOutsideTheVocabularyAreRefused() throws Exception {
        Path small = Files.writeString(
                dir.resolve("config.json"),
                Files.readString(TINY.resolve("config.json")).replace("\"vocab_size\": 2048", "\"vocab_size\": 900"));
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            RowEncoder encoder = new RowEncoder(tokenizer, ChatFormat.of(tokenizer, CLOCK), true, true);
            Path file = data("{\"text\": \"The\"}\n{\"text\": \"The fox\"}");
            assertThatThrownBy(() -> Dataset.load(file, encoder, RowOptions.truncate(0), ModelConfig.read(small)))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining(
                            "data.jsonl:2: has the token id 999, but the model's vocabulary has 900 entries");
        }
    }

    @Test
    void messagesWithoutATemplateAreRefused() throws Exception {
        for (String name : new String[] {"tokenizer.json", "tokenizer_config.json"}) {
            Files.copy(TINY.resolve(name), dir.resolve(name));
        }
        try (Tokenizer tokenizer = Tokenizer.open(dir)) {
            assertThatThrownBy(() ->
                            load("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi.\"}]}", tokenizer, true, 0))
                    .hasMessageContaining("data.jsonl:1: a row with messages needs a chat template");
        }
    }

    @Test
    void anotherTemplateWithItsVariablesAndItsClock() throws Exception {
        Path file = Files.writeString(
                dir.resolve("own.jinja"),
                "{{ strftime_now('%Y-%m-%d') }}{% if quiet %}!{% endif %}"
                        + "{% for m in messages %}{% generation %}{% if m.role == 'assistant' %}{{ m.content }};{% endif %}{% endgeneration %}"
                        + "{% if m.role != 'assistant' %}{{ m.content }}: {% endif %}{% endfor %}");
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            ChatFormat format =
                    ChatFormat.of(tokenizer, CLOCK).withTemplate(file).withVariables(Map.of("quiet", true));
            assertThat(format.source()).isEqualTo(file.toString());
            RowEncoder encoder = new RowEncoder(tokenizer, format, true, true);
            Path rows = data(
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\":"
                            + " \"Yes\", \"train\": false}, {\"role\": \"user\", \"content\": \"So\"}, {\"role\": \"assistant\", \"content\": \"No\"}]}");
            Row row = Dataset.load(rows, encoder, RowOptions.truncate(0), ModelConfig.read(TINY))
                    .rows()
                    .getFirst();
            assertThat(marked(row, tokenizer)).isEqualTo("2026-01-02!Hi: Yes;So:⟦ No;⟧");
            assertThatThrownBy(() -> ChatFormat.of(tokenizer, CLOCK).withTemplate(dir.resolve("none.jinja")))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("none.jinja: no such file");
        }
    }

    @Test
    void aGenerationBlockOutsideTheTurnsCannotBeSpared() throws Exception {
        Path file = Files.writeString(
                dir.resolve("own.jinja"), "{% generation %}{{ messages[1].content }};{% endgeneration %}");
        try (Tokenizer tokenizer = Tokenizer.open(TINY)) {
            RowEncoder encoder =
                    new RowEncoder(tokenizer, ChatFormat.of(tokenizer, CLOCK).withTemplate(file), true, true);
            String row =
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yes\"%s}]}";
            Dataset learned =
                    Dataset.load(data(row.formatted("")), encoder, RowOptions.truncate(0), ModelConfig.read(TINY));
            assertThat(marked(learned.rows().getFirst(), tokenizer)).isEqualTo("Y⟦es;⟧");
            Path spared = data(row.formatted(", \"train\": false"));
            assertThatThrownBy(() -> Dataset.load(spared, encoder, RowOptions.truncate(0), ModelConfig.read(TINY)))
                    .hasMessageContaining("data.jsonl:1: the template has a {% generation %} block outside its loop");
        }
    }

    @Test
    void equalsTransformersOnSmolLm2() throws Exception {
        String model = System.getenv("LORA4J_SMOLLM2");
        String golden = System.getenv("LORA4J_SMOLLM2_GOLDEN");
        Assumptions.assumeTrue(model != null && golden != null, "LORA4J_SMOLLM2 and LORA4J_SMOLLM2_GOLDEN are not set");
        JsonNode reference = new JsonMapper().readTree(Files.readAllBytes(Path.of(golden, "reference.json")));
        try (Tokenizer tokenizer = Tokenizer.open(Path.of(model))) {
            RowEncoder encoder = new RowEncoder(tokenizer, ChatFormat.of(tokenizer, CLOCK), true, true);
            Dataset data = Dataset.load(
                    Path.of(golden, "data.jsonl"),
                    encoder,
                    RowOptions.truncate(1024),
                    ModelConfig.read(Path.of(model)));
            assertThat(data.rows()).hasSize(reference.path("input_ids").size());
            assertThat(data.targetTokens())
                    .isEqualTo(reference.path("target_tokens").asLong());
            for (int r = 0; r < data.rows().size(); r++) {
                assertThat(data.rows().get(r).ids())
                        .isEqualTo(ints(reference.path("input_ids").path(r)));
                assertThat(data.rows().get(r).labels())
                        .isEqualTo(ints(reference.path("labels").path(r)));
            }
        }
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }
}
