package io.lora4j.examples;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.lora4j.examples.Programs.Result;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A user's Maven project with one dependency, built outside of the tree from a local repository that holds this build's jars, and
 * run where users run programs.
 */
class ConsumerTest {
    private static final String VERSION = System.getProperty("lora4j.version");

    @TempDir
    private static Path project;

    private static String classPath;
    private static Path rows;

    @TempDir
    private Path dir;

    private Path home;
    private Path temporary;

    @BeforeAll
    static void build() throws Exception {
        Path source = Programs.ROOT.resolve("java/examples/src/test/consumer");
        try (Stream<Path> files = Files.walk(source)) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                Path copy = project.resolve(source.relativize(file));
                Files.createDirectories(copy.getParent());
                Files.copy(file, copy);
            }
        }
        rows = Programs.rows(project);
        Path repository = repository();
        List<String> command = List.of(
                Path.of(System.getProperty("maven.home"), "bin", "mvn").toString(),
                "--offline",
                "--batch-mode",
                "-Dmaven.repo.local=" + repository,
                // Other people's artifacts from where this build has them.
                "-Dmaven.repo.local.tail=" + System.getProperty("maven.repo.local"),
                "-Dmaven.repo.local.tail.ignoreAvailability=true",
                "-Dlora4j.version=" + VERSION,
                "compile",
                "exec:exec",
                "-Dexec.executable=" + Path.of(System.getProperty("java.home"), "bin", "java"),
                "-Dexec.args=--enable-native-access=ALL-UNNAMED -Dlora4j.cache=" + project.resolve("cache")
                        + " -cp %classpath consumer.Train " + Programs.TINY + " " + rows + " "
                        + project.resolve("out"));
        Map<String, String> environment = Map.of("JAVA_HOME", System.getProperty("java.home"));
        String output = Programs.run(environment, project, command).succeeded();
        assertThat(output).contains("unnamed module").contains(" did 2 steps with " + project.resolve("cache"));
        classPath = output.lines()
                .filter(line -> line.startsWith("class path "))
                .findFirst()
                .orElseThrow()
                .substring("class path ".length());
        assertThat(classPath)
                .contains(repository.resolve("io/lora4j/lora4j-kernels").toString());
    }

    /** What {@code mvnw install} puts into a repository, laid out in a new one. */
    private static Path repository() throws IOException {
        Path repository = project.resolve("repository");
        put(repository, "lora4j-parent", Programs.ROOT);
        put(repository, "lora4j-native", Programs.ROOT.resolve("native"));
        for (String module : List.of("kernels", "formats", "train")) {
            put(repository, "lora4j-" + module, Programs.ROOT.resolve("java").resolve(module));
        }
        return repository;
    }

    private static void put(Path repository, String artifact, Path module) throws IOException {
        String name = artifact + "-" + VERSION;
        Path folder = Files.createDirectories(
                repository.resolve("io/lora4j").resolve(artifact).resolve(VERSION));
        Files.copy(module.resolve("pom.xml"), folder.resolve(name + ".pom"));
        Path target = module.resolve("target");
        if (!artifact.endsWith("-parent")) {
            try (Stream<Path> jars = Files.list(target)) {
                List<Path> built = jars.filter(
                                jar -> jar.getFileName().toString().startsWith(name)
                                        && jar.toString().endsWith(".jar"))
                        .toList();
                assertThat(built).as("jars in %s", target).isNotEmpty();
                for (Path jar : built) {
                    Files.copy(jar, folder.resolve(jar.getFileName()));
                }
            }
        }
    }

    @BeforeEach
    void folders() throws IOException {
        home = Files.createDirectory(dir.resolve("home"));
        temporary = Files.createDirectory(dir.resolve("tmp"));
    }

    @Test
    void onlyWhatIsNeededAtRunTime() {
        List<String> jars = Arrays.stream(classPath.split(File.pathSeparator))
                .map(entry -> Path.of(entry).getFileName().toString())
                .filter(name -> name.endsWith(".jar"))
                .toList();
        assertThat(jars)
                .contains("lora4j-train-" + VERSION + ".jar")
                .anyMatch(name -> name.startsWith("lora4j-native-" + VERSION + "-linux-"))
                .noneMatch(name -> name.matches("(jspecify|junit|assertj|archunit|javacpp|openblas|slf4j-simple).*"));
    }

    @Test
    void onTheModulePath() throws Exception {
        List<String> options = new ArrayList<>(places(home, temporary));
        options.addAll(List.of(
                "--enable-native-access=io.lora4j.kernels",
                "--illegal-native-access=deny",
                "--enable-native-access=ai.djl.tokenizers",
                "-p",
                classPath,
                "-m",
                "consumer/consumer.Train"));
        assertThat(run(List.of(), options, arguments()).succeeded())
                .contains("module consumer did 2 steps with " + home.resolve(".cache/lora4j"));
    }

    @Test
    void withAHomeThatIsReadOnly() throws Exception {
        List<String> mounted = mounted("ro", home);
        assertThat(run(mounted, unnamed(places(home, temporary), "consumer.Train"), arguments())
                        .succeeded())
                .contains(" did 2 steps with " + temporary.resolve("lora4j-"));
    }

    @Test
    void whereNothingMayBeExecuted() throws Exception {
        Files.delete(home);
        Path mount = temporary;
        List<String> mounted = mounted("noexec", mount);
        List<String> places = new ArrayList<>(places(mount, mount));
        Result tokenizers = run(mounted, unnamed(places, "consumer.Train"), arguments());
        assertThat(tokenizers.status()).isNotZero();
        assertThat(tokenizers.output())
                .contains("the tokenizers library cannot be loaded")
                .contains("-DDJL_CACHE_DIR=");

        places.add("-DDJL_CACHE_DIR=" + dir.resolve("djl"));
        Result kernels = run(mounted, unnamed(places, "consumer.Train"), arguments());
        assertThat(kernels.status()).isNotZero();
        assertThat(kernels.output()).contains("failed to map segment").contains("-Dlora4j.cache=<folder>");

        places.add("-Dlora4j.cache=" + dir.resolve("cache"));
        assertThat(run(mounted, unnamed(places, "consumer.Train"), arguments()).succeeded())
                .contains(" did 2 steps with " + dir.resolve("cache"));
    }

    @Test
    void inTwoClassLoadersAtOnce() throws Exception {
        List<String> command = unnamed(places(home, temporary), "consumer.Loaders");
        List<String> shared = new ArrayList<>(List.of("libraries"));
        shared.addAll(arguments());
        assertThat(run(List.of(), command, shared).succeeded()).contains("2 of 2 loaders trained");
        assertThat(Programs.sha256(dir.resolve("out0/adapter_model.safetensors")))
                .isEqualTo(Programs.sha256(dir.resolve("out1/adapter_model.safetensors")));

        List<String> apart = List.of("nothing", Programs.TINY.toString(), rows.toString(), dir + "/apart");
        assertThat(run(List.of(), command, apart).succeeded())
                .contains("1 of 2 loaders trained")
                .contains("give the loaders that use it a common parent with ai.djl.huggingface:tokenizers");
    }

    // --------------------------------------------------------------------------------------------------------- helpers

    private static List<String> places(Path home, Path temporary) {
        return List.of("-Duser.home=" + home, "-Djava.io.tmpdir=" + temporary);
    }

    private static List<String> unnamed(List<String> places, String main) {
        List<String> options = new ArrayList<>(places);
        options.addAll(List.of("--enable-native-access=ALL-UNNAMED", "-cp", classPath, main));
        return options;
    }

    private List<String> arguments() {
        return List.of(
                Programs.TINY.toString(), rows.toString(), dir.resolve("out").toString());
    }

    private Result run(List<String> prefix, List<String> options, List<String> arguments) throws Exception {
        List<String> command = new ArrayList<>(prefix);
        command.addAll(Programs.java(options, arguments.toArray()));
        Map<String, String> environment = Map.of("XDG_CACHE_HOME", "");
        return Programs.run(environment, dir, command);
    }

    /** Returns the beginning of a command that sees an empty folder mounted with an option. */
    private List<String> mounted(String option, Path folder) throws Exception {
        List<String> command = new ArrayList<>(List.of("unshare", "--map-root-user", "--mount", "sh", "-c"));
        String mount = "mount -t tmpfs -o " + option + " none " + folder;
        List<String> trial = new ArrayList<>(command);
        trial.add(mount);
        boolean works;
        try {
            works = new ProcessBuilder(trial).start().waitFor() == 0;
        } catch (IOException e) {
            works = false; // there is no unshare
        }
        assumeTrue(works, "mounting a folder needs root or user namespaces");
        command.addAll(List.of(mount + " && exec \"$@\"", "sh"));
        return command;
    }
}
