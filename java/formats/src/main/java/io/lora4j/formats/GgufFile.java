package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A GGUF file, versions 2 and 3, little endian: header, typed metadata, tensor descriptions, aligned data.
 *
 * <p>Shapes are given as PyTorch gives them: GGUF's {@code ne}, whose first entry varies fastest, reversed. Tensors
 * of a type that the kernels do not read are listed with type and size, and refused when their data is asked for. Source: ggml's {@code docs/gguf.md}.
 */
public final class GgufFile implements Checkpoint {
    static final byte[] MAGIC = "GGUF".getBytes(StandardCharsets.US_ASCII);

    private static final int MAX_DIMS = 4;
    private static final int SHOWN_ENTRIES = 8;
    /** A tensor description takes at least a name length, a count, a type and an offset. */
    private static final int MIN_TENSOR_BYTES = 24;

    /** An entry of the metadata takes at least a key's length, a type and a byte. */
    private static final int MIN_VALUE_BYTES = 13;

    /** More are taken for damage (the largest models have some thousands of tensors and a hundred entries). */
    private static final int MAX_COUNT = 1 << 16;

    /** Characters of a text that messages show. */
    private static final int SHOWN_TEXT = 100;

    private final MappedFile file;
    private final int version;
    private final Map<String, Object> values;
    private final Map<String, TensorInfo> tensors;

    private GgufFile(MappedFile file, int version, Map<String, Object> values, Map<String, TensorInfo> tensors) {
        this.file = file;
        this.version = version;
        this.values = Collections.unmodifiableMap(values);
        this.tensors = Collections.unmodifiableMap(tensors);
    }

    /** Opens a file and checks its header; see {@link Checkpoint#open}. */
    public static GgufFile open(Path path) throws IOException {
        MappedFile file = MappedFile.open(path);
        try {
            return parse(file);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** @param file becomes the result's */
    static GgufFile parse(MappedFile file) throws FormatException {
        GgufReader reader = new GgufReader(file.path(), file.bytes());
        int magic = reader.u32("the magic number");
        if (magic != 0x46554747) {
            throw reader.error("does not begin with \"GGUF\"; this is not a GGUF file");
        }
        int version = reader.u32("the version");
        if (version != 2 && version != 3) {
            throw reader.error((Integer.reverseBytes(version) == 3
                            ? "is a big-endian file"
                            : "is GGUF version " + Integer.toUnsignedString(version))
                    + "; read are versions 2 and 3, little endian: convert it with llama.cpp's tools");
        }
        long tensorCount = reader.u64("the tensor count");
        long valueCount = reader.u64("the metadata count");
        boolean fits = tensorCount <= reader.size() / MIN_TENSOR_BYTES && valueCount <= reader.size() / MIN_VALUE_BYTES;
        if (!fits || Math.max(tensorCount, valueCount) > MAX_COUNT) {
            throw reader.error("announces " + tensorCount + " tensors and " + valueCount
                    + " metadata entries, more than "
                    + (fits ? "any model has" : "its " + reader.size() + " bytes can hold") + "; the file is damaged");
        }
        Map<String, Object> values = new LinkedHashMap<>();
        for (long i = 0; i < valueCount; i++) {
            String key = reader.name("metadata key " + i);
            if (values.put(key, reader.value(reader.u32("metadata " + key), "metadata " + key)) != null) {
                throw reader.error("metadata key " + key + " occurs twice; the file is damaged");
            }
        }
        return new GgufFile(file, version, values, readTensors(reader, tensorCount, alignment(reader, values)));
    }

    private static long alignment(GgufReader reader, Map<String, Object> values) throws FormatException {
        Object alignment = values.getOrDefault("general.alignment", 32L);
        if (alignment instanceof Long a && a > 0 && a <= 1 << 20 && Long.bitCount(a) == 1) {
            return a;
        }
        throw reader.error("general.alignment is " + brief(alignment)
                + "; expected a power of two of at most 2^20: the file is damaged");
    }

    /** A description whose offset is still relative to the data section. */
    private record Raw(String name, int type, List<Long> shape, long offset) {}

    private static Map<String, TensorInfo> readTensors(GgufReader reader, long count, long alignment)
            throws FormatException {
        List<Raw> raws = new ArrayList<>();
        for (long i = 0; i < count; i++) {
            String name = reader.name("the name of tensor " + i);
            int dims = reader.u32("tensor " + name);
            if (dims < 0 || dims > MAX_DIMS) {
                throw reader.error("tensor " + name + " has " + Integer.toUnsignedString(dims)
                        + " dimensions; expected at most " + MAX_DIMS);
            }
            List<Long> shape = new ArrayList<>();
            for (int d = 0; d < dims; d++) {
                shape.addFirst(reader.u64("the shape of tensor " + name));
            }
            int type = reader.u32("tensor " + name);
            long offset = reader.u64("the offset of tensor " + name);
            if (offset % alignment != 0) {
                throw reader.error(
                        "tensor " + name + " begins at " + offset + ", not a multiple of the alignment " + alignment);
            }
            raws.add(new Raw(name, type, shape, offset));
        }
        raws.sort(Comparator.comparingLong(Raw::offset));
        long start = Math.ceilDiv(reader.position(), alignment) * alignment;
        Map<String, TensorInfo> tensors = new LinkedHashMap<>();
        long free = 0;
        for (int i = 0; i < raws.size(); i++) {
            Raw raw = raws.get(i);
            long next = i + 1 < raws.size() ? raws.get(i + 1).offset() : Math.max(reader.size() - start, 0);
            TensorInfo info = locate(reader, raw, start, next);
            if (raw.offset() < free) {
                throw reader.error("tensor " + raw.name() + " begins at " + raw.offset()
                        + " inside the tensor before it, which ends at " + free + "; the file is damaged");
            }
            free = raw.offset() + info.bytes();
            if (tensors.put(raw.name(), info) != null) {
                throw reader.error("tensor " + raw.name() + " is described twice; the file is damaged");
            }
        }
        return tensors;
    }

    private static TensorInfo locate(GgufReader reader, Raw raw, long start, long next) throws FormatException {
        GgmlType type = GgmlType.byId(raw.type());
        String typeName = type == null ? "ggml type " + Integer.toUnsignedString(raw.type()) : type.name();
        long elements = elements(reader, raw);
        // The size of a type that is not known is not known either: up to the next tensor.
        long bytes = type == null ? Math.max(next - raw.offset(), 0) : bytes(reader, raw, type, elements);
        long data = reader.size() - start; // Less than none where the file ends before its data would begin.
        if (raw.offset() > data || bytes > data - raw.offset()) {
            throw reader.error("tensor " + raw.name() + " takes " + bytes + " bytes of the data from " + raw.offset()
                    + " on, which has " + Math.max(data, 0)
                    + " bytes; the file is truncated or damaged, fetch it again");
        }
        return new TensorInfo(raw.name(), typeName, raw.shape(), start + raw.offset(), bytes);
    }

    private static long elements(GgufReader reader, Raw raw) throws FormatException {
        try {
            long elements = 1;
            for (long size : raw.shape()) {
                elements = Math.multiplyExact(elements, size);
            }
            return elements;
        } catch (ArithmeticException e) {
            throw reader.error("tensor " + raw.name() + ": shape " + raw.shape() + " is larger than any file", e);
        }
    }

    private static long bytes(GgufReader reader, Raw raw, GgmlType type, long elements) throws FormatException {
        long row = raw.shape().isEmpty() ? 1 : raw.shape().getLast();
        if (row % type.blockSize != 0) {
            throw reader.error("tensor " + raw.name() + ": rows of " + row + " values do not divide into " + type
                    + " blocks of " + type.blockSize + "; the file is damaged");
        }
        try {
            return Math.multiplyExact(elements / type.blockSize, type.blockBytes);
        } catch (ArithmeticException e) {
            throw reader.error("tensor " + raw.name() + ": shape " + raw.shape() + " is larger than any file", e);
        }
    }

    /** Returns the version of the format, 2 or 3. */
    public int version() {
        return version;
    }

    /**
     * Returns the metadata with its types: Long, Double, Boolean, String, or a List of these. An unsigned 64-bit value is
     * given as its bits. Lists of strings are read from the file as they are asked for, and die with {@link #close}.
     */
    public Map<String, Object> values() {
        return values;
    }

    @Override
    public Path path() {
        return file.path();
    }

    @Override
    public Map<String, TensorInfo> tensors() {
        return tensors;
    }

    @Override
    public MemorySegment data(String name) throws FormatException {
        TensorInfo info = tensor(name);
        if (info.scheme().isEmpty()) {
            throw new FormatException(path() + ": tensor " + name + " is stored as " + info.typeName()
                    + ", which is not read; convert the model to another type, such as Q4_K or Q8_0");
        }
        return file.bytes().asSlice(info.offset(), info.bytes());
    }

    /** Returns the metadata as text; of long lists the beginning and the length. */
    @Override
    public Map<String, String> metadata() {
        Map<String, String> text = new LinkedHashMap<>();
        values.forEach((key, value) -> text.put(key, show(value)));
        return text;
    }

    private static String show(Object value) {
        if (value instanceof List<?> list && list.size() > SHOWN_ENTRIES) {
            String head = list.subList(0, SHOWN_ENTRIES).toString();
            return head.substring(0, head.length() - 1) + ", …] (" + list.size() + " entries)";
        }
        return value.toString();
    }

    /** Returns a value of the metadata for a message. */
    static String brief(@Nullable Object value) {
        String text = value == null ? "missing" : show(value);
        return text.length() <= SHOWN_TEXT ? text : text.substring(0, SHOWN_TEXT) + "…";
    }

    @Override
    public void close() {
        file.close();
    }
}
