package io.lora4j.formats;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** The typed key-value pairs of a GGUF file that is to be written, in the order in which they are put. Not thread-safe. */
public final class GgufMetadata {
    private static final int U32 = 4;
    private static final int I32 = 5;
    private static final int F32 = 6;
    private static final int BOOL = 7;
    private static final int STRING = 8;
    private static final int ARRAY = 9;

    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    private final Set<String> keys = new HashSet<>();

    /** Puts an unsigned 32-bit integer. */
    public void u32(String key, int value) {
        key(key, U32);
        put32(value);
    }

    /** Puts a float. */
    public void f32(String key, float value) {
        key(key, F32);
        put32(Float.floatToRawIntBits(value));
    }

    /** Puts a truth value. */
    public void bool(String key, boolean value) {
        key(key, BOOL);
        bytes.write(value ? 1 : 0);
    }

    /** Puts a text. */
    public void string(String key, String value) {
        key(key, STRING);
        putString(value);
    }

    /** Puts an array of texts. */
    public void strings(String key, List<String> values) {
        array(key, STRING, values.size());
        values.forEach(this::putString);
    }

    /** Puts an array of signed 32-bit integers. */
    public void i32s(String key, int[] values) {
        array(key, I32, values.length);
        for (int value : values) {
            put32(value);
        }
    }

    /** Puts an array of floats. */
    public void f32s(String key, float[] values) {
        array(key, F32, values.length);
        for (float value : values) {
            put32(Float.floatToRawIntBits(value));
        }
    }

    int count() {
        return keys.size();
    }

    byte[] toBytes() {
        return bytes.toByteArray();
    }

    private void key(String key, int type) {
        if (!keys.add(key)) {
            throw new IllegalArgumentException("metadata key " + key + " is put twice");
        }
        putString(key);
        put32(type);
    }

    private void array(String key, int type, int count) {
        key(key, ARRAY);
        put32(type);
        put64(count);
    }

    private void putString(String text) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        put64(utf8.length);
        bytes.writeBytes(utf8);
    }

    private void put32(int value) {
        bytes.writeBytes(ByteBuffer.allocate(4)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putInt(value)
                .array());
    }

    private void put64(long value) {
        bytes.writeBytes(ByteBuffer.allocate(8)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(value)
                .array());
    }
}
