package io.lora4j.formats;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.List;
import java.util.RandomAccess;

/** A cursor over the header of a GGUF file: every read is checked against the end of the file. */
final class GgufReader {
    /** Longer strings are taken for damage (the largest real ones, chat templates, have some 10 KB). */
    private static final long MAX_STRING = 1L << 26;

    /** Longer arrays are taken for damage (the largest real ones, merges, have some 500,000 entries). */
    private static final long MAX_ENTRIES = 1L << 24;

    private static final int MAX_NESTING = 8;
    private static final int STRING = 8;
    private static final ValueLayout.OfShort U16 = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfInt U32 = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfLong U64 = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private final Path path;
    private final MemorySegment bytes;
    private long position;

    GgufReader(Path path, MemorySegment bytes) {
        this.path = path;
        this.bytes = bytes;
    }

    long position() {
        return position;
    }

    long size() {
        return bytes.byteSize();
    }

    FormatException error(String message) {
        return new FormatException(path + ": " + message);
    }

    FormatException error(String message, Exception cause) {
        return new FormatException(path + ": " + message, cause);
    }

    /** Moves over {@code count} bytes and returns where they begin. */
    private long take(long count, String what) throws FormatException {
        if (count < 0 || count > bytes.byteSize() - position) {
            throw error("ends inside " + what + " (byte " + position + " of " + bytes.byteSize()
                    + "); the file is truncated or damaged, fetch it again");
        }
        long at = position;
        position += count;
        return at;
    }

    int u32(String what) throws FormatException {
        return bytes.get(U32, take(4, what));
    }

    /** Reads a count, offset or size; values of 2^63 and more are refused. */
    long u64(String what) throws FormatException {
        long value = bytes.get(U64, take(8, what));
        if (value < 0) {
            throw error(what + " is " + Long.toUnsignedString(value) + ", which no file can hold; the file is damaged");
        }
        return value;
    }

    String string(String what) throws FormatException {
        return text(bytes, skipString(what));
    }

    /** Moves over a string and returns where it begins. */
    private long skipString(String what) throws FormatException {
        long at = position;
        long length = u64("the length of " + what);
        if (length > MAX_STRING) {
            throw error(what + " has a length of " + length + " bytes; the file is damaged");
        }
        take(length, what);
        return at;
    }

    private static String text(MemorySegment bytes, long at) {
        byte[] text = bytes.asSlice(at + Long.BYTES, bytes.get(U64, at)).toArray(ValueLayout.JAVA_BYTE);
        // Vocabularies hold byte tokens that are not UTF-8 by themselves: kept readable, never fatal.
        return new String(text, StandardCharsets.UTF_8);
    }

    /** Strings that lie in the file until they are asked for: vocabularies are large, and most readers do not want them. */
    private static final class Strings extends AbstractList<Object> implements RandomAccess {
        private final MemorySegment bytes;
        private final long[] starts;

        Strings(MemorySegment bytes, long[] starts) {
            this.bytes = bytes;
            this.starts = starts;
        }

        @Override
        public Object get(int index) {
            return text(bytes, starts[index]);
        }

        @Override
        public int size() {
            return starts.length;
        }
    }

    /**
     * Reads a metadata value: Long (every integer type; u64 as its bits), Double, Boolean, String, or a List of these.
     *
     * @param type the value type of the format: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array,
     *     10 u64, 11 i64, 12 f64
     */
    Object value(int type, String what) throws FormatException {
        return value(type, what, 0);
    }

    private Object value(int type, String what, int depth) throws FormatException {
        return switch (type) {
            case 0 -> (long) Byte.toUnsignedInt(bytes.get(ValueLayout.JAVA_BYTE, take(1, what)));
            case 1 -> (long) bytes.get(ValueLayout.JAVA_BYTE, take(1, what));
            case 2 -> (long) Short.toUnsignedInt(bytes.get(U16, take(2, what)));
            case 3 -> (long) bytes.get(U16, take(2, what));
            case 4 -> Integer.toUnsignedLong(u32(what));
            case 5 -> (long) u32(what);
            case 6 -> (double) Float.intBitsToFloat(u32(what));
            case 7 -> bool(what);
            case STRING -> string(what);
            case 9 -> array(what, depth);
            case 10, 11 -> bytes.get(U64, take(8, what));
            case 12 -> Double.longBitsToDouble(bytes.get(U64, take(8, what)));
            default ->
                throw error(what + " has the unknown value type " + Integer.toUnsignedString(type)
                        + "; the file is damaged or of a newer version");
        };
    }

    private boolean bool(String what) throws FormatException {
        byte value = bytes.get(ValueLayout.JAVA_BYTE, take(1, what));
        if (value != 0 && value != 1) {
            throw error(what + " is a bool of value " + value + "; expected 0 or 1");
        }
        return value == 1;
    }

    private List<Object> array(String what, int depth) throws FormatException {
        if (depth == MAX_NESTING) {
            throw error(what + " nests arrays deeper than " + MAX_NESTING + "; the file is damaged");
        }
        int type = u32(what);
        long count = u64("the length of " + what);
        long shortest = type == STRING ? Long.BYTES : 1;
        if (count > Math.min((bytes.byteSize() - position) / shortest, MAX_ENTRIES)) {
            throw error(what + " has " + count + " entries, more than "
                    + (count > MAX_ENTRIES ? "any model needs" : "the file has bytes left") + "; the file is damaged");
        }
        if (type == STRING) {
            long[] starts = new long[(int) count];
            for (int i = 0; i < starts.length; i++) {
                starts[i] = skipString(what);
            }
            return new Strings(bytes, starts);
        }
        List<Object> values = new ArrayList<>();
        for (long i = 0; i < count; i++) {
            values.add(value(type, what, depth + 1));
        }
        return values;
    }
}
