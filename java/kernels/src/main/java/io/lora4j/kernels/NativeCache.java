package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Where the native library of the jar is extracted: {@code -Dlora4j.cache}; without it {@code $XDG_CACHE_HOME/lora4j} or else
 * {@code ~/.cache/lora4j}; and where these cannot be written, a folder of the user's own in {@code java.io.tmpdir}. In it the folder
 * is named by ABI version and SHA-256. A file that is there is compared with the resource byte by byte before it is used, and
 * replaced atomically when it differs; any number of processes may do so at once.
 */
final class NativeCache {
    static final String PROPERTY = "lora4j.cache";

    static final String ADVICE =
            ". The cache must be writable and may not be mounted noexec: choose another folder with -D" + PROPERTY
                    + "=<folder>, or name a library that is in place with -D" + NativeLibrary.PATH_PROPERTY + "=<file>";

    private static final FileAttribute<Set<PosixFilePermission>> OWNER_ONLY =
            PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));

    private NativeCache() {}

    /** Returns the folders that the library may be extracted to, to be tried in this order. */
    static List<Path> roots() {
        String property = System.getProperty(PROPERTY);
        if (property != null) {
            return List.of(Path.of(property));
        }
        List<Path> roots = new ArrayList<>();
        @Nullable String xdg = System.getenv("XDG_CACHE_HOME");
        Path home = Path.of(System.getProperty("user.home")); // "?" where the user has none
        if (xdg != null && Path.of(xdg).isAbsolute()) { // the XDG specification ignores relative ones
            roots.add(Path.of(xdg, "lora4j"));
        } else if (home.isAbsolute()) {
            roots.add(home.resolve(".cache").resolve("lora4j"));
        }
        roots.add(temporaryRoot());
        return roots;
    }

    private static Path temporaryRoot() {
        return Path.of(System.getProperty("java.io.tmpdir"), "lora4j-" + System.getProperty("user.name"));
    }

    /** Returns the file below the root that holds the resource. */
    static Path extract(URL resource, String fileName, Path root) throws IOException {
        byte[] bytes = read(resource);
        String version = LoraNative.L4J_ABI_MAJOR() + "." + LoraNative.L4J_ABI_MINOR();
        Path folder = root.resolve("native").resolve("abi-" + version + "-" + sha256(bytes));
        Path file = folder.resolve(fileName);
        if (root.equals(temporaryRoot())) {
            Files.createDirectories(folder, OWNER_ONLY);
            requireOwn(root);
        }
        if (differs(file, bytes)) {
            Files.createDirectories(folder, OWNER_ONLY);
            replace(file, bytes);
        }
        return file;
    }

    /** Extracts another library of the jar into the folder of one that {@link #extract} has returned. */
    static void extractBeside(URL resource, String fileName, Path extracted) throws IOException {
        byte[] bytes = read(resource);
        Path file = extracted.resolveSibling(fileName);
        if (differs(file, bytes)) {
            replace(file, bytes);
        }
    }

    private static byte[] read(URL resource) throws IOException {
        try (InputStream in = resource.openStream()) {
            return in.readAllBytes();
        }
    }

    private static boolean differs(Path file, byte[] bytes) throws IOException {
        return !Files.isRegularFile(file) || !Arrays.equals(Files.readAllBytes(file), bytes);
    }

    /** In a folder that is everybody's, another user may have made ours first, to put a library of his into it. */
    private static void requireOwn(Path root) throws IOException {
        Path mine = Files.createTempFile(root, "owner", ".tmp");
        try {
            Object uid = Files.getAttribute(mine, "unix:uid");
            Object owner = Files.getAttribute(root, "unix:uid", LinkOption.NOFOLLOW_LINKS);
            Set<PosixFilePermission> permissions = Files.getPosixFilePermissions(root, LinkOption.NOFOLLOW_LINKS);
            if (!uid.equals(owner)
                    || !PosixFilePermissions.toString(permissions).equals("rwx------")) {
                throw new IOException(root + " belongs to user " + owner + " with the permissions "
                        + PosixFilePermissions.toString(permissions) + ", expected user " + uid + " and rwx------");
            }
        } finally {
            Files.deleteIfExists(mine);
        }
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

    private static String sha256(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError(e); // every Java platform has it
        }
    }
}
