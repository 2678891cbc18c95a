package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AtomicFileTest {
    @TempDir
    Path dir;

    private long entries() throws IOException {
        try (Stream<Path> files = Files.list(dir)) {
            return files.count();
        }
    }

    @Test
    void replacesTheFileAndLeavesNothingElse() throws IOException {
        Path file = dir.resolve("f");
        AtomicFile.write(file, new byte[] {1});
        AtomicFile.write(file, new byte[] {2, 3});
        assertThat(file).hasBinaryContent(new byte[] {2, 3});
        assertThat(entries()).isEqualTo(1);
    }

    @Test
    void aFailureHalfWayKeepsTheOldFile() throws IOException {
        Path file = dir.resolve("f");
        AtomicFile.write(file, new byte[] {1});
        assertThatThrownBy(() -> AtomicFile.write(file, channel -> {
                    AtomicFile.writeFully(channel, ByteBuffer.allocate(100));
                    throw new IOException("cable pulled");
                }))
                .hasMessage("cable pulled");
        assertThatThrownBy(() -> AtomicFile.write(file, channel -> {
                    throw new IllegalStateException("bug");
                }))
                .hasMessage("bug");
        assertThat(file).hasBinaryContent(new byte[] {1});
        assertThat(entries()).isEqualTo(1);
    }

    /** The kernel's own full device stands in for the temporary file, so that the error is the real one. */
    @Test
    void aFullDiskIsSaidPlainlyAndLeavesNoPartOfTheFile() throws IOException {
        Path full = Path.of("/dev/full");
        assumeTrue(Files.exists(full), "needs /dev/full");
        Path file = dir.resolve("model.safetensors");
        AtomicFile.write(file, new byte[] {1});
        AtomicFile.Opener opener = temp -> {
            Files.createFile(temp);
            return FileChannel.open(full, StandardOpenOption.WRITE);
        };
        assertThatThrownBy(() -> AtomicFile.write(
                        file, channel -> AtomicFile.writeFully(channel, ByteBuffer.allocate(1 << 16)), opener))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(file + ": no space left on its file system")
                .hasMessageContaining("bytes free")
                .hasMessageContaining("nothing was written");
        assertThat(file).hasBinaryContent(new byte[] {1});
        assertThat(entries()).isEqualTo(1);
    }

    @Test
    void namesAMissingDirectory() {
        assertThatThrownBy(() -> AtomicFile.write(dir.resolve("none/f"), new byte[1]))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("its directory does not exist");
    }
}
