package io.lora4j.train.checkpoint;

import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;

/** SHA-256 of files, in lower-case hexadecimal as {@code sha256sum} prints it. */
public final class Sha256 {
    private static final int CHUNK = 1 << 20;

    private Sha256() {}

    /**
     * Returns the hash of a file's bytes. Reads it in pieces: the file may be of any size.
     *
     * @throws FormatException if it does not exist
     */
    public static String of(Path file) throws IOException {
        MessageDigest digest = digest();
        ByteBuffer buffer = ByteBuffer.allocateDirect(CHUNK);
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            while (channel.read(buffer.clear()) >= 0) {
                digest.update(buffer.flip());
            }
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; check the path", e);
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    /** Returns the hash of several files: of the lines {@code <hash>  <file name>} that {@code sha256sum} prints for them. */
    public static String of(List<Path> files) throws IOException {
        StringBuilder lines = new StringBuilder();
        for (Path file : files) {
            lines.append(of(file)).append("  ").append(file.getFileName()).append('\n');
        }
        return of(lines.toString());
    }

    /** Returns the hash of a text in UTF-8. */
    public static String of(String text) {
        return HexFormat.of().formatHex(digest().digest(text.getBytes(StandardCharsets.UTF_8)));
    }

    static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every JDK has SHA-256", e);
        }
    }
}
