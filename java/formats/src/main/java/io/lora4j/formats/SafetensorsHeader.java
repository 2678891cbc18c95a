package io.lora4j.formats;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.core.JsonParser;
import tools.jackson.core.JsonToken;

/**
 * The JSON header of a safetensors file, token by token: of a header that is not what it should be nothing is kept, so that it takes no
 * more memory than its bytes.
 */
final class SafetensorsHeader {
    /** NumPy's limit, and PyTorch's. */
    private static final int MAX_DIMS = 64;

    private static final int SHOWN = 80;

    private final Path path;
    private final byte[] json;
    private final JsonParser parser;
    private final long dataStart;
    private final long dataSize;
    private final Map<String, String> metadata = new LinkedHashMap<>();
    private final List<TensorInfo> tensors = new ArrayList<>();

    private SafetensorsHeader(Path path, byte[] json, JsonParser parser, long dataSize) {
        this.path = path;
        this.json = json;
        this.parser = parser;
        this.dataStart = Long.BYTES + json.length;
        this.dataSize = dataSize;
    }

    /**
     * Reads a header.
     *
     * @param json its text, from the opening brace on
     * @param dataSize bytes of the file behind it
     */
    static SafetensorsHeader read(Path path, byte[] json, long dataSize) throws FormatException {
        try (JsonParser parser = Json.parser(json)) {
            SafetensorsHeader header = new SafetensorsHeader(path, json, parser, dataSize);
            header.readAll();
            return header;
        } catch (JacksonException e) {
            throw Json.invalid(path + ": header", e);
        }
    }

    Map<String, String> metadata() {
        return metadata;
    }

    /** Returns the tensors in the order of the header; each lies inside the data. */
    List<TensorInfo> tensors() {
        return tensors;
    }

    private void readAll() throws FormatException {
        parser.nextToken(); // The brace.
        while (parser.nextToken() == JsonToken.PROPERTY_NAME) {
            String name = parser.currentName();
            parser.nextToken();
            if (name.equals("__metadata__")) {
                readMetadata();
            } else {
                readTensor(name);
            }
        }
        if (parser.nextToken() != null) {
            throw new FormatException(
                    path + ": header: not valid JSON: something follows the value; fetch the file again");
        }
    }

    private void readMetadata() throws FormatException {
        if (parser.currentToken() != JsonToken.START_OBJECT) {
            throw new FormatException(path + ": __metadata__ is a JSON " + kind() + "; expected an object of strings");
        }
        while (parser.nextToken() == JsonToken.PROPERTY_NAME) {
            String key = parser.currentName();
            if (parser.nextToken() != JsonToken.VALUE_STRING) {
                throw new FormatException(
                        path + ": __metadata__ entry " + key + " is a JSON " + kind() + "; expected a string");
            }
            metadata.put(key, parser.getString());
        }
    }

    private void readTensor(String name) throws FormatException {
        String where = path + ": tensor " + name;
        int begin = at();
        String dtype = null;
        List<Long> shape = null;
        List<Long> offsets = null;
        boolean others = parser.currentToken() != JsonToken.START_OBJECT;
        while (!others && parser.nextToken() == JsonToken.PROPERTY_NAME) {
            String field = parser.currentName();
            JsonToken value = parser.nextToken();
            switch (field) {
                case "dtype" -> dtype = value == JsonToken.VALUE_STRING ? parser.getString() : null;
                case "shape" -> shape = naturals(where, field, MAX_DIMS);
                case "data_offsets" -> offsets = naturals(where, field, 2);
                default -> others = true;
            }
            others |= dtype == null && field.equals("dtype");
        }
        if (others || dtype == null || shape == null || offsets == null || offsets.size() != 2) {
            throw new FormatException(where + ": header entry " + text(begin)
                    + " is not of the form {\"dtype\":…,\"shape\":[…],\"data_offsets\":[begin,end]}");
        }
        tensors.add(tensor(where, name, dtype, shape, offsets.get(0), offsets.get(1)));
    }

    /** Reads a list; null if it is none. */
    private @Nullable List<Long> naturals(String where, String field, int most) throws FormatException {
        if (parser.currentToken() != JsonToken.START_ARRAY) {
            parser.skipChildren();
            return null;
        }
        List<Long> numbers = new ArrayList<>();
        while (parser.nextToken() != JsonToken.END_ARRAY) {
            OptionalLong number = natural();
            if (number.isEmpty()) {
                throw new FormatException(
                        where + ": " + field + " holds " + brief(parser.getString()) + "; expected integers >= 0");
            }
            if (numbers.size() == most) {
                throw new FormatException(where + ": " + field + " has more than " + most + " entries");
            }
            numbers.add(number.getAsLong());
        }
        return numbers;
    }

    private OptionalLong natural() {
        if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) {
            return OptionalLong.empty();
        }
        return switch (parser.getNumberType()) {
            case INT, LONG -> parser.getLongValue() < 0 ? OptionalLong.empty() : OptionalLong.of(parser.getLongValue());
            default -> OptionalLong.empty();
        };
    }

    private TensorInfo tensor(String where, String name, String dtype, List<Long> shape, long begin, long end)
            throws FormatException {
        SafetensorsType type = SafetensorsType.byName(dtype);
        if (type == null) {
            throw new FormatException(
                    where + ": unknown dtype " + dtype + "; known are " + List.of(SafetensorsType.values()));
        }
        if (begin > end) {
            throw new FormatException(
                    where + ": data_offsets [" + begin + "," + end + "] run backwards; the file is damaged");
        }
        if (end > dataSize) {
            throw new FormatException(where + ": data_offsets [" + begin + "," + end + "] lie outside the file's "
                    + dataSize + " bytes of data; the file is truncated or damaged, fetch it again");
        }
        long bytes = bytes(where, type, shape);
        if (bytes != end - begin) {
            throw new FormatException(
                    where + ": " + type + " " + shape + " takes " + bytes + " bytes, but data_offsets [" + begin + ","
                            + end + "] hold " + (end - begin) + "; the header is wrong");
        }
        return new TensorInfo(name, type.name(), shape, dataStart + begin, bytes);
    }

    private static long bytes(String where, SafetensorsType type, List<Long> shape) throws FormatException {
        try {
            long bits = type.bits;
            for (long size : shape) {
                bits = Math.multiplyExact(bits, size);
            }
            if (bits % 8 != 0) {
                throw new FormatException(where + ": " + type + " " + shape + " does not fill whole bytes");
            }
            return bits / 8;
        } catch (ArithmeticException e) {
            throw new FormatException(where + ": shape " + shape + " has more elements than 64 bits can count", e);
        }
    }

    /** Returns where the current token begins. */
    private int at() {
        return (int) parser.currentTokenLocation().getByteOffset();
    }

    /** Returns the header from a byte on, for messages. */
    private String text(int from) {
        return brief(new String(json, from, Math.min(2 * SHOWN, json.length - from), StandardCharsets.UTF_8));
    }

    private static String brief(String text) {
        return text.length() <= SHOWN ? text : text.substring(0, SHOWN) + "…";
    }

    private String kind() {
        return switch (parser.currentToken()) {
            case START_ARRAY -> "array";
            case START_OBJECT -> "object";
            case VALUE_STRING -> "string";
            case VALUE_NUMBER_INT, VALUE_NUMBER_FLOAT -> "number";
            case VALUE_TRUE, VALUE_FALSE -> "boolean";
            case VALUE_NULL -> "null";
            default -> "nothing";
        };
    }
}
