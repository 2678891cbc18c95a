package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** The C compiler of the machine, for tests that need one, and processes. */
final class CCompiler {
    private CCompiler() {}

    /** Compiles a source text; the test is skipped where there is no C compiler. */
    static Path compile(Path output, String source, String... options) throws IOException, InterruptedException {
        assumeTrue(
                Arrays.stream(System.getenv("PATH").split(File.pathSeparator))
                        .anyMatch(folder -> Files.isExecutable(Path.of(folder, "cc"))),
                "no cc in PATH");
        Path file = Files.writeString(output.resolveSibling(output.getFileName() + ".c"), source);
        List<String> command = new ArrayList<>(List.of("cc", "-o", output.toString(), file.toString()));
        command.addAll(List.of(options));
        run(Map.of(), command);
        return output;
    }

    /** Runs a command that must succeed and returns what it printed, errors included. */
    static String run(Map<String, String> environment, List<String> command) throws IOException, InterruptedException {
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().putAll(environment);
        Process process = builder.start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as("%s: %s", command, output).isZero();
        return output;
    }
}
