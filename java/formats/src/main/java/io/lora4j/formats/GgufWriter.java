package io.lora4j.formats;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Writes GGUF files of version 3, little endian, whole or not at all, asking for one tensor after the other. Equal input gives equal
 * bytes. Source: ggml's {@code docs/gguf.md}.
 */
public final class GgufWriter {
    private static final int VERSION = 3;
    private static final int ALIGNMENT = 32;
    /** ggml's {@code GGML_MAX_NAME}, its ending zero included. */
    private static final int MAX_NAME = 64;

    private GgufWriter() {}

    /** Makes the tensors of a file. */
    @FunctionalInterface
    public interface Body {
        /** Gives the bytes of a tensor to the sink, exactly as many as its type and shape imply. */
        void write(GgufTensor tensor, TensorSink sink) throws IOException;
    }

    /**
     * Writes a file.
     *
     * @param file the file to create or replace
     * @param tensors the tensors in the order in which they are asked for; names must differ
     * @throws FormatException if the disk is full
     */
    public static void write(Path file, GgufMetadata metadata, List<GgufTensor> tensors, Body body) throws IOException {
        write(file, metadata, tensors, body, whole -> {});
    }

    /** As above; the check looks at the file when it is complete but does not have its name yet. */
    static void write(Path file, GgufMetadata metadata, List<GgufTensor> tensors, Body body, AtomicFile.Check check)
            throws IOException {
        byte[] header = header(metadata, tensors);
        AtomicFile.write(file, check, channel -> {
            TensorStream stream = new TensorStream(channel);
            stream.append(MemorySegment.ofArray(header));
            pad(stream, header.length);
            for (GgufTensor tensor : tensors) {
                stream.write(tensor.name(), tensor.bytes(), sink -> body.write(tensor, sink));
                pad(stream, tensor.bytes());
            }
        });
    }

    private static void pad(TensorStream stream, long bytes) throws IOException {
        stream.append(MemorySegment.ofArray(new byte[(int) (padded(bytes) - bytes)]));
    }

    private static long padded(long bytes) {
        return Math.ceilDiv(bytes, ALIGNMENT) * ALIGNMENT;
    }

    private static byte[] header(GgufMetadata metadata, List<GgufTensor> tensors) {
        ByteArrayOutputStream header = new ByteArrayOutputStream();
        header.writeBytes(GgufFile.MAGIC);
        header.writeBytes(little(20)
                .putInt(VERSION)
                .putLong(tensors.size())
                .putLong(metadata.count())
                .array());
        header.writeBytes(metadata.toBytes());
        Set<String> names = new HashSet<>();
        long offset = 0;
        for (GgufTensor tensor : tensors) {
            byte[] name = tensor.name().getBytes(StandardCharsets.UTF_8);
            if (!names.add(tensor.name()) || name.length >= MAX_NAME) {
                throw new IllegalArgumentException(
                        "tensor name " + tensor.name() + " is taken or has more than " + (MAX_NAME - 1) + " bytes");
            }
            List<Long> shape = tensor.shape();
            ByteBuffer info = little(8 + name.length + 4 + 8 * shape.size() + 12);
            info.putLong(name.length).put(name).putInt(shape.size());
            shape.reversed().forEach(info::putLong);
            header.writeBytes(info.putInt(tensor.type().id).putLong(offset).array());
            offset += padded(tensor.bytes());
        }
        return header.toByteArray();
    }

    private static ByteBuffer little(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }
}
