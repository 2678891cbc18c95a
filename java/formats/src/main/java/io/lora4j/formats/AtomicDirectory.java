package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Makes and removes a directory whole or not at all, whatever interrupts it: it is filled under a hidden name beside its place
 * and renamed when every file is on the disk; to be removed it is renamed first. What a killed process leaves behind has a
 * hidden name and goes with {@link #clean}. Replacing removes the old directory just before the new one takes its name.
 */
public final class AtomicDirectory {
    private static final String MARK = ".tmp-";

    private AtomicDirectory() {}

    /** Fills the directory. */
    @FunctionalInterface
    public interface Body {
        /** Writes the files, each flushed to the disk as {@link AtomicFile} does. */
        void writeTo(Path directory) throws IOException;
    }

    /**
     * Makes {@code target}, or replaces it.
     *
     * @throws FormatException if the disk is full
     */
    public static void write(Path target, Body body) throws IOException {
        Path absolute = target.toAbsolutePath().normalize();
        Path parent = AtomicFile.directory(absolute);
        Path temp = AtomicFile.temporary(absolute);
        try {
            Files.createDirectories(parent);
            Files.createDirectory(temp);
            body.writeTo(temp);
            AtomicFile.sync(temp);
            if (Files.exists(absolute)) {
                delete(absolute);
            }
            Files.move(temp, absolute, StandardCopyOption.ATOMIC_MOVE);
            AtomicFile.sync(parent);
        } catch (IOException e) {
            deleteTree(temp);
            throw AtomicFile.explain(target, e);
        } catch (RuntimeException e) {
            deleteTree(temp);
            throw e;
        }
    }

    /** Removes a directory and all that is in it. */
    public static void delete(Path target) throws IOException {
        Path absolute = target.toAbsolutePath().normalize();
        Path hidden = AtomicFile.temporary(absolute);
        Files.move(absolute, hidden, StandardCopyOption.ATOMIC_MOVE);
        AtomicFile.sync(AtomicFile.directory(absolute));
        deleteTree(hidden);
    }

    /** Removes what an interrupted process left in {@code parent}: the temporary files and directories of this package. */
    public static void clean(Path parent) throws IOException {
        List<Path> stale = new ArrayList<>();
        try (Stream<Path> entries = Files.list(parent)) {
            entries.filter(entry ->
                            entry.getFileName().toString().matches("\\..+\\Q" + MARK + "\\E[0-9a-f]+(\\.gguf)?"))
                    .forEach(stale::add);
        }
        for (Path entry : stale) {
            deleteTree(entry);
        }
    }

    private static void deleteTree(Path root) throws IOException {
        try {
            Files.walkFileTree(root, new SimpleFileVisitor<>() {
                @Override
                public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
                    Files.delete(file);
                    return FileVisitResult.CONTINUE;
                }

                @Override
                public FileVisitResult postVisitDirectory(Path directory, @Nullable IOException failure)
                        throws IOException {
                    Files.delete(directory);
                    return FileVisitResult.CONTINUE;
                }
            });
        } catch (NoSuchFileException e) {
            return; // It was never made.
        }
    }
}
