package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

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

    /** @param file becomes the result's */
    static SafetensorsFile parse(MappedFile file) throws FormatException {
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
        long dataSize = size - 8 - headerLength;
        SafetensorsHeader header = SafetensorsHeader.read(path, json, dataSize);
        return new SafetensorsFile(file, inOrder(path, header.tensors(), 8 + headerLength, size), header.metadata());
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
