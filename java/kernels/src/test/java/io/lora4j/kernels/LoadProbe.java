package io.lora4j.kernels;

import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Loads the native library in a process of its own and prints what came of it; twice, because a failure must be told again. With
 * {@code -Dprobe.loaders=true} each time in a class loader of its own, both of which stay; with {@code -Dprobe.cuda=true} by opening a GPU.
 */
public final class LoadProbe {
    private LoadProbe() {}

    public static void main(String[] args) throws Exception {
        List<Object> kept = new ArrayList<>();
        for (int attempt = 0; attempt < 2; attempt++) {
            if (Boolean.getBoolean("probe.loaders")) {
                URLClassLoader loader = new URLClassLoader(classPath(), ClassLoader.getPlatformClassLoader());
                kept.add(loader);
                loader.loadClass(LoadProbe.class.getName()).getMethod("load").invoke(null);
            } else {
                load();
            }
        }
    }

    /** Opens a device and a queue, which calls into the library. */
    public static void load() {
        boolean cuda = Boolean.getBoolean("probe.cuda");
        try (Device device = cuda ? Device.cuda(0) : Device.cpu();
                Queue queue = Queue.create(device, cuda ? 0 : 2)) {
            System.out.println("loaded " + Device.library().path() + (cuda || queue.threads() == 2 ? "" : " wrongly"));
        } catch (UnsatisfiedLinkError | Lora4jException e) {
            System.out.println("failed " + e.getMessage());
        }
    }

    private static URL[] classPath() throws Exception {
        List<URL> urls = new ArrayList<>();
        for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
            urls.add(Path.of(entry).toUri().toURL());
        }
        return urls.toArray(URL[]::new);
    }
}
