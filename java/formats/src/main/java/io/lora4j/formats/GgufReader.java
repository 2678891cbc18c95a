package io.lora4j.formats;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.RandomAccess;

/** A cursor over the header of a GGUF file: every read is checked against the end of the file. */
final class GgufReader {
    /** Longer headers are taken for damage (the largest real ones, with 260,000 tokens and their merges, have some 15 MB). */
    private static final long MAX_HEADER = 1L << 27;

    /** Longer strings are taken for damage (the largest real ones, chat templates, have some 10 KB). */
    private static final long MAX_STRING = 1L << 26;

    /** The format's limit on keys; names of tensors are shorter. */
    private static final long MAX_NAME = (1L << 16) - 1;

    /** Longer arrays are taken for damage (the largest real ones, merges, have some 500,000 entries). */
    private static final long MAX_ENTRIES = 1L << 22;

    private static final int MAX_NESTING = 8;
    private static final int BOOL = 7;
    private static final int STRING = 8;
    private static final int ARRAY = 9;
    /** An array takes at least a type and a count. */
    private static final int MIN_ARRAY_BYTES = 12;

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
        if (count > MAX_HEADER - position) {
            throw error(what + " ends beyond byte " + MAX_HEADER
                    + " of the header, which no model's does; the file is damaged");
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

    /** Reads a key or the name of a tensor. */
    String name(String what) throws FormatException {
        return text(bytes, skipString(what, MAX_NAME));
    }

    /** Moves over a string and returns where it begins. */
    private long skipString(String what, long longest) throws FormatException {
        long at = position;
        long length = u64("the length of " + what);
        if (length > longest) {
            throw error(what + " has a length of " + length + " bytes; expected at most " + longest
                    + ": the file is damaged");
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

    /** Numbers and truth values that lie in the file until they are asked for. */
    private static final class Scalars extends AbstractList<Object> implements RandomAccess {
        private final MemorySegment bytes;
        private final int type;
        private final long start;
        private final int count;

        Scalars(MemorySegment bytes, int type, long start, int count) {
            this.bytes = bytes;
            this.type = type;
            this.start = start;
            this.count = count;
        }

        @Override
        public Object get(int index) {
            return scalar(bytes, type, start + (long) Objects.checkIndex(index, count) * width(type));
        }

        @Override
        public int size() {
            return count;
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
            case STRING -> text(bytes, skipString(what, MAX_STRING));
            case ARRAY -> array(what, depth);
            default -> scalar(bytes, type, skipScalars(type, 1, what));
        };
    }

    /** Returns the bytes of a number or truth value; 0 for other types. */
    private static int width(int type) {
        return switch (type) {
            case 0, 1, BOOL -> 1;
            case 2, 3 -> 2;
            case 4, 5, 6 -> 4;
            case 10, 11, 12 -> 8;
            default -> 0;
        };
    }

    private static Object scalar(MemorySegment bytes, int type, long at) {
        return switch (type) {
            case 0 -> (long) Byte.toUnsignedInt(bytes.get(ValueLayout.JAVA_BYTE, at));
            case 1 -> (long) bytes.get(ValueLayout.JAVA_BYTE, at);
            case 2 -> (long) Short.toUnsignedInt(bytes.get(U16, at));
            case 3 -> (long) bytes.get(U16, at);
            case 4 -> Integer.toUnsignedLong(bytes.get(U32, at));
            case 5 -> (long) bytes.get(U32, at);
            case 6 -> (double) Float.intBitsToFloat(bytes.get(U32, at));
            case BOOL -> bytes.get(ValueLayout.JAVA_BYTE, at) != 0;
            case 10, 11 -> bytes.get(U64, at);
            case 12 -> Double.longBitsToDouble(bytes.get(U64, at));
            default -> throw new IllegalArgumentException("value type " + type + " is no scalar");
        };
    }

    /** Moves over numbers or truth values and returns where they begin. */
    private long skipScalars(int type, int count, String what) throws FormatException {
        if (width(type) == 0) {
            throw error(what + " has the unknown value type " + Integer.toUnsignedString(type)
                    + "; expected 0 to 12: the file is damaged or of a newer version");
        }
        long at = take((long) count * width(type), what);
        for (long i = at; type == BOOL && i < position; i++) {
            byte value = bytes.get(ValueLayout.JAVA_BYTE, i);
            if (value != 0 && value != 1) {
                throw error(what + " is a bool of value " + value + "; expected 0 or 1");
            }
        }
        return at;
    }

    private List<Object> array(String what, int depth) throws FormatException {
        if (depth == MAX_NESTING) {
            throw error(what + " nests arrays deeper than " + MAX_NESTING + "; the file is damaged");
        }
        int type = u32(what);
        int count = entries(type, what);
        if (type == STRING) {
            long[] starts = new long[count];
            for (int i = 0; i < count; i++) {
                starts[i] = skipString(what, MAX_STRING);
            }
            return new Strings(bytes, starts);
        }
        if (type != ARRAY) {
            return new Scalars(bytes, type, skipScalars(type, count, what), count);
        }
        List<Object> arrays = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            arrays.add(array(what, depth + 1));
        }
        return arrays;
    }

    /** Reads the length of an array, which the rest of the file must be able to hold. */
    private int entries(int type, String what) throws FormatException {
        long count = u64("the length of " + what);
        long shortest = switch (type) {
            case STRING -> Long.BYTES;
            case ARRAY -> MIN_ARRAY_BYTES;
            default -> Math.max(width(type), 1);
        };
        if (count > Math.min((bytes.byteSize() - position) / shortest, MAX_ENTRIES)) {
            throw error(what + " has " + count + " entries, more than "
                    + (count > MAX_ENTRIES ? "any model needs" : "the file has bytes left") + "; the file is damaged");
        }
        return (int) count;
    }
}
