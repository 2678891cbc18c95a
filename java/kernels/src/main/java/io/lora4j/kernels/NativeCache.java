package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import org.jspecify.annotations.Nullable;

/**
 * Where the native library of the jar is extracted: {@code -Dlora4j.cache}, else {@code $XDG_CACHE_HOME/lora4j}, else
 * {@code ~/.cache/lora4j}, in a folder that is named by ABI version and SHA-256. A file that is there is compared with the resource
 * byte by byte before it is used, and replaced atomically when it differs; any number of processes may do so at once.
 */
final class NativeCache {
    static final String PROPERTY = "lora4j.cache";

    static final String ADVICE =
            ". The cache must be writable and may not be mounted noexec: choose another folder with -D" + PROPERTY
                    + "=<folder>, or name a library that is in place with -D" + NativeLibrary.PATH_PROPERTY + "=<file>";

    private NativeCache() {}

    /** Returns the file in the cache that holds the resource. */
    static Path extract(URL resource, String fileName) throws IOException {
        byte[] bytes;
        try (InputStream in = resource.openStream()) {
            bytes = in.readAllBytes();
        }
        String version = LoraNative.L4J_ABI_MAJOR() + "." + LoraNative.L4J_ABI_MINOR();
        Path folder = root().resolve("native").resolve("abi-" + version + "-" + sha256(bytes));
        Path file = folder.resolve(fileName);
        if (!Files.isRegularFile(file) || !Arrays.equals(Files.readAllBytes(file), bytes)) {
            Files.createDirectories(
                    folder, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
            replace(file, bytes);
        }
        return file;
    }

    private static void replace(Path file, byte[] bytes) throws IOException {
        Path temporary = Files.createTempFile(file.getParent(), "extract", ".tmp");
        try {
            try (FileChannel channel = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
                ByteBuffer buffer = ByteBuffer.wrap(bytes);
                while (buffer.hasRemaining()) {
                    channel.write(buffer);
                }
                channel.force(true);
            }
            Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Files.deleteIfExists(temporary);
        }
    }

    private static Path root() {
        String property = System.getProperty(PROPERTY);
        if (property != null) {
            return Path.of(property);
        }
        @Nullable String xdg = System.getenv("XDG_CACHE_HOME");
        if (xdg != null && Path.of(xdg).isAbsolute()) { // the XDG specification ignores relative ones
            return Path.of(xdg, "lora4j");
        }
        return Path.of(System.getProperty("user.home"), ".cache", "lora4j");
    }

    private static String sha256(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e); // every Java platform has it
        }
    }
}
