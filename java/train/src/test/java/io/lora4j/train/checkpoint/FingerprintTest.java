package io.lora4j.train.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FingerprintTest {
    private static final Path MODEL =
            Path.of(System.getProperty("lora4j.root"), "test-data", "tiny-llama", "model.safetensors");

    @TempDir
    Path dir;

    @Test
    void hashIsThatOfTheWholeFile() throws Exception {
        assertThat(Fingerprint.of(MODEL).sha256()).isEqualTo(Sha256.of(MODEL));
        Path text = Files.writeString(dir.resolve("a.txt"), "abc");
        assertThat(Fingerprint.of(text).sha256()).isEqualTo(Sha256.of(text));
        assertThat(Fingerprint.of(text).parts()).isEmpty();
    }

    @Test
    void linesAreNamed() throws Exception {
        Path file = Files.writeString(dir.resolve("a.jsonl"), "one\ntwo\nthree");
        Fingerprint before = Fingerprint.of(file);
        assertThat(before.parts()).extracting(Fingerprint.Part::name).containsExactly("line 1", "line 2", "line 3");
        assertThat(before.differenceOf(file, false)).isEmpty();
        Files.writeString(file, "one\ntwi\nthree");
        assertThat(before.differenceOf(file, false).orElseThrow()).startsWith("has changed in line 2: sha256 was ");
        Files.writeString(file, "one\ntwo\nthree\nfour");
        assertThat(before.differenceOf(file, false).orElseThrow())
                .startsWith("has changed: sha256 was ")
                .endsWith("it had 13 bytes, has 18");
        assertThat(before.differenceOf(file, true)).isEmpty();
        Files.writeString(file, "one\n");
        assertThat(before.differenceOf(file, false).orElseThrow()).startsWith("has changed in line 2, line 3: ");
        Files.delete(file);
        assertThat(before.differenceOf(file, false)).contains("is missing");
        Files.writeString(file, "");
        assertThat(Fingerprint.of(file).differenceOf(file, false)).isEmpty();
    }

    @Test
    void manyLinesAreNamedTogether() throws Exception {
        Path file = Files.writeString(dir.resolve("a.jsonl"), "x\n".repeat(3000));
        Fingerprint before = Fingerprint.of(file);
        assertThat(before.parts()).hasSize(1000);
        Files.writeString(file, "x\n".repeat(1500) + "y\n" + "x\n".repeat(1499));
        assertThat(before.differenceOf(file, false).orElseThrow()).startsWith("has changed in lines 1501 to 1503: ");
    }

    @Test
    void tensorsAreNamed() throws Exception {
        Path file = Files.copy(MODEL, dir.resolve("model.safetensors"));
        Fingerprint before = Fingerprint.of(file);
        assertThat(before.parts().getFirst().name()).isEqualTo("the header");
        byte[] bytes = Files.readAllBytes(file);
        bytes[bytes.length - 1] ^= 1;
        Files.write(file, bytes, StandardOpenOption.TRUNCATE_EXISTING);
        assertThat(before.differenceOf(file, false).orElseThrow())
                .startsWith("has changed in " + before.parts().getLast().name() + ": ");
        bytes[bytes.length - 1] ^= 1;
        bytes[0] ^= 1;
        Files.write(file, bytes, StandardOpenOption.TRUNCATE_EXISTING);
        assertThat(before.differenceOf(file, false).orElseThrow()).startsWith("has changed in the header: ");
    }
}
