package io.lora4j.train;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;

/**
 * The memory that a run is going to need at its peak, and what there is. Immutable.
 *
 * @param parts bytes by what they are for, in the order in which they are shown
 * @param available bytes that the process can still get: the machine's available memory, or what its control group or its
 *     limit of the address space leaves
 * @param source where {@code available} was read
 * @param offHeap bytes among the parts that the JVM allocates off the heap
 * @param offHeapLimit the most that the JVM allows itself there ({@code -XX:MaxDirectMemorySize}, by default {@code -Xmx})
 */
public record MemoryPlan(Map<String, Long> parts, long available, String source, long offHeap, long offHeapLimit) {
    private static final long MIB = 1 << 20;
    private static final Path MEMINFO = Path.of("/proc/meminfo");
    private static final Path LIMITS = Path.of("/proc/self/limits");
    private static final Path STATUS = Path.of("/proc/self/status");
    private static final Path CGROUP = Path.of("/proc/self/cgroup");
    private static final Path CGROUP_ROOT = Path.of("/sys/fs/cgroup");

    /** Copies the map, keeping its order. */
    public MemoryPlan {
        parts = Collections.unmodifiableMap(new LinkedHashMap<>(parts));
    }

    /** Returns a plan for this machine and JVM as they are now. */
    public static MemoryPlan of(Map<String, Long> parts, long offHeap) {
        long available = memAvailable(MEMINFO);
        String source = MEMINFO.toString();
        long group = cgroupHeadroom(CGROUP, CGROUP_ROOT);
        if (group < available) {
            available = group;
            source = "limit of the control group";
        }
        long space = addressSpaceHeadroom(LIMITS, STATUS, Runtime.getRuntime().totalMemory());
        if (space < available) {
            available = space;
            source = "limit of the address space, ulimit -v";
        }
        return new MemoryPlan(parts, available, source, offHeap, maxDirectMemory());
    }

    private static long maxDirectMemory() {
        HotSpotDiagnosticMXBean jvm = ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
        if (jvm == null) {
            return Long.MAX_VALUE; // Another JVM: its own error will have to do.
        }
        long option = Long.parseLong(jvm.getVMOption("MaxDirectMemorySize").getValue());
        return option == 0 ? Runtime.getRuntime().maxMemory() : option;
    }

    /** Returns the bytes at the peak. */
    public long peak() {
        return parts.values().stream().mapToLong(Long::longValue).sum();
    }

    /** Returns whether the run fits into what there is. */
    public boolean fits() {
        return peak() <= available && offHeap <= offHeapLimit;
    }

    /**
     * Refuses a run that cannot fit.
     *
     * @throws TrainException with the whole plan and what to change
     */
    public void requireFits() {
        if (peak() > available) {
            throw new TrainException("the run does not fit into memory:\n" + this
                    + "\nlower per_device_train_batch_size (and raise gradient_accumulation_steps) or max_length, or turn on"
                    + " gradient_checkpointing");
        }
        if (offHeap > offHeapLimit) {
            throw new TrainException(
                    "the run needs " + size(offHeap) + " off the Java heap, but this JVM allows itself "
                            + size(offHeapLimit) + ":\n" + this + "\nstart it with -XX:MaxDirectMemorySize="
                            + (offHeap / MIB + 1)
                            + "m or more");
        }
    }

    /** Returns a table, a line for each part. */
    @Override
    public String toString() {
        StringBuilder table = new StringBuilder();
        parts.forEach((name, bytes) -> table.append(line(name, bytes)));
        return table.append(line("peak", peak()))
                .append(line("available (" + source + ")", available))
                .toString()
                .stripTrailing();
    }

    private static String line(String name, long bytes) {
        return String.format(Locale.ROOT, "  %-42s %16s%n", name, size(bytes));
    }

    private static String size(long bytes) {
        return bytes == Long.MAX_VALUE ? "unknown" : String.format(Locale.ROOT, "%,.1f MiB", bytes / (double) MIB);
    }

    /** Returns MemAvailable of {@code /proc/meminfo} in bytes; unlimited where there is no such file. */
    static long memAvailable(Path meminfo) {
        for (String line : lines(meminfo)) {
            if (line.startsWith("MemAvailable:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
            }
        }
        return Long.MAX_VALUE;
    }

    /**
     * Returns what the tightest limit among a process's control groups (version 2, or version 1's memory controller) leaves;
     * file pages that the kernel can drop count as free.
     */
    static long cgroupHeadroom(Path selfCgroup, Path root) {
        long least = Long.MAX_VALUE;
        for (String line : lines(selfCgroup)) {
            String[] fields = line.split(":", 3);
            if (fields.length < 3 || !(fields[1].isEmpty() || fields[1].equals("memory"))) {
                continue;
            }
            boolean v1 = !fields[1].isEmpty();
            Path top = v1 ? root.resolve("memory") : root;
            Path group = top.resolve(fields[2].replaceFirst("^/+", "")).normalize();
            // Inside a container the path may be that of the host; its own group is then the root.
            for (Path g = Files.isDirectory(group) ? group : top; g != null && g.startsWith(top); g = g.getParent()) {
                least = Math.min(
                        least,
                        v1
                                ? headroom(g, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                                : headroom(g, "memory.max", "memory.current", "inactive_file"));
            }
        }
        return least;
    }

    /**
     * Returns what a process's limit of its address space leaves; unlimited where there is none.
     *
     * @param heap bytes of the Java heap, which the address space has already and a plan counts again
     */
    static long addressSpaceHeadroom(Path limits, Path status, long heap) {
        for (String limit : lines(limits)) {
            String[] fields = limit.split("\\s+");
            if (!limit.startsWith("Max address space") || !fields[3].matches("\\d{1,18}")) {
                continue;
            }
            for (String used : lines(status)) {
                if (used.startsWith("VmSize:")) {
                    long size = Long.parseLong(used.replaceAll("\\D", "")) * 1024;
                    return Math.max(0, Long.parseLong(fields[3]) - size + heap);
                }
            }
        }
        return Long.MAX_VALUE;
    }

    private static long headroom(Path group, String limitFile, String usageFile, String reclaimable) {
        List<String> limit = lines(group.resolve(limitFile));
        List<String> usage = lines(group.resolve(usageFile));
        if (limit.isEmpty() || usage.isEmpty() || !limit.getFirst().matches("\\d{1,18}")) {
            return Long.MAX_VALUE; // No limit ("max"), or no such controller.
        }
        long dropped = lines(group.resolve("memory.stat")).stream()
                .filter(line -> line.startsWith(reclaimable + " "))
                .mapToLong(line -> Long.parseLong(line.substring(reclaimable.length() + 1)))
                .sum();
        return Math.max(0, Long.parseLong(limit.getFirst()) - Long.parseLong(usage.getFirst()) + dropped);
    }

    private static List<String> lines(Path file) {
        try (Stream<String> lines = Files.lines(file)) {
            return lines.toList();
        } catch (IOException | UncheckedIOException e) {
            return List.of(); // Another operating system, or a controller that is not there.
        }
    }
}
