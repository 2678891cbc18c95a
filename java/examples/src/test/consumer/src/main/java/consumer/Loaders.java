package consumer;

import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Trains in two class loaders at once, as two applications of a server would: {@code Loaders WHAT MODEL DATA OUTPUT}. WHAT is
 * {@code nothing}, or {@code libraries} to have all jars but those of lora4j in a common parent.
 */
public final class Loaders {
    private Loaders() {}

    public static void main(String[] args) throws Exception {
        List<URL> shared = new ArrayList<>();
        List<URL> own = new ArrayList<>();
        for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
            Path path = Path.of(entry);
            String name = path.getFileName().toString();
            boolean library = name.endsWith(".jar") && !name.startsWith("lora4j-");
            (library && args[0].equals("libraries") ? shared : own).add(path.toUri().toURL());
        }
        URLClassLoader parent = new URLClassLoader(shared.toArray(URL[]::new), ClassLoader.getPlatformClassLoader());
        List<Throwable> failures = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            URLClassLoader loader = new URLClassLoader(own.toArray(URL[]::new), parent);
            String[] arguments = {args[1], args[2], args[3] + i};
            threads.add(Thread.ofPlatform().start(() -> {
                Thread.currentThread().setContextClassLoader(loader);
                try {
                    loader.loadClass("consumer.Train").getMethod("main", String[].class).invoke(null, (Object) arguments);
                } catch (ReflectiveOperationException e) {
                    synchronized (failures) {
                        failures.add(e.getCause());
                    }
                }
            }));
        }
        for (Thread thread : threads) {
            thread.join();
        }
        failures.forEach(failure -> System.out.println("failed " + failure.getMessage()));
        System.out.println(2 - failures.size() + " of 2 loaders trained");
    }
}
