package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AtomicDirectoryTest {
    @TempDir
    Path dir;

    private List<String> names() throws IOException {
        try (Stream<Path> files = Files.list(dir)) {
            return files.map(f -> f.getFileName().toString()).sorted().toList();
        }
    }

    private static void fill(Path directory, String text) throws IOException {
        AtomicFile.write(directory.resolve("a"), text.getBytes(java.nio.charset.StandardCharsets.UTF_8));
        Files.createDirectory(directory.resolve("sub"));
        AtomicFile.write(directory.resolve("sub/b"), new byte[] {1});
    }

    @Test
    void appearsWholeAndIsReplacedWhole() throws IOException {
        Path target = dir.resolve("deep/er");
        AtomicDirectory.write(target, d -> fill(d, "one"));
        Files.createFile(target.resolve("stray"));
        AtomicDirectory.write(target, d -> fill(d, "two"));
        assertThat(target.resolve("a")).hasContent("two");
        assertThat(target.resolve("stray")).doesNotExist();
        AtomicDirectory.delete(target);
        assertThat(dir.resolve("deep")).isEmptyDirectory();
    }

    @Test
    void aFailureLeavesTheOldOneAndNothingElse() throws IOException {
        Path target = dir.resolve("t");
        AtomicDirectory.write(target, d -> fill(d, "one"));
        assertThatThrownBy(() -> AtomicDirectory.write(target, d -> {
                    fill(d, "two");
                    throw new IOException("No space left on device");
                }))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("no space left on its file system");
        assertThatThrownBy(() -> AtomicDirectory.write(target, d -> {
                    throw new IllegalStateException("bug");
                }))
                .hasMessage("bug");
        assertThat(target.resolve("a")).hasContent("one");
        assertThat(names()).containsExactly("t");
    }

    @Test
    void cleansOnlyWhatAKilledProcessLeft() throws IOException {
        Path left = AtomicFile.temporary(dir.resolve("t").toAbsolutePath());
        Files.createDirectory(left);
        fill(left, "half");
        Files.createFile(AtomicFile.temporary(dir.resolve("f").toAbsolutePath()));
        Files.createFile(dir.resolve(".hidden"));
        Files.createFile(dir.resolve("name.tmp-12"));
        AtomicDirectory.clean(dir);
        assertThat(names()).containsExactly(".hidden", "name.tmp-12");
    }
}
