package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * Writes safetensors files with the bytes that the format's own serializer writes: tensors by element type, then by name; a
 * compact header padded with spaces to 8 bytes; {@code __metadata__} first, its keys sorted. Equal input gives equal bytes.
 */
public final class SafetensorsWriter {
    /** A chunk of data per write; also keeps every ByteBuffer view under 2 GiB. */
    private static final long CHUNK = 1L << 26;

    private SafetensorsWriter() {}

    /**
     * Writes a file whole or not at all.
     *
     * @param file the file to create or replace
     * @param tensors the tensors, in any order; names must differ
     * @param metadata entries of {@code __metadata__} beside {@code format}, which is {@code pt} unless given here
     * @throws FormatException if the disk is full
     */
    public static void write(Path file, List<NamedTensor> tensors, Map<String, String> metadata) throws IOException {
        List<NamedTensor> ordered = inOrder(tensors);
        byte[] header = header(ordered, metadata);
        AtomicFile.write(file, channel -> write(channel, header, ordered));
    }

    static void write(FileChannel channel, byte[] header, List<NamedTensor> ordered) throws IOException {
        ByteBuffer length =
                ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, header.length);
        AtomicFile.writeFully(channel, length);
        AtomicFile.writeFully(channel, ByteBuffer.wrap(header));
        for (NamedTensor tensor : ordered) {
            MemorySegment data = tensor.data();
            for (long at = 0; at < data.byteSize(); at += CHUNK) {
                MemorySegment chunk = data.asSlice(at, Math.min(CHUNK, data.byteSize() - at));
                AtomicFile.writeFully(channel, chunk.asByteBuffer());
            }
        }
    }

    static List<NamedTensor> inOrder(List<NamedTensor> tensors) {
        Set<String> names = new HashSet<>();
        for (NamedTensor tensor : tensors) {
            if (!names.add(tensor.name()) || tensor.name().equals("__metadata__")) {
                throw new IllegalArgumentException("tensor name " + tensor.name() + " is taken");
            }
        }
        List<NamedTensor> ordered = new ArrayList<>(tensors);
        ordered.sort(Comparator.comparing(
                        (NamedTensor t) -> SafetensorsType.valueOf(t.dtype().name()))
                .reversed()
                .thenComparing(t -> t.name().getBytes(StandardCharsets.UTF_8), Arrays::compareUnsigned));
        return ordered;
    }

    static byte[] header(List<NamedTensor> ordered, Map<String, String> metadata) {
        Map<String, String> sorted = new TreeMap<>(metadata);
        sorted.putIfAbsent("format", "pt");
        Map<String, Object> header = new LinkedHashMap<>();
        header.put("__metadata__", sorted);
        long begin = 0;
        for (NamedTensor tensor : ordered) {
            long end = begin + tensor.data().byteSize();
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("dtype", tensor.dtype().name());
            entry.put("shape", tensor.shape());
            entry.put("data_offsets", List.of(begin, end));
            header.put(tensor.name(), entry);
            begin = end;
        }
        byte[] json = PythonJson.compact().write(header).getBytes(StandardCharsets.UTF_8);
        byte[] padded = Arrays.copyOf(json, (json.length + 7) / 8 * 8);
        Arrays.fill(padded, json.length, padded.length, (byte) ' ');
        return padded;
    }
}
