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
 * Writes safetensors files. Tensors that are all there are written with the bytes that the format's own serializer writes: by
 * element type, then by name. Tensors that are made one by one stay in the order in which they are made. Either way: a compact header
 * padded with spaces to 8 bytes; {@code __metadata__} first, its keys sorted. Equal input gives equal bytes.
 */
public final class SafetensorsWriter {
    private SafetensorsWriter() {}

    /** Makes the tensors of a file. */
    @FunctionalInterface
    public interface Body {
        /** Gives the bytes of a tensor to the sink, exactly as many as its type and shape imply. */
        void write(TensorSpec tensor, TensorSink sink) throws IOException;
    }

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

    /**
     * Writes a file whole or not at all, asking for one tensor after the other, so that they need not be in memory together.
     *
     * @param file the file to create or replace
     * @param tensors the tensors in the order in which they are asked for; names must differ
     * @param metadata as in {@link #write(Path, List, Map)}
     * @throws FormatException if the disk is full
     */
    public static void stream(Path file, List<TensorSpec> tensors, Map<String, String> metadata, Body body)
            throws IOException {
        requireDistinct(tensors.stream().map(TensorSpec::name).toList());
        byte[] header = headerOf(tensors, metadata);
        AtomicFile.write(file, channel -> {
            TensorStream stream = begin(channel, header);
            for (TensorSpec tensor : tensors) {
                stream.write(tensor.name(), tensor.bytes(), sink -> body.write(tensor, sink));
            }
        });
    }

    static void write(FileChannel channel, byte[] header, List<NamedTensor> ordered) throws IOException {
        TensorStream stream = begin(channel, header);
        for (NamedTensor tensor : ordered) {
            stream.append(tensor.data());
        }
    }

    private static TensorStream begin(FileChannel channel, byte[] header) throws IOException {
        ByteBuffer length =
                ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, header.length);
        AtomicFile.writeFully(channel, length);
        TensorStream stream = new TensorStream(channel);
        stream.append(MemorySegment.ofArray(header));
        return stream;
    }

    static List<NamedTensor> inOrder(List<NamedTensor> tensors) {
        requireDistinct(tensors.stream().map(NamedTensor::name).toList());
        List<NamedTensor> ordered = new ArrayList<>(tensors);
        ordered.sort(Comparator.comparing(
                        (NamedTensor t) -> SafetensorsType.valueOf(t.dtype().name()))
                .reversed()
                .thenComparing(t -> t.name().getBytes(StandardCharsets.UTF_8), Arrays::compareUnsigned));
        return ordered;
    }

    private static void requireDistinct(List<String> names) {
        Set<String> seen = new HashSet<>();
        for (String name : names) {
            if (!seen.add(name) || name.equals("__metadata__")) {
                throw new IllegalArgumentException("tensor name " + name + " is taken");
            }
        }
    }

    static byte[] header(List<NamedTensor> ordered, Map<String, String> metadata) {
        return headerOf(
                ordered.stream()
                        .map(t -> new TensorSpec(t.name(), t.dtype(), t.shape()))
                        .toList(),
                metadata);
    }

    private static byte[] headerOf(List<TensorSpec> tensors, Map<String, String> metadata) {
        Map<String, String> sorted = new TreeMap<>(metadata);
        sorted.putIfAbsent("format", "pt");
        Map<String, Object> header = new LinkedHashMap<>();
        header.put("__metadata__", sorted);
        long begin = 0;
        for (TensorSpec tensor : tensors) {
            long end = begin + tensor.bytes();
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
