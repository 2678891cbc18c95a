package io.lora4j.cli;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.function.Consumer;
import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ObjectNode;

/** Damages a safetensors file, by the layout of the format alone. */
record SafetensorsEditor(Path file) {

    /** Cuts the file. */
    void truncate(int bytes) throws IOException {
        Files.write(file, Arrays.copyOf(Files.readAllBytes(file), bytes));
    }

    /** Writes a header length. */
    void headerLength(long length) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        little(bytes).putLong(0, length);
        Files.write(file, bytes);
    }

    /** Changes the header; the data stays. */
    void header(Consumer<ObjectNode> change) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        int data = dataStart(bytes);
        ObjectNode header = header(bytes);
        change.accept(header);
        byte[] text = header.toString().getBytes(StandardCharsets.UTF_8);
        ByteBuffer changed =
                ByteBuffer.allocate(8 + text.length + bytes.length - data).order(ByteOrder.LITTLE_ENDIAN);
        changed.putLong(text.length).put(text).put(bytes, data, bytes.length - data);
        Files.write(file, changed.array());
    }

    /** Overwrites an element of 16 or 32 bits of a tensor. */
    void element(String tensor, int index, int bits, int value) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        int at = dataStart(bytes)
                + header(bytes).get(tensor).get("data_offsets").get(0).intValue()
                + index * bits / 8;
        if (bits == 16) {
            little(bytes).putShort(at, (short) value);
        } else {
            little(bytes).putInt(at, value);
        }
        Files.write(file, bytes);
    }

    private static ObjectNode header(byte[] bytes) {
        return (ObjectNode)
                new JsonMapper().readTree(new String(bytes, 8, dataStart(bytes) - 8, StandardCharsets.UTF_8));
    }

    private static int dataStart(byte[] bytes) {
        return 8 + (int) little(bytes).getLong(0);
    }

    private static ByteBuffer little(byte[] bytes) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }
}
