package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * One safetensors file: a little-endian u64 header length, a JSON header, and the tensors' bytes without holes or overlaps.
 *
 * <p>Source: the safetensors format description; checks are those of the owner's reader, and duplicate keys are refused.
 */
final class SafetensorsFile implements Checkpoint {
    /** The owner's limit on the header. */
    static final long MAX_HEADER = 100_000_000;

    private static final ValueLayout.OfLong U64_LE = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private final MappedFile file;
    private final Map<String, TensorInfo> tensors;
    private final Map<String, String> metadata;

    private SafetensorsFile(MappedFile file, Map<String, TensorInfo> tensors, Map<String, String> metadata) {
        this.file = file;
        this.tensors = Collections.unmodifiableMap(tensors);
        this.metadata = Collections.unmodifiableMap(metadata);
    }

    static SafetensorsFile open(Path path) throws IOException {
        MappedFile file = MappedFile.open(path);
        try {
            return parse(file);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    private static SafetensorsFile parse(MappedFile file) throws FormatException {
        Path path = file.path();
        long size = file.bytes().byteSize();
        if (size < 8) {
            throw new FormatException(
                    path + ": has " + size
                            + " bytes, too few for a safetensors file (at least 8); the file is empty or truncated, fetch it again");
        }
        long headerLength = file.bytes().get(U64_LE, 0);
        if (headerLength < 0 || headerLength > MAX_HEADER) {
            throw new FormatException(
                    path + ": header length " + Long.toUnsignedString(headerLength) + " is over the limit of "
                            + MAX_HEADER + " bytes; this is not a safetensors file, or it is damaged");
        }
        if (headerLength > size - 8) {
            throw new FormatException(path + ": header of " + headerLength + " bytes is longer than the file ("
                    + (size - 8) + " bytes after the length field); the file is truncated, fetch it again");
        }
        byte[] json = file.bytes().asSlice(8, headerLength).toArray(ValueLayout.JAVA_BYTE);
        if (json.length == 0 || json[0] != '{') {
            throw new FormatException(path + ": header does not begin with '{'; this is not a safetensors file");
        }
        ObjectNode header = Json.parseObject(json, path + ": header");
        Map<String, String> metadata = new LinkedHashMap<>();
        List<TensorInfo> tensors = new ArrayList<>();
        long dataStart = 8 + headerLength;
        for (Map.Entry<String, JsonNode> entry : header.properties()) {
            if (entry.getKey().equals("__metadata__")) {
                readMetadata(path, entry.getValue(), metadata);
            } else {
                tensors.add(readTensor(path, entry.getKey(), entry.getValue(), dataStart, size - dataStart));
            }
        }
        return new SafetensorsFile(file, inOrder(path, tensors, dataStart, size), metadata);
    }

    private static void readMetadata(Path path, JsonNode node, Map<String, String> metadata) throws FormatException {
        if (!node.isObject()) {
            throw new FormatException(
                    path + ": __metadata__ is a JSON " + Json.kind(node) + "; expected an object of strings");
        }
        for (Map.Entry<String, JsonNode> entry : node.properties()) {
            if (!entry.getValue().isString()) {
                throw new FormatException(path + ": __metadata__ entry " + entry.getKey() + " is a JSON "
                        + Json.kind(entry.getValue()) + "; expected a string");
            }
            metadata.put(entry.getKey(), entry.getValue().stringValue());
        }
    }

    private static TensorInfo readTensor(Path path, String name, JsonNode node, long dataStart, long dataSize)
            throws FormatException {
        String where = path + ": tensor " + name;
        JsonNode dtype = node.path("dtype");
        JsonNode shape = node.path("shape");
        JsonNode offsets = node.path("data_offsets");
        if (!dtype.isString() || !shape.isArray() || !offsets.isArray() || offsets.size() != 2 || node.size() != 3) {
            throw new FormatException(where + ": header entry " + abbreviate(node)
                    + " is not of the form {\"dtype\":…,\"shape\":[…],\"data_offsets\":[begin,end]}");
        }
        SafetensorsType type = SafetensorsType.byName(dtype.stringValue());
        if (type == null) {
            throw new FormatException(where + ": unknown dtype " + dtype.stringValue() + "; known are "
                    + List.of(SafetensorsType.values()));
        }
        long begin = natural(where, "data_offsets", offsets.get(0));
        long end = natural(where, "data_offsets", offsets.get(1));
        if (begin > end) {
            throw new FormatException(
                    where + ": data_offsets [" + begin + "," + end + "] run backwards; the file is damaged");
        }
        if (end > dataSize) {
            throw new FormatException(where + ": data_offsets [" + begin + "," + end + "] lie outside the file's "
                    + dataSize + " bytes of data; the file is truncated or damaged, fetch it again");
        }
        List<Long> sizes = new ArrayList<>();
        for (JsonNode dim : shape.values()) {
            sizes.add(natural(where, "shape", dim));
        }
        long bytes = bytes(where, type, sizes);
        if (bytes != end - begin) {
            throw new FormatException(
                    where + ": " + type + " " + sizes + " takes " + bytes + " bytes, but data_offsets [" + begin + ","
                            + end + "] hold " + (end - begin) + "; the header is wrong");
        }
        return new TensorInfo(name, type.name(), sizes, dataStart + begin, bytes);
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

    private static long natural(String where, String field, JsonNode node) throws FormatException {
        if (!node.isIntegralNumber() || !node.canConvertToLong() || node.longValue() < 0) {
            throw new FormatException(where + ": " + field + " holds " + abbreviate(node) + "; expected integers >= 0");
        }
        return node.longValue();
    }

    /** Sorts by position and checks that the tensors tile the data exactly. */
    private static Map<String, TensorInfo> inOrder(Path path, List<TensorInfo> tensors, long dataStart, long size)
            throws FormatException {
        tensors.sort(Comparator.comparingLong(TensorInfo::offset).thenComparingLong(TensorInfo::bytes));
        Map<String, TensorInfo> ordered = new LinkedHashMap<>();
        long expected = dataStart;
        String before = "";
        for (TensorInfo tensor : tensors) {
            if (tensor.offset() < expected) {
                throw new FormatException(path + ": tensor " + tensor.name() + " begins at "
                        + (tensor.offset() - dataStart) + " and overlaps " + before + ", which ends at "
                        + (expected - dataStart) + "; the file is damaged");
            }
            if (tensor.offset() > expected) {
                throw new FormatException(path + ": " + (tensor.offset() - expected) + " bytes before tensor "
                        + tensor.name() + " belong to no tensor; the file is damaged");
            }
            expected = tensor.offset() + tensor.bytes();
            before = tensor.name();
            ordered.put(tensor.name(), tensor);
        }
        if (expected != size) {
            throw new FormatException(
                    path + ": " + (size - expected) + " bytes after the last tensor belong to no tensor;"
                            + " the file is damaged or something was appended to it");
        }
        return ordered;
    }

    private static String abbreviate(JsonNode node) {
        String text = node.toString();
        return text.length() <= 80 ? text : text.substring(0, 80) + "…";
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
        return file.bytes().asSlice(info.offset(), info.bytes());
    }

    @Override
    public Map<String, String> metadata() {
        return metadata;
    }

    @Override
    public void close() {
        file.close();
    }
}
