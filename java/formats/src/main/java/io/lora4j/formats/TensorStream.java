package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;

/** Writes one tensor after the other to a file and holds each to the size that the header has announced for it. */
final class TensorStream {
    /** A chunk of data per write; also keeps every ByteBuffer view under 2 GiB. */
    private static final long CHUNK = 1L << 26;

    /** Makes the bytes of one tensor. */
    @FunctionalInterface
    interface Body {
        void writeTo(TensorSink sink) throws IOException;
    }

    private final FileChannel channel;

    TensorStream(FileChannel channel) {
        this.channel = channel;
    }

    /** Writes one tensor of exactly {@code bytes} bytes. */
    void write(String name, long bytes, Body body) throws IOException {
        long[] written = {0};
        body.writeTo(part -> {
            written[0] += part.byteSize();
            requireSize(name, bytes, written[0], written[0] > bytes);
            append(part);
        });
        requireSize(name, bytes, written[0], written[0] != bytes);
    }

    /** Writes bytes that belong to no tensor. */
    void append(MemorySegment data) throws IOException {
        for (long at = 0; at < data.byteSize(); at += CHUNK) {
            MemorySegment chunk = data.asSlice(at, Math.min(CHUNK, data.byteSize() - at));
            AtomicFile.writeFully(channel, chunk.asByteBuffer());
        }
    }

    private static void requireSize(String name, long announced, long written, boolean wrong) {
        if (wrong) {
            throw new IllegalStateException(
                    "tensor " + name + " was announced with " + announced + " bytes, but " + written + " came");
        }
    }
}
