package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Each look-up and each failure, in a process of its own, as a user meets it. */
class NativeLibraryTest {
    private static final String RESOURCE = "META-INF/native/linux-x86_64/liblora4j.so";

    @TempDir
    private Path folder;

    private final List<Path> classPath = new ArrayList<>();

    @BeforeEach
    void classes() {
        classPath.add(location(NativeLibrary.class));
        classPath.add(location(LoadProbe.class));
    }

    @Test
    void thePathMayBeAFileOrAFolder() throws Exception {
        Path library = library();
        assertThat(probe("-Dlora4j.native.path=" + library)).isEqualTo("loaded " + library);
        assertThat(probe("-Dlora4j.native.path=" + library.getParent())).isEqualTo("loaded " + library);
    }

    @Test
    void aWrongPathFailsAlthoughThereIsAJar() throws Exception {
        classPath.add(jar());
        Path missing = folder.resolve("nowhere");
        assertThat(probe("-Dlora4j.native.path=" + missing))
                .startsWith("failed -Dlora4j.native.path=" + missing + ": no file " + missing + ".");
        assertThat(probe("-Dlora4j.native.path=" + folder))
                .startsWith("failed -Dlora4j.native.path=" + folder + ": no file " + folder.resolve("liblora4j.so"));
    }

    @Test
    void aFileThatIsNoLibrary() throws Exception {
        Path text = Files.writeString(folder.resolve("liblora4j.so"), "not an ELF file");
        assertThat(probe("-Dlora4j.native.path=" + text)).isEqualTo("failed cannot load " + text + ": file too short");
    }

    @Test
    void aLibraryOfSomethingElse() throws Exception {
        Path other = CCompiler.compile(folder.resolve("liblora4j.so"), "int other;", "-shared", "-fPIC");
        assertThat(probe("-Dlora4j.native.path=" + other))
                .isEqualTo("failed " + other + " is not a native library of lora4j: it has no symbol l4j_abi_version");
    }

    @Test
    void aLibraryOfAnotherRelease() throws Exception {
        Path newer = CCompiler.compile(
                folder.resolve("liblora4j.so"), "unsigned l4j_abi_version(void) { return 99001; }", "-shared", "-fPIC");
        assertThat(probe("-Dlora4j.native.path=" + newer))
                .startsWith(
                        "failed the native library " + newer + " has the ABI version 99.1, but these classes need ");
    }

    @ParameterizedTest
    @CsvSource({"1, 1, true", "2, 1, false", "1, 2, false", "1001, 1, false"})
    @CsvSource({"1003, 1003, true", "1004, 1003, true", "1002, 1003, false", "2003, 1003, false", "3, 1003, false"})
    void compatibleVersions(int found, int expected, boolean compatible) {
        assertThat(NativeLibrary.compatible(found, expected)).isEqualTo(compatible);
    }

    @Test
    void theJarsLibraryIsExtractedOnceAndVerified() throws Exception {
        classPath.add(jar());
        Path cache = folder.resolve("cache");
        String first = probe("-Dlora4j.cache=" + cache);
        assertThat(first).startsWith("loaded " + cache.resolve("native"));
        Path extracted = Path.of(first.substring("loaded ".length()));
        assertThat(extracted).hasSameBinaryContentAs(library());
        assertThat(extracted.getParent().getFileName().toString()).matches("abi-\\d+\\.\\d+-[0-9a-f]{64}");
        assertThat(Files.getPosixFilePermissions(extracted.getParent())).hasSize(3);

        FileTime then = FileTime.fromMillis(1_000_000_000_000L);
        Files.setLastModifiedTime(extracted, then);
        assertThat(probe("-Dlora4j.cache=" + cache)).isEqualTo(first);
        assertThat(Files.getLastModifiedTime(extracted)).as("used as it is").isEqualTo(then);

        Files.write(extracted, new byte[100]);
        assertThat(probe("-Dlora4j.cache=" + cache)).isEqualTo(first);
        assertThat(extracted).as("replaced").hasSameBinaryContentAs(library());
        try (Stream<Path> files = Files.list(extracted.getParent())) {
            assertThat(files).as("no temporary file is left").containsExactly(extracted);
        }
    }

    /** The file is made for this test and says only that it is of another release: so it was found and opened. */
    @Test
    void theJarsCudaLibraryIsExtractedWhenAGpuIsOpened() throws Exception {
        Path cuda = CCompiler.compile(
                folder.resolve("other.so"), "void *l4j_cuda_backend(void) { return 0; }", "-shared", "-fPIC");
        classPath.add(jar(Map.of(RESOURCE, library(), RESOURCE.replace("4j.so", "4j_cuda.so"), cuda)));
        Path cache = folder.resolve("cache");
        Map<String, String> environment = Map.of("LORA4J_CUDA_LIBRARY", "");
        String loaded = probe(environment, "-Dlora4j.cache=" + cache);
        Path extracted = Path.of(loaded.substring("loaded ".length())).resolveSibling("liblora4j_cuda.so");
        assertThat(extracted).as("not without being asked for").doesNotExist();

        assertThat(probe(environment, "-Dlora4j.cache=" + cache, "-Dprobe.cuda=true"))
                .startsWith("failed device_open: " + extracted + " is of release unknown, expected ");
        assertThat(extracted).hasSameBinaryContentAs(cuda);

        Files.delete(extracted);
        Map<String, String> named =
                Map.of("LORA4J_CUDA_LIBRARY", folder.resolve("mine.so").toString());
        assertThat(probe(named, "-Dlora4j.cache=" + cache, "-Dprobe.cuda=true"))
                .startsWith("failed device_open: the CUDA library cannot be opened: " + folder.resolve("mine.so"));
        assertThat(extracted).as("another one is named").doesNotExist();
    }

    @Test
    void theCacheFollowsTheXdgVariable() throws Exception {
        classPath.add(jar());
        Map<String, String> environment = Map.of("XDG_CACHE_HOME", folder.toString());
        assertThat(probe(environment)).startsWith("loaded " + folder.resolve("lora4j"));
    }

    @Test
    void aCacheThatCannotBeWritten() throws Exception {
        classPath.add(jar());
        Path file = Files.writeString(folder.resolve("file"), "");
        assertThat(probe("-Dlora4j.cache=" + file.resolve("cache")))
                .startsWith("failed cannot extract jar:")
                .contains(file.toString())
                .contains("-Dlora4j.cache=<folder>")
                .contains("-Dlora4j.native.path=<file>");
    }

    @Test
    void theLibraryPathComesLast() throws Exception {
        assertThat(probe("-Djava.library.path=" + folder + File.pathSeparator
                        + library().getParent()))
                .isEqualTo("loaded " + library());
    }

    @Test
    void noLibraryAtAll() throws Exception {
        assertThat(probe("-Djava.library.path=" + folder))
                .startsWith("failed no native library: there is no resource " + RESOURCE)
                .contains("io.lora4j:lora4j-native with the classifier linux-x86_64");
    }

    @Test
    void anUnsupportedPlatform() throws Exception {
        classPath.add(jar());
        String rest =
                ", only for linux-x86_64, linux-aarch64. If you built one, name it with -Dlora4j.native.path=<file>";
        assertThat(probe("-Dos.arch=pdp11")).isEqualTo("failed lora4j has no native library for linux-pdp11" + rest);
        assertThat(probe("-Dos.name=Mac OS X", "-Dos.arch=aarch64"))
                .isEqualTo("failed lora4j has no native library for osx-aarch64" + rest);
        assertThat(probe("-Dos.name=Windows 11"))
                .isEqualTo("failed lora4j has no native library for windows-x86_64" + rest);
    }

    @Test
    void theJarOfAnotherPlatform() throws Exception {
        classPath.add(jar());
        assertThat(probe("-Dos.arch=aarch64", "-Djava.library.path=" + folder))
                .startsWith("failed no native library: there is no resource META-INF/native/linux-aarch64/liblora4j.so")
                .contains("io.lora4j:lora4j-native with the classifier linux-aarch64");
    }

    @Test
    void aHomeThatCannotBeWritten() throws Exception {
        classPath.add(jar());
        Path home = Files.writeString(folder.resolve("home"), "");
        Path temporary = Files.createDirectory(folder.resolve("tmp"));
        String[] options = {"-Duser.home=" + home, "-Djava.io.tmpdir=" + temporary, "-Duser.name=somebody"};
        Path own = temporary.resolve("lora4j-somebody");
        assertThat(probe(options)).startsWith("loaded " + own.resolve("native"));
        assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(own)))
                .isEqualTo("rwx------");

        Files.setPosixFilePermissions(own, PosixFilePermissions.fromString("rwxrwxrwx"));
        assertThat(probe(options))
                .startsWith("failed cannot extract jar:")
                .contains(home.toString())
                .contains(own + " belongs to user ")
                .contains("with the permissions rwxrwxrwx, expected user ")
                .contains("-Dlora4j.cache=<folder>");
    }

    @Test
    void aCacheWhereNothingMayBeExecuted() throws Exception {
        classPath.add(jar());
        Path mount = Files.createDirectory(folder.resolve("noexec"));
        List<String> command = new ArrayList<>(List.of("unshare", "--map-root-user", "--mount", "sh", "-c"));
        assumeTrue(
                works(command, "mount -t tmpfs -o noexec none " + mount),
                "mounting a noexec folder needs root or user namespaces");
        command.addAll(List.of("mount -t tmpfs -o noexec none " + mount + " && exec \"$@\"", "sh"));
        String all = "-Djava.io.tmpdir=" + mount;
        assertThat(run(command, Map.of(), probing(all, "-Duser.home=" + mount)))
                .startsWith("failed cannot load " + mount.resolve(".cache/lora4j/native"))
                .contains("; cannot load " + mount.resolve("lora4j-"))
                .contains("failed to map segment from shared object")
                .contains("may not be mounted noexec: choose another folder with -Dlora4j.cache=<folder>")
                .contains("-Dlora4j.native.path=<file>");
        Path home = Files.createDirectory(folder.resolve("home"));
        assertThat(run(command, Map.of(), probing(all, "-Duser.home=" + home)))
                .startsWith("loaded " + home.resolve(".cache/lora4j/native"));
        assertThat(run(command, Map.of(), probing("-Djava.io.tmpdir=" + home, "-Duser.home=" + mount)))
                .as("a home that is noexec")
                .startsWith("loaded " + home.resolve("lora4j-"));
    }

    private static boolean works(List<String> prefix, String script) throws InterruptedException {
        List<String> command = new ArrayList<>(prefix);
        command.add(script);
        try {
            return new ProcessBuilder(command).start().waitFor() == 0;
        } catch (IOException e) {
            return false; // there is no unshare
        }
    }

    @Test
    void manyFirstStartsAtOnce() throws Exception {
        classPath.add(jar());
        Path cache = folder.resolve("cache");
        try (ExecutorService threads = Executors.newFixedThreadPool(6)) {
            List<Future<String>> starts = new ArrayList<>();
            for (int i = 0; i < 6; i++) {
                starts.add(threads.submit(() -> probe("-Dlora4j.cache=" + cache)));
            }
            for (Future<String> start : starts) {
                assertThat(start.get()).startsWith("loaded " + cache.resolve("native"));
            }
        }
        try (Stream<Path> files = Files.walk(cache)) {
            assertThat(files.filter(Files::isRegularFile))
                    .singleElement()
                    .satisfies(file -> assertThat(file).hasSameBinaryContentAs(library()));
        }
    }

    @Test
    void severalClassLoadersShareTheLibrary() throws Exception {
        classPath.add(jar());
        List<String> options = List.of("-Dlora4j.cache=" + folder, "-Dprobe.loaders=true");
        assertThat(probe(options.toArray(String[]::new))).startsWith("loaded " + folder.resolve("native"));
        assertThat(probe("-Dprobe.loaders=true", "-Dlora4j.native.path=" + library()))
                .isEqualTo("loaded " + library());
    }

    @Test
    void missingNativeAccess() throws Exception {
        String library = "-Dlora4j.native.path=" + library();
        assertThat(run(Map.of(), "--illegal-native-access=deny", library, "-cp", joined(), LoadProbe.class.getName()))
                .isEqualTo(
                        "failed lora4j may not load its native library: add --enable-native-access=ALL-UNNAMED to the"
                                + " options of java");

        List<String> modular = List.of(
                library,
                "--illegal-native-access=deny",
                "-p",
                location(NativeLibrary.class).toString(),
                "--patch-module",
                "io.lora4j.kernels=" + location(LoadProbe.class),
                "-m",
                "io.lora4j.kernels/" + LoadProbe.class.getName());
        assertThat(run(Map.of(), modular.toArray(String[]::new)))
                .isEqualTo(
                        "failed lora4j may not load its native library: add --enable-native-access=io.lora4j.kernels to"
                                + " the options of java");
        List<String> granted = new ArrayList<>(modular);
        granted.addFirst("--enable-native-access=io.lora4j.kernels");
        assertThat(run(Map.of(), granted.toArray(String[]::new))).isEqualTo("loaded " + library());
    }

    private String probe(String... options) throws IOException, InterruptedException {
        return probe(Map.of(), options);
    }

    private String probe(Map<String, String> environment, String... options) throws IOException, InterruptedException {
        return run(environment, probing(options));
    }

    private String[] probing(String... options) {
        List<String> command = new ArrayList<>(List.of(options));
        command.addAll(List.of("--enable-native-access=ALL-UNNAMED", "-cp", joined(), LoadProbe.class.getName()));
        return command.toArray(String[]::new);
    }

    private static String run(Map<String, String> environment, String... options)
            throws IOException, InterruptedException {
        return run(List.of(), environment, options);
    }

    /** Returns the one thing that the probe says twice. */
    private static String run(List<String> prefix, Map<String, String> environment, String... options)
            throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(prefix);
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.add("-XX:TieredStopAtLevel=1");
        command.addAll(List.of(options));
        List<String> lines = CCompiler.run(environment, command)
                .lines()
                .filter(line -> line.startsWith("loaded ") || line.startsWith("failed "))
                .toList();
        assertThat(lines).hasSize(2);
        assertThat(lines.get(1)).isEqualTo(lines.get(0));
        return lines.get(0);
    }

    private String joined() {
        return String.join(
                File.pathSeparator, classPath.stream().map(Path::toString).toList());
    }

    /** A jar like lora4j-native. */
    private Path jar() throws IOException {
        return jar(Map.of(RESOURCE, library()));
    }

    private Path jar(Map<String, Path> resources) throws IOException {
        Path jar = folder.resolve("lora4j-native.jar");
        try (OutputStream out = Files.newOutputStream(jar);
                ZipOutputStream zip = new ZipOutputStream(out)) {
            for (Map.Entry<String, Path> resource : resources.entrySet()) {
                zip.putNextEntry(new ZipEntry(resource.getKey()));
                Files.copy(resource.getValue(), zip);
            }
        }
        return jar;
    }

    private static Path library() {
        Path path = Path.of(System.getProperty("lora4j.native.path"));
        return Files.isDirectory(path) ? path.resolve("liblora4j.so") : path;
    }

    private static Path location(Class<?> type) {
        try {
            return Path.of(
                    type.getProtectionDomain().getCodeSource().getLocation().toURI());
        } catch (URISyntaxException e) {
            throw new AssertionError(e);
        }
    }
}
