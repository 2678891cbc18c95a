package io.lora4j.formats;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Locale;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Writes a file whole or not at all: into a temporary file beside it, flushed to the disk, renamed over the old one, and the
 * directory flushed. Whatever fails, the old file stays as it was and nothing new is left behind.
 */
public final class AtomicFile {
    private AtomicFile() {}

    /** Writes the contents. */
    @FunctionalInterface
    public interface Body {
        /** Writes everything to the channel, from its position on. */
        void writeTo(FileChannel channel) throws IOException;
    }

    /** Has a last look at a file that is complete but does not have its name yet. */
    @FunctionalInterface
    interface Check {
        /** Throws to keep the file from appearing. */
        void accept(Path temporary) throws IOException;
    }

    /** Opens the temporary file; a test puts a full disk here. */
    @FunctionalInterface
    interface Opener {
        FileChannel open(Path temporary) throws IOException;
    }

    /**
     * Writes or replaces {@code target}.
     *
     * @throws FormatException if the disk is full or the directory is missing
     */
    public static void write(Path target, Body body) throws IOException {
        write(target, whole -> {}, body);
    }

    static void write(Path target, Check check, Body body) throws IOException {
        write(target, check, body, AtomicFile::create);
    }

    private static FileChannel create(Path temporary) throws IOException {
        return FileChannel.open(temporary, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
    }

    /** Writes or replaces {@code target} with {@code bytes}. */
    public static void write(Path target, byte[] bytes) throws IOException {
        write(target, channel -> writeFully(channel, ByteBuffer.wrap(bytes)));
    }

    /** Writes or replaces {@code target} with the bytes of another file. */
    public static void copy(Path source, Path target) throws IOException {
        InputFile.require(source);
        try (FileChannel from = FileChannel.open(source, StandardOpenOption.READ)) {
            write(target, channel -> {
                long size = from.size();
                for (long at = 0, moved; at < size; at += moved) {
                    moved = from.transferTo(at, size - at, channel);
                    if (moved <= 0) {
                        throw new IOException(source + ": has " + at + " bytes, expected " + size
                                + "; it was cut while it was copied");
                    }
                }
            });
        }
    }

    static void write(Path target, Body body, Opener opener) throws IOException {
        write(target, whole -> {}, body, opener);
    }

    private static void write(Path target, Check check, Body body, Opener opener) throws IOException {
        Path absolute = target.toAbsolutePath();
        Path temp = temporary(absolute);
        try {
            try (FileChannel channel = opener.open(temp)) {
                body.writeTo(channel);
                channel.force(true);
            }
            check.accept(temp);
            Files.move(temp, absolute, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (NoSuchFileException e) {
            throw new FormatException(target + ": its directory does not exist; create it first", e);
        } catch (IOException e) {
            Files.deleteIfExists(temp);
            throw explain(target, e);
        } catch (RuntimeException e) {
            Files.deleteIfExists(temp);
            throw e;
        }
        sync(directory(absolute));
    }

    /** Returns an unused hidden name beside {@code target}, which must be absolute. A GGUF file keeps its ending, by which it is known. */
    static Path temporary(Path target) {
        long random = ThreadLocalRandom.current().nextLong();
        String ending = target.toString().endsWith(".gguf") ? ".gguf" : "";
        return target.resolveSibling("." + target.getFileName() + ".tmp-" + Long.toHexString(random) + ending);
    }

    /** Writes all of a buffer. */
    public static void writeFully(FileChannel channel, ByteBuffer buffer) throws IOException {
        while (buffer.hasRemaining()) {
            channel.write(buffer);
        }
    }

    /** Flushes a directory, so that a rename in it survives a power failure. */
    static void sync(Path directory) throws IOException {
        if (System.getProperty("os.name", "").toLowerCase(Locale.ROOT).startsWith("windows")) {
            return; // Windows cannot open directories; its renames are journalled.
        }
        try (FileChannel channel = FileChannel.open(directory, StandardOpenOption.READ)) {
            channel.force(true);
        }
    }

    static Path directory(Path absolute) {
        Path parent = absolute.getParent();
        return parent == null ? absolute : parent;
    }

    /** Says what to do about a full disk; other failures pass as they are. */
    static IOException explain(Path target, IOException e) {
        String message = String.valueOf(e.getMessage());
        if (message.contains("No space left") || message.contains("Disk quota exceeded")) {
            return new FormatException(
                    target + ": no space left on its file system (" + free(target)
                            + "); nothing was written: free some space or choose another directory",
                    e);
        }
        if (e instanceof AtomicMoveNotSupportedException) {
            return new FormatException(
                    target + ": its file system cannot rename a file atomically; choose another directory", e);
        }
        return e;
    }

    private static String free(Path target) {
        try {
            return Files.getFileStore(directory(target.toAbsolutePath())).getUsableSpace() + " bytes free";
        } catch (IOException e) {
            return "free space unknown";
        }
    }
}
