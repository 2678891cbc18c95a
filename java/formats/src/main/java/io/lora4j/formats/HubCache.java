package io.lora4j.formats;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The models and adapters that Hugging Face's tools have downloaded to this machine; nothing is ever downloaded here. Immutable.
 *
 * <p>Layout, as {@code huggingface_hub} documents it: {@code models--<owner>--<name>/} has {@code refs/<branch or tag>}, a file
 * with a commit hash, {@code snapshots/<commit>/}, the files of a commit as links, and {@code blobs/}, what they link to.
 */
public final class HubCache {
    private static final String PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?";
    private static final Pattern ID = Pattern.compile("((?:" + PART + "/)?" + PART + ")(?:@([^@\\s]+))?");
    private static final Pattern VARIABLE = Pattern.compile("\\$(?:(\\w+)|\\{(\\w+)\\})");
    private static final String MAIN = "main";
    private static final String ONE_FILE = "model.safetensors";
    private static final String INDEX = ONE_FILE + ".index.json";
    private static final List<String> WEIGHTS = List.of(".safetensors", ".gguf", ".bin");

    private final Path dir;

    /**
     * Takes a cache that may not exist.
     *
     * @param dir the folder with the {@code models--…} folders
     */
    public HubCache(Path dir) {
        this.dir = dir;
    }

    /** Returns the cache of this process's environment. */
    public static HubCache ofEnvironment() {
        return of(System.getenv());
    }

    /**
     * Returns the cache that variables name, as {@code huggingface_hub} reads them: {@code HF_HUB_CACHE}; or {@code hub} in
     * {@code HF_HOME}, in {@code $XDG_CACHE_HOME/huggingface}, in {@code ~/.cache/huggingface}.
     */
    static HubCache of(Map<String, String> environment) {
        String cacheHome = environment.getOrDefault("XDG_CACHE_HOME", "~/.cache");
        String home = environment.getOrDefault("HF_HOME", cacheHome + "/huggingface");
        String legacy = environment.getOrDefault("HUGGINGFACE_HUB_CACHE", home + "/hub");
        return new HubCache(Path.of(expand(environment.getOrDefault("HF_HUB_CACHE", legacy), environment)));
    }

    private static String expand(String path, Map<String, String> environment) {
        String home = environment.getOrDefault("HOME", System.getProperty("user.home"));
        String whole = path.equals("~") || path.startsWith("~/") ? home + path.substring(1) : path;
        return VARIABLE.matcher(whole)
                .replaceAll(m -> Matcher.quoteReplacement(
                        environment.getOrDefault(m.group(1) != null ? m.group(1) : m.group(2), m.group())));
    }

    /**
     * Where what a user named lies.
     *
     * @param dir the folder with the files, or a GGUF file
     * @param name what to record as {@code base_model_name_or_path}: the repository's name, or the path that was given
     * @param revision the branch, tag or commit that was given; null if none was
     */
    public record Source(Path dir, String name, @Nullable String revision) {}

    /**
     * Finds a base model: a local folder or GGUF file, or else the repository {@code [owner/]name[@revision]} in this cache. The revision is
     * a branch, a tag, or a commit hash or the beginning of one; without it {@code main} is meant.
     *
     * @throws FormatException if there is neither, the revision is not there, or the download is not complete
     */
    public Source model(Path nameOrPath) throws IOException {
        return find(nameOrPath, HubCache::missingOfModel);
    }

    /**
     * Finds an adapter; see {@link #model}.
     *
     * @throws FormatException as for a model
     */
    public Source adapter(Path nameOrPath) throws IOException {
        return find(nameOrPath, HubCache::missingOfAdapter);
    }

    /** Says which files a snapshot lacks. */
    private interface Completeness {
        List<String> missing(Path snapshot) throws IOException;
    }

    private Source find(Path nameOrPath, Completeness completeness) throws IOException {
        String text = nameOrPath.toString();
        if (Files.isDirectory(nameOrPath)) {
            return new Source(nameOrPath, text, null);
        }
        if (text.endsWith(".gguf") && Files.exists(nameOrPath)) {
            return new Source(nameOrPath, text, null);
        }
        if (Files.exists(nameOrPath)) {
            throw new FormatException(text + " is a file; expected the folder that it is in");
        }
        Matcher id = ID.matcher(text);
        if (!id.matches()) {
            throw new FormatException(
                    "no folder " + text
                            + "; check the path (a repository of the Hugging Face Hub is written owner/name or owner/name@revision)");
        }
        String name = id.group(1);
        String revision = id.group(2);
        String download = "hf download " + name + (revision == null ? "" : " --revision " + revision);
        Path repository = dir.resolve("models--" + name.replace("/", "--"));
        if (!Files.isDirectory(repository)) {
            throw new FormatException("no folder " + text + ", and no " + name + " in the Hugging Face cache " + dir
                    + "; lora4j downloads nothing: check the path, or fetch it with: " + download);
        }
        Path snapshot = snapshot(repository, revision == null ? MAIN : revision, download);
        List<String> missing = new ArrayList<>(brokenLinks(snapshot));
        missing.addAll(completeness.missing(snapshot));
        if (!missing.isEmpty()) {
            throw new FormatException(snapshot + ": is an incomplete download, it has no "
                    + String.join(", ", new TreeSet<>(missing)) + "; fetch the rest with: " + download);
        }
        return new Source(snapshot, name, revision);
    }

    private static Path snapshot(Path repository, String revision, String download) throws IOException {
        Path snapshots = repository.resolve("snapshots");
        Path ref = repository.resolve("refs").resolve(revision).normalize();
        List<String> commits = list(snapshots);
        List<String> fit;
        if (ref.startsWith(repository.resolve("refs")) && Files.isRegularFile(ref)) {
            String commit = InputFile.text(ref).strip();
            fit = commits.stream().filter(commit::equals).toList();
            if (fit.isEmpty()) {
                throw new FormatException(ref + ": names the commit " + commit + ", which is not in " + snapshots
                        + "; fetch it with: " + download);
            }
        } else {
            fit = commits.stream().filter(commit -> commit.startsWith(revision)).toList();
        }
        if (fit.size() == 1) {
            return snapshots.resolve(fit.getFirst());
        }
        throw new FormatException(
                repository + ": has " + (fit.isEmpty() ? "no revision " : "several commits that begin with ")
                        + revision + "; it has " + (commits.isEmpty() ? "none at all" : "the commits " + commits)
                        + " and the names " + refs(repository.resolve("refs"))
                        + ": give one of them behind @, or fetch it with: "
                        + download);
    }

    private static List<String> refs(Path refs) throws IOException {
        if (!Files.isDirectory(refs)) {
            return List.of();
        }
        try (Stream<Path> files = Files.walk(refs)) {
            return files.filter(Files::isRegularFile)
                    .map(file -> refs.relativize(file).toString())
                    .sorted()
                    .toList();
        }
    }

    private static List<String> list(Path folder) throws IOException {
        if (!Files.isDirectory(folder)) {
            return List.of();
        }
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.filter(Files::isDirectory)
                    .map(entry -> entry.getFileName().toString())
                    .sorted()
                    .toList();
        }
    }

    /** A link without its blob: the cache was cleaned by hand, or copied without {@code blobs}. */
    private static List<String> brokenLinks(Path snapshot) throws IOException {
        try (Stream<Path> files = Files.walk(snapshot)) {
            return files.filter(file -> !Files.exists(file))
                    .map(file -> snapshot.relativize(file).toString())
                    .toList();
        }
    }

    private static List<String> missingOfModel(Path snapshot) throws IOException {
        List<String> missing = new ArrayList<>();
        if (!Files.exists(snapshot.resolve("config.json")) && !hasFile(snapshot, List.of(".gguf"))) {
            missing.add("config.json");
        }
        Path index = snapshot.resolve(INDEX);
        if (Files.exists(index) && !Files.exists(snapshot.resolve(ONE_FILE))) {
            for (String shard : ShardedSafetensors.shardNames(index)) {
                if (!Files.exists(snapshot.resolve(shard))) {
                    missing.add(shard);
                }
            }
        } else if (!hasFile(snapshot, WEIGHTS)) {
            missing.add(ONE_FILE);
        }
        return missing;
    }

    private static List<String> missingOfAdapter(Path snapshot) {
        List<String> missing = new ArrayList<>();
        if (!Files.exists(snapshot.resolve(AdapterConfig.FILE_NAME))) {
            missing.add(AdapterConfig.FILE_NAME);
        }
        if (!Files.exists(snapshot.resolve(PeftAdapter.FILE_NAME))
                && !Files.exists(snapshot.resolve("adapter_model.bin"))) {
            missing.add(PeftAdapter.FILE_NAME);
        }
        return missing;
    }

    private static boolean hasFile(Path folder, List<String> endings) throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(Path::toString).anyMatch(name -> endings.stream().anyMatch(name::endsWith));
        }
    }
}
