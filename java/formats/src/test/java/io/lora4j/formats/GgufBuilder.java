package io.lora4j.formats;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Writes GGUF files for tests, right or wrong: metadata as {@link GgufFile#values} gives it, tensors with any description. */
final class GgufBuilder {
    /** A tensor's description, its sizes as PyTorch gives them, and its bytes. */
    record Described(String name, int type, List<Long> shape, byte[] bytes) {}

    final Map<String, Object> values = new LinkedHashMap<>();
    final List<Described> tensors = new ArrayList<>();

    /** Takes everything from a file. */
    static GgufBuilder of(Path path) throws IOException {
        GgufBuilder builder = new GgufBuilder();
        try (GgufFile file = GgufFile.open(path)) {
            file.values()
                    .forEach((key, value) ->
                            builder.values.put(key, value instanceof List<?> list ? List.copyOf(list) : value));
            for (TensorInfo info : file.tensors().values()) {
                byte[] bytes = file.data(info.name()).toArray(ValueLayout.JAVA_BYTE);
                int type = GgmlType.valueOf(info.typeName()).id;
                builder.tensors.add(new Described(info.name(), type, info.shape(), bytes));
            }
        }
        return builder;
    }

    GgufBuilder put(String key, Object value) {
        values.put(key, value);
        return this;
    }

    GgufBuilder remove(String key) {
        values.remove(key);
        return this;
    }

    /** Replaces a tensor by one of another name or shape. */
    GgufBuilder describe(String name, String newName, List<Long> shape) {
        tensors.replaceAll(t -> t.name.equals(name) ? new Described(newName, t.type, shape, t.bytes) : t);
        return this;
    }

    Path write(Path path) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write("GGUF".getBytes(StandardCharsets.US_ASCII));
        out.write(integer(3, 4));
        out.write(integer(tensors.size(), 8));
        out.write(integer(values.size(), 8));
        for (Map.Entry<String, Object> entry : values.entrySet()) {
            out.write(text(entry.getKey()));
            out.write(integer(type(entry.getValue()), 4));
            out.write(value(entry.getValue()));
        }
        ByteArrayOutputStream data = new ByteArrayOutputStream();
        for (Described t : tensors) {
            out.write(text(t.name));
            out.write(integer(t.shape.size(), 4));
            for (long size : t.shape.reversed()) {
                out.write(integer(size, 8));
            }
            out.write(integer(t.type, 4));
            out.write(integer(data.size(), 8));
            data.write(t.bytes);
            data.write(new byte[-data.size() & 31]);
        }
        out.write(new byte[-out.size() & 31]);
        out.write(data.toByteArray());
        return Files.write(path, out.toByteArray());
    }

    private static int type(Object value) {
        return switch (value) {
            case Long _ -> 11;
            case Double _ -> 12;
            case Boolean _ -> 7;
            case String _ -> 8;
            case List<?> _ -> 9;
            default -> throw new IllegalArgumentException(String.valueOf(value));
        };
    }

    private static byte[] value(Object value) throws IOException {
        return switch (value) {
            case Long number -> integer(number, 8);
            case Double number -> integer(Double.doubleToLongBits(number), 8);
            case Boolean flag -> integer(flag ? 1 : 0, 1);
            case String text -> text(text);
            case List<?> list -> list(list);
            default -> throw new IllegalArgumentException(String.valueOf(value));
        };
    }

    private static byte[] list(List<?> list) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(integer(list.isEmpty() ? 8 : type(list.getFirst()), 4));
        out.write(integer(list.size(), 8));
        for (Object each : list) {
            out.write(value(each));
        }
        return out.toByteArray();
    }

    private static byte[] text(String text) throws IOException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(integer(bytes.length, 8));
        out.write(bytes);
        return out.toByteArray();
    }

    private static byte[] integer(long value, int bytes) {
        ByteBuffer buffer =
                ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(value);
        return java.util.Arrays.copyOf(buffer.array(), bytes);
    }
}
