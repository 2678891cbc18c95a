import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

/**
 * Reads the test reports that a build left behind (Surefire, GoogleTest, CTest) and prints counts for each suite, the
 * failed tests and the skipped ones with their reasons. Exits with 1 when a test failed or a suite is missing.
 */
public final class Summary {
    private record Count(int run, int failed, int skipped) {
        Count plus(Count other) {
            return new Count(run + other.run, failed + other.failed, skipped + other.skipped);
        }
    }

    private static final Count NONE = new Count(0, 0, 0);

    private final TreeMap<String, Count> suites = new TreeMap<>();
    private final List<String> failures = new ArrayList<>();
    private final List<String> skips = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        Summary summary = new Summary();
        for (String module : List.of("kernels", "formats", "train", "interop-javacpp", "cli", "examples")) {
            summary.readAll("java/" + module, Path.of("java", module, "target", "surefire-reports"));
        }
        for (String preset : List.of("release", "asan-ubsan", "tsan", "aarch64")) {
            summary.readNative("native " + preset, Path.of("native", "build", preset, "test-reports"));
        }
        System.exit(summary.print() ? 0 : 1);
    }

    private void readAll(String suite, Path folder) throws Exception {
        suites.put(suite, NONE);
        for (Path report : reports(folder)) {
            read(suite, report, Set.of());
        }
    }

    /**
     * GoogleTest's own reports, and from CTest's what these do not say: other programs, programs that died before they
     * could write a report, and failures outside of the test cases, such as a sanitizer's finding.
     */
    private void readNative(String suite, Path folder) throws Exception {
        suites.put(suite, NONE);
        Set<String> programs = new HashSet<>();
        for (Path report : reports(folder)) {
            String name = report.getFileName().toString().replace(".xml", "");
            if (!name.equals("ctest")) {
                programs.add(name);
                read(suite, report, Set.of());
            }
        }
        Path ctest = folder.resolve("ctest.xml");
        if (Files.exists(ctest)) {
            read(suite, ctest, programs);
        }
    }

    private static List<Path> reports(Path folder) throws IOException {
        if (!Files.isDirectory(folder)) {
            return List.of();
        }
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(f -> f.toString().endsWith(".xml")).sorted().toList();
        }
    }

    private void read(String suite, Path report, Set<String> except) throws Exception {
        NodeList cases = DocumentBuilderFactory.newInstance()
                .newDocumentBuilder()
                .parse(report.toFile())
                .getElementsByTagName("testcase");
        for (int i = 0; i < cases.getLength(); i++) {
            Element test = (Element) cases.item(i);
            boolean failed = has(test, "failure") || has(test, "error");
            if (!failed && except.contains(test.getAttribute("name"))) {
                continue;
            }
            String name = suite + ": " + test.getAttribute("classname") + "." + test.getAttribute("name");
            boolean skipped = !failed && has(test, "skipped");
            if (failed) {
                failures.add(name);
            }
            if (skipped) {
                skips.add(name + ": " + reason((Element) test.getElementsByTagName("skipped").item(0)));
            }
            suites.merge(suite, new Count(1, failed ? 1 : 0, skipped ? 1 : 0), Count::plus);
        }
    }

    private static boolean has(Element test, String tag) {
        return test.getElementsByTagName(tag).getLength() > 0;
    }

    private static String reason(Element skipped) {
        String message = skipped.getAttribute("message");
        String text = (message.isBlank() ? skipped.getTextContent() : message).strip();
        // GoogleTest says where before it says why; JUnit says why before its stack trace.
        return text.lines()
                .takeWhile(line -> !line.startsWith("\tat "))
                .reduce((a, b) -> b)
                .map(line -> line.strip().replaceFirst("^org\\.opentest4j\\.TestAbortedException: (Assumption failed: )?", ""))
                .orElse("no reason given");
    }

    private boolean print() {
        System.out.printf("%n%-20s %8s %8s %8s%n", "tests", "run", "failed", "skipped");
        suites.forEach(Summary::line);
        line("total", suites.values().stream().reduce(NONE, Count::plus));
        failures.forEach(name -> System.out.println("FAILED   " + name));
        skips.forEach(name -> System.out.println("skipped  " + name));
        List<String> empty = suites.keySet().stream().filter(s -> suites.get(s).run() == 0).toList();
        empty.forEach(suite -> System.out.println("MISSING  no test of " + suite + " has run"));
        return failures.isEmpty() && empty.isEmpty();
    }

    private static void line(String suite, Count count) {
        System.out.printf("%-20s %8d %8d %8d%n", suite, count.run() - count.skipped(), count.failed(), count.skipped());
    }
}
