package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.symbols.NativeSymbols;
import java.io.File;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * Finds and loads the native library, once:
 *
 * <ol>
 *   <li>{@code -Dlora4j.native.path=<file or folder>}; set but wrong fails;
 *   <li>the jar resource {@code META-INF/native/<os>-<arch>/}, extracted to a cache (see {@link NativeCache});
 *   <li>{@code java.library.path}.
 * </ol>
 *
 * The resource {@code liblora4j_cuda.so}, where the jar has it, is extracted beside the second one when a GPU is first opened.
 *
 * <p>Then its ABI version is compared with the one of the bindings. Whatever goes wrong is an {@link UnsatisfiedLinkError} that says
 * what to do, and says it again at the next attempt. The library is mapped once for the process, stays until its end, and serves
 * these classes in any number of class loaders.
 */
final class NativeLibrary {
    static final String PATH_PROPERTY = "lora4j.native.path";

    private static final String NAME = "lora4j";
    private static final String FILE_NAME = System.mapLibraryName(NAME);
    private static final List<String> PLATFORMS = List.of("linux-x86_64", "linux-aarch64");
    private static final System.Logger LOG = System.getLogger(NativeLibrary.class.getName());

    private static @Nullable LibraryInfo loaded;
    private static @Nullable Path extracted; // from a jar
    private static @Nullable String failure;

    private NativeLibrary() {}

    /** Loads the library unless it is loaded, and returns what was loaded. */
    static synchronized LibraryInfo load() {
        if (loaded != null) {
            return loaded;
        }
        if (failure != null) {
            throw error(failure);
        }
        try {
            String path = find();
            checkAbi(path);
            LibraryInfo info = new LibraryInfo(path, LoraNative.l4j_build_info().getString(0));
            LOG.log(Level.DEBUG, () -> "loaded " + info.path() + ": " + info.build());
            loaded = info;
            return info;
        } catch (UnsatisfiedLinkError e) {
            failure = e.getMessage();
            throw e;
        }
    }

    /** Loads the first library of the look-up order and returns where it came from. */
    private static String find() {
        String override = System.getProperty(PATH_PROPERTY);
        if (override != null) {
            return loadFile(overridden(override));
        }
        String platform = platform();
        if (!PLATFORMS.contains(platform)) {
            throw error("lora4j has no native library for " + platform + ", only for " + String.join(", ", PLATFORMS)
                    + ". If you built one, name it with -D" + PATH_PROPERTY + "=<file>");
        }
        String name = resourceName(platform, FILE_NAME);
        URL resource = NativeLibrary.class.getClassLoader().getResource(name);
        return resource != null ? loadFromJar(resource) : loadFromLibraryPath(platform, name);
    }

    /** Loads the library and puts the jar's CUDA library, if it has one, where this one looks for it. */
    static synchronized void loadForCuda() {
        load();
        String given = System.getenv("LORA4J_CUDA_LIBRARY");
        String fileName = System.mapLibraryName(NAME + "_cuda");
        URL resource = extracted == null || (given != null && !given.isEmpty())
                ? null
                : NativeLibrary.class.getClassLoader().getResource(resourceName(platform(), fileName));
        if (resource != null && extracted != null) {
            try {
                NativeCache.extractBeside(resource, fileName, extracted);
            } catch (IOException e) {
                throw error("cannot extract " + resource + " beside " + extracted + ": " + e + NativeCache.ADVICE);
            }
        }
    }

    private static String resourceName(String platform, String fileName) {
        return "META-INF/native/" + platform + "/" + fileName;
    }

    private static Path overridden(String override) {
        Path path = Path.of(override);
        Path file = Files.isDirectory(path) ? path.resolve(FILE_NAME) : path;
        if (!Files.isRegularFile(file)) {
            throw error("-D" + PATH_PROPERTY + "=" + override + ": no file " + file + ". Give the path of " + FILE_NAME
                    + " or of the folder that holds it, or leave the property out");
        }
        return file;
    }

    /** Extracts the library to the first folder where it can be written and mapped. */
    private static String loadFromJar(URL resource) {
        List<String> failures = new ArrayList<>();
        for (Path root : NativeCache.roots()) {
            try {
                Path file = NativeCache.extract(resource, FILE_NAME, root);
                String path = loadFile(file);
                extracted = file;
                return path;
            } catch (IOException e) {
                failures.add("cannot extract " + resource + " to " + root + ": " + e);
            } catch (UnsatisfiedLinkError e) {
                failures.add(e.getMessage());
            }
        }
        throw error(String.join("; ", failures) + NativeCache.ADVICE);
    }

    @SuppressWarnings("restricted")
    private static String loadFile(Path file) {
        Path absolute = file.toAbsolutePath();
        try {
            NativeSymbols.use(SymbolLookup.libraryLookup(absolute, Arena.global()));
            return file.toString();
        } catch (IllegalCallerException e) {
            throw nativeAccess(e);
        } catch (IllegalArgumentException e) {
            throw error("cannot load " + file + ": " + reason(absolute), e);
        }
    }

    /** Asks System.load why a library cannot be mapped: a look-up says only that it cannot. */
    @SuppressWarnings("restricted")
    private static String reason(Path file) {
        try {
            System.load(file.toString());
            return "it cannot be mapped";
        } catch (UnsatisfiedLinkError e) {
            return String.valueOf(e.getMessage()).replace(file + ": ", "");
        }
    }

    private static String loadFromLibraryPath(String platform, String resource) {
        String folders = System.getProperty("java.library.path", "");
        for (String folder : folders.split(File.pathSeparator)) {
            Path file = Path.of(folder, FILE_NAME); // an empty entry is the current folder, as for System.loadLibrary
            if (Files.isRegularFile(file)) {
                return loadFile(file);
            }
        }
        throw error("no native library: there is no resource " + resource + " and no " + FILE_NAME
                + " in java.library.path (" + folders
                + "). Add the dependency io.lora4j:lora4j-native with the classifier "
                + platform
                + (NativeLibrary.class.getModule().isNamed()
                        ? ", on the module path with --add-modules io.lora4j.natives." + platform.replace('-', '.')
                        : "")
                + ", or name the file with -D" + PATH_PROPERTY + "=<file>");
    }

    private static void checkAbi(String path) {
        int found;
        try {
            found = LoraNative.l4j_abi_version();
        } catch (ExceptionInInitializerError e) {
            if (e.getCause() instanceof IllegalCallerException cause) {
                throw nativeAccess(cause);
            }
            throw error(path + " is not a native library of lora4j: it has no symbol l4j_abi_version", e);
        } catch (IllegalCallerException e) {
            throw nativeAccess(e);
        }
        int expected = LoraNative.L4J_ABI_VERSION();
        if (!compatible(found, expected)) {
            throw error(
                    "the native library " + path + " has the ABI version " + abi(found) + ", but these classes need "
                            + abi(expected) + ". Use the lora4j-native of the same release as lora4j-kernels");
        }
    }

    /** While the major version is 0 every change may break; from 1 on a library may know more than the bindings. */
    static boolean compatible(int found, int expected) {
        boolean sameMajor = found / 1000 == expected / 1000;
        return expected < 1000 ? found == expected : sameMajor && found >= expected;
    }

    private static String abi(int version) {
        return version / 1000 + "." + version % 1000;
    }

    private static UnsatisfiedLinkError nativeAccess(Throwable cause) {
        Module module = NativeLibrary.class.getModule();
        String who = module.isNamed() ? module.getName() : "ALL-UNNAMED";
        return error(
                "lora4j may not load its native library: add --enable-native-access=" + who + " to the options of java",
                cause);
    }

    /** Returns os and arch as the resources are named, such as linux-x86_64. */
    private static String platform() {
        String os = System.getProperty("os.name").toLowerCase(Locale.ROOT);
        String arch = System.getProperty("os.arch");
        String family = os.startsWith("linux")
                ? "linux"
                : os.startsWith("mac") ? "osx" : os.startsWith("windows") ? "windows" : os;
        return family + "-" + (arch.equals("amd64") ? "x86_64" : arch);
    }

    private static UnsatisfiedLinkError error(String message) {
        return new UnsatisfiedLinkError(message);
    }

    private static UnsatisfiedLinkError error(String message, Throwable cause) {
        UnsatisfiedLinkError error = error(message);
        error.initCause(cause);
        return error;
    }
}
