package io.lora4j.train.data;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.InputFile;
import io.lora4j.formats.template.Message;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import tools.jackson.core.JacksonException;
import tools.jackson.core.StreamReadFeature;
import tools.jackson.core.json.JsonFactory;
import tools.jackson.databind.DeserializationFeature;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Reads JSONL: UTF-8, one JSON object in each line, lines of white space skipped. All rows of a file are of one kind. Every
 * failure names the file and the line.
 */
public final class JsonlReader {
    private static final JsonMapper MAPPER = JsonMapper.builder(JsonFactory.builder()
                    .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
                    .build())
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    private static final Set<String> FIELDS = Set.of("role", "content", "train");

    private final Path file;
    private final String textField;

    private JsonlReader(Path file, String textField) {
        this.file = file;
        this.textField = textField;
    }

    /**
     * Reads a file whose rows have a text in {@code text}, if they are just text.
     *
     * @throws FormatException as the other method
     */
    public static List<Example> read(Path file) throws IOException {
        return read(file, RowOptions.TEXT);
    }

    /**
     * Reads a file.
     *
     * @param textField the field that holds the text of rows that are just text
     * @throws FormatException if it is missing, empty, or has a line that is not a row, or is one of another kind
     */
    public static List<Example> read(Path file, String textField) throws IOException {
        if (Files.isDirectory(file)) {
            throw new FormatException(file + ": is a folder; expected a JSONL file");
        }
        List<Example> examples = new ArrayList<>();
        try (InputStream in = new BufferedInputStream(Files.newInputStream(file), 1 << 16)) {
            new JsonlReader(file, textField).read(in, examples);
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; check the path", e);
        }
        if (examples.isEmpty()) {
            throw new FormatException(
                    file + ": has no rows; expected a JSON object in every line, such as {\"text\": \"…\"}");
        }
        return examples;
    }

    private void read(InputStream in, List<Example> examples) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        int line = 1;
        for (int b = in.read(); b >= 0 || bytes.size() > 0; b = in.read()) {
            if (b >= 0 && b != '\n') {
                bytes.write(b);
                continue;
            }
            String text = decode(bytes.toByteArray(), line);
            bytes.reset();
            if (!text.isBlank()) {
                add(examples, example(text, line));
            }
            line++;
        }
    }

    private void add(List<Example> examples, Example example) throws FormatException {
        if (!examples.isEmpty() && !examples.getFirst().kind().equals(example.kind())) {
            Example first = examples.getFirst();
            throw error(
                    example.line(),
                    "is a row of " + example.kind() + ", but line " + first.line() + " is one of " + first.kind()
                            + "; put each kind into a file of its own");
        }
        examples.add(example);
    }

    private String decode(byte[] bytes, int line) throws FormatException {
        try {
            String text = StandardCharsets.UTF_8
                    .newDecoder()
                    .decode(ByteBuffer.wrap(bytes))
                    .toString();
            return line == 1 && text.startsWith("\uFEFF") ? text.substring(1) : text;
        } catch (CharacterCodingException e) {
            throw error(line, "is not valid UTF-8; convert the file to UTF-8", e);
        }
    }

    private Example example(String text, int line) throws FormatException {
        JsonNode row;
        try {
            row = MAPPER.readTree(text);
        } catch (JacksonException e) {
            throw error(
                    line,
                    "is not valid JSON: " + InputFile.jsonProblem(e)
                            + (text.stripLeading().startsWith("[") ? " (a list over several lines?)" : "")
                            + "; expected one JSON object in every line",
                    e);
        }
        if (!row.isObject()) {
            throw error(line, "holds " + row.getNodeType() + "; expected a JSON object");
        }
        if (row.has("tools")) {
            throw error(line, "has tools, which are not supported; leave the field out");
        }
        List<String> kinds = new ArrayList<>();
        for (String name : List.of(textField, "messages", "prompt", "completion")) {
            if (row.hasNonNull(name)) {
                kinds.add(name);
            }
        }
        if (kinds.equals(List.of(textField))) {
            return new Example.Text(line, string(row, textField, line));
        }
        return switch (String.join("+", kinds)) {
            case "messages" -> new Example.Chat(line, messages(row, "messages", line), -1);
            case "prompt+completion" -> completion(row, line);
            default ->
                throw error(
                        line,
                        "has the fields " + new TreeSet<>(row.propertyNames())
                                + "; expected " + textField
                                + ", or messages, or prompt and completion, and only one of these");
        };
    }

    private Example completion(JsonNode row, int line) throws FormatException {
        if (!row.path("prompt").isArray() && !row.path("completion").isArray()) {
            return new Example.Completion(line, string(row, "prompt", line), string(row, "completion", line));
        }
        List<Message> messages = messages(row, "prompt", line);
        int given = messages.size();
        List<Message> answers = messages(row, "completion", line);
        for (Message answer : answers) {
            if (!answer.role().equals("assistant")) {
                throw error(
                        line,
                        "has a message of role " + answer.role()
                                + " in completion; expected messages of the assistant only: use messages for a longer conversation");
            }
        }
        messages.addAll(answers);
        return new Example.Chat(line, messages, given);
    }

    private String string(JsonNode row, String name, int line) throws FormatException {
        return text(row, name, "field ", line);
    }

    /** JSON can spell half a surrogate pair, which no tokenizer can encode. */
    private String text(JsonNode object, String name, String where, int line) throws FormatException {
        JsonNode value = object.path(name);
        if (!value.isString()) {
            throw error(line, where + name + " is " + value.getNodeType() + "; expected a string");
        }
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(value.stringValue())) {
            throw error(line, where + name + " has half a surrogate pair (\\ud800 to \\udfff); it is not Unicode text");
        }
        return value.stringValue();
    }

    private List<Message> messages(JsonNode row, String name, int line) throws FormatException {
        JsonNode list = row.path(name);
        if (!list.isArray() || list.isEmpty()) {
            throw error(
                    line,
                    "field " + name + " is " + (list.isArray() ? "empty" : list.getNodeType())
                            + "; expected a list of messages");
        }
        List<Message> messages = new ArrayList<>();
        for (JsonNode message : list.values()) {
            String where = name + "[" + messages.size() + "]";
            if (!message.isObject()) {
                throw error(line, where + " is " + message.getNodeType() + "; expected {\"role\": …, \"content\": …}");
            }
            for (String field : message.propertyNames()) {
                if (!FIELDS.contains(field)) {
                    throw error(
                            line,
                            where + " has the field " + field
                                    + ", which is not supported; expected role and content, and maybe train");
                }
            }
            String role = text(message, "role", where + ".", line);
            String content = text(message, "content", where + ".", line);
            messages.add(new Message(role, content, Map.of(), train(message, role, where, line)));
        }
        return messages;
    }

    /** Only turns of the assistant can be left out: for the others there is nothing to leave out, or no way to tell them. */
    private boolean train(JsonNode message, String role, String where, int line) throws FormatException {
        JsonNode train = message.path("train");
        if (train.isMissingNode()) {
            return true;
        }
        if (!train.isBoolean()) {
            throw error(line, where + ".train is " + train + "; expected true or false");
        }
        if (!role.equals("assistant")) {
            throw error(
                    line, where + " has train and the role " + role + "; only messages of the assistant can have it");
        }
        return train.booleanValue();
    }

    private FormatException error(int line, String what) {
        return new FormatException(file + ":" + line + ": " + what);
    }

    private FormatException error(int line, String what, Exception cause) {
        return new FormatException(file + ":" + line + ": " + what, cause);
    }
}
