package io.lora4j.train;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;
import java.lang.management.MemoryUsage;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.OptionalLong;
import java.util.stream.Stream;

/** The physical memory of this process, as Linux counts it. Thread-safe. */
public final class ProcessMemory {
    private static final Path STATUS = Path.of("/proc/self/status");

    private ProcessMemory() {}

    /** Returns the most bytes that were resident at a time since the process began ({@code VmHWM}); nothing but on Linux. */
    public static OptionalLong peak() {
        return field(STATUS, "VmHWM:");
    }

    /** Returns the bytes that are resident now ({@code VmRSS}); nothing but on Linux. */
    static OptionalLong resident() {
        return field(STATUS, "VmRSS:");
    }

    /** Returns the bytes of the Java heap that have been used at any time: the JVM gets pages when it first uses them. */
    static long heapTouched() {
        long touched = 0;
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            MemoryUsage now = pool.getUsage();
            if (pool.getType() == MemoryType.HEAP && now != null) {
                touched += Math.min(now.getCommitted(), pool.getPeakUsage().getUsed());
            }
        }
        return touched;
    }

    /** Returns a field of kB in a file of {@code /proc}, in bytes. */
    static OptionalLong field(Path file, String name) {
        try (Stream<String> lines = Files.lines(file)) {
            return lines.filter(line -> line.startsWith(name))
                    .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) * 1024)
                    .findFirst();
        } catch (IOException | UncheckedIOException e) {
            return OptionalLong.empty(); // Another operating system.
        }
    }
}
