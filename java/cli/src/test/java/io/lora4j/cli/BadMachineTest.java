package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What machines and installations do wrong: libraries, memory, disks. */
class BadMachineTest {
    @TempDir
    Path dir;

    @Test
    void nativeLibraryMissing() throws Exception {
        Cli.Result result = Cli.process(
                dir,
                List.of("-Dlora4j.native.path=" + dir.resolve("none")),
                "eval",
                "--model",
                Cli.TINY,
                "--data",
                Cli.data(dir));
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err())
                .contains("lora4j: -Dlora4j.native.path=" + dir.resolve("none") + ": no file")
                .contains("Give the path of liblora4j.so")
                .doesNotContain("\tat ");
    }

    @Test
    void nativeLibraryOfAnotherAbi() throws Exception {
        Path source = Files.writeString(dir.resolve("abi.c"), "unsigned l4j_abi_version(void) { return 99001; }\n");
        Path library = dir.resolve("liblora4j.so");
        assumeTrue(
                Arrays.stream(System.getenv("PATH").split(":")).anyMatch(p -> Files.isExecutable(Path.of(p, "cc"))),
                "no cc in PATH");
        assertThat(new ProcessBuilder("cc", "-shared", "-fPIC", "-o", library.toString(), source.toString())
                        .start()
                        .waitFor())
                .isZero();
        Cli.Result result = Cli.process(dir, List.of("-Dlora4j.native.path=" + library), "doctor");
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.out()).contains(library + " has the ABI version 99.1, but these classes need");
    }

    @Test
    void javaHeapTooSmall() throws Exception {
        Path data = dir.resolve("big.jsonl");
        Files.writeString(data, "{\"text\": \"one day a cat sat down\"}\n".repeat(400_000));
        Cli.Result result = Cli.process(
                dir,
                List.of("-Xmx32m"),
                "train",
                "--model",
                Cli.TINY,
                "--data",
                data,
                "--output_dir",
                dir.resolve("out"));
        assertThat(result.status()).as(result.err()).isEqualTo(1);
        assertThat(result.err()).contains("lora4j: out of memory", "LORA4J_JAVA_OPTS=-Xmx");
        assertThat(dir.resolve("out")).doesNotExist();
    }

    @Test
    void noSpaceLeft() throws Exception {
        Path mount = Files.createDirectory(dir.resolve("mount"));
        assumeTrue(command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount), "mounting needs root");
        try {
            Object[] train = Cli.train(
                    Cli.data(dir), mount.resolve("out"), "--max_steps", 4, "--save_steps", 1, "--resume", true);
            Cli.Result full = Cli.run(train);
            assertThat(full.status()).isEqualTo(1);
            assertThat(full.err()).contains("no space left on its file system", "free some space");
            assertThat(mount.resolve("out/adapter_model.safetensors")).doesNotExist();

            assertThat(command("mount", "-o", "remount,size=64m", mount)).isTrue();
            Cli.Result more = Cli.run(train);
            assertThat(more.status()).as(more.err()).isZero();
            assertThat(more.err()).contains("goes on from " + mount.resolve("out/checkpoint-1"));
        } finally {
            assertThat(command("umount", mount)).isTrue();
        }
    }

    @Test
    void outputThatCannotBeWritten() throws Exception {
        Path full = Path.of("/dev/full");
        assumeTrue(Files.isWritable(full), "no /dev/full");
        Path err = dir.resolve("err");
        Process process = new ProcessBuilder(Cli.command(List.of(), "inspect", Cli.TINY, "--json"))
                .redirectOutput(full.toFile())
                .redirectError(err.toFile())
                .start();
        assertThat(Cli.waitFor(process)).isEqualTo(1);
        assertThat(Files.readString(err)).contains("lora4j: standard output: No space left on device");
    }

    private static boolean command(Object... words) throws InterruptedException {
        try {
            return new ProcessBuilder(Stream.of(words).map(Object::toString).toList())
                            .start()
                            .waitFor()
                    == 0;
        } catch (IOException e) {
            return false; // There is no such command.
        }
    }
}
