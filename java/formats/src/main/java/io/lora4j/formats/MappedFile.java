package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** A whole file mapped read-only into a shared arena of its own. */
record MappedFile(Path path, MemorySegment bytes, Arena arena) implements AutoCloseable {

    @SuppressWarnings("MustBeClosed") // The record owns the arena and closes it.
    static MappedFile open(Path path) throws IOException {
        InputFile.require(path);
        Arena arena = Arena.ofShared();
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
            return new MappedFile(path, channel.map(MapMode.READ_ONLY, 0, channel.size(), arena), arena);
        } catch (NoSuchFileException e) {
            arena.close();
            throw new FormatException(path + ": no such file; check the path", e);
        } catch (IOException | RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    @Override
    public void close() {
        arena.close();
    }
}
