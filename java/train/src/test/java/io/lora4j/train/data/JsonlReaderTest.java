package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.template.Message;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class JsonlReaderTest {
    @TempDir
    Path dir;

    private List<Example> read(String text) throws Exception {
        return read(text.getBytes(StandardCharsets.UTF_8));
    }

    private List<Example> read(byte[] bytes) throws Exception {
        Path file = dir.resolve("data.jsonl");
        Files.write(file, bytes);
        return JsonlReader.read(file);
    }

    @Test
    void readsEveryKind() throws Exception {
        assertThat(read("\uFEFF{\"text\": \"a\"}\r\n\n  \n{\"text\": \"b\", \"id\": 3}"))
                .containsExactly(new Example.Text(1, "a"), new Example.Text(4, "b"));
        assertThat(read("{\"prompt\": \"p\", \"completion\": \"c\", \"text\": null}"))
                .containsExactly(new Example.Completion(1, "p", "c"));
        Message user = new Message("user", "hi");
        Message assistant = new Message("assistant", "ho");
        String messages = "{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"ho\"}";
        assertThat(read("{\"messages\": [" + messages + "]}"))
                .containsExactly(new Example.Chat(1, List.of(user, assistant), -1));
        assertThat(read("{\"messages\": [{\"role\": \"assistant\", \"content\": \"ho\", \"train\": false},"
                        + "{\"role\": \"assistant\", \"content\": \"ho\", \"train\": true}]}"))
                .containsExactly(
                        new Example.Chat(1, List.of(new Message("assistant", "ho", Map.of(), false), assistant), -1));
        assertThat(read("{\"prompt\": [{\"role\": \"user\", \"content\": \"hi\"}],"
                        + " \"completion\": [{\"role\": \"assistant\", \"content\": \"ho\"}]}"))
                .containsExactly(new Example.Chat(1, List.of(user, assistant), 1));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{\"text\": \"a\"                          | is not valid JSON",
                "{\"text\": \"a\"} {\"text\": \"b\"}       | is not valid JSON",
                "{\"text\": \"a\", \"text\": \"b\"}        | is not valid JSON",
                "[1]                                       | holds ARRAY; expected a JSON object",
                "{\"txt\": \"a\"}                          | has the fields [txt]; expected text, or messages",
                "{\"text\": \"a\", \"messages\": []}       | only one of these",
                "{\"prompt\": \"a\"}                       | has the fields [prompt]",
                "{\"text\": 3}                             | field text is NUMBER; expected a string",
                "{\"text\": \"\\ud800\"}                   | field text has half a surrogate pair",
                "{\"messages\": []}                        | field messages is empty",
                "{\"messages\": [3]}                       | messages[0] is NUMBER",
                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"train\": false}]} | messages[0] has train and the role user; only messages of the assistant can have it",
                "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"train\": 0}]} | messages[0].train is 0; expected true or false",
                "{\"messages\": [{\"role\": \"user\"}]}    | messages[0].content is MISSING; expected a string",
                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"tool_calls\": []}]} | has the field tool_calls, which is not supported",
                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": []} | has tools, which are not supported",
                "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"completion\": [{\"role\": \"user\", \"content\": \"a\"}]} | a message of role user in completion",
                "{\"prompt\": \"a\", \"completion\": \"b\"}| is a row of prompt and completion, but line 1 is one of text"
            })
    void everyFailureNamesFileAndLine(String line, String expected) {
        assertThatThrownBy(() -> read("{\"text\": \"fine\"}\n" + line + "\n"))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(dir.resolve("data.jsonl") + ":2: ")
                .hasMessageContaining(expected);
    }

    @Test
    void invalidUtf8() {
        byte[] bytes = "{\"text\": \"ok\"}\n{\"text\": \"?\"}\n".getBytes(StandardCharsets.UTF_8);
        bytes[26] = (byte) 0xFF;
        assertThatThrownBy(() -> read(bytes)).hasMessageContaining("data.jsonl:2: is not valid UTF-8");
    }

    @Test
    void emptyAndMissingFiles() {
        assertThatThrownBy(() -> read("\n\n")).hasMessageContaining("data.jsonl: has no rows");
        assertThatThrownBy(() -> JsonlReader.read(dir.resolve("none.jsonl")))
                .hasMessageContaining("none.jsonl: no such file");
    }
}
