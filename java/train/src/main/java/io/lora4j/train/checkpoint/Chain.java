package io.lora4j.train.checkpoint;

import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.PythonJson;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * The hash chain of a run: {@code chain.json}, in every checkpoint and beside the finished adapter. A link binds what is on the disk
 * at a step (adapter, optimizer, state with all options, metrics so far) to all links before it; the first one binds what the
 * run began with. Every copy has all links from the first one on, so a checkpoint that was deleted leaves no hole. Immutable.
 *
 * <p>A link's hash is the SHA-256 of the lines {@code lora4j chain 1}, the hash before it (empty for the first), the step, the number of
 * steps of the whole run as it was planned then, and the content's hash. The content is the identity for the first link, later the
 * fingerprints of the files, in the JSON of {@code chain.json} without white space.
 *
 * @param identity what the run began with
 * @param links the links, the first one for step 0
 * @param files the files that the last link binds, by their path from the chain's own folder
 */
public record Chain(RunIdentity identity, List<Link> links, Map<String, Fingerprint> files) {
    /** The name of the file. */
    public static final String FILE_NAME = "chain.json";

    private static final int VERSION = 1;
    private static final PythonJson FORM = new PythonJson(true, "  ", ",", ": ", false);
    private static final JsonMapper MAPPER = new JsonMapper();

    /** Copies list and map, keeping their order. */
    public Chain {
        links = List.copyOf(links);
        files = Collections.unmodifiableMap(new LinkedHashMap<>(files));
    }

    /**
     * A link.
     *
     * @param step optimizer steps done
     * @param totalSteps steps of the whole run as it was planned when these were done: the learning rates follow from it; 0 for
     *     the first link
     * @param content SHA-256 of what it binds
     * @param hash its own hash
     */
    public record Link(int step, int totalSteps, String content, String hash) {
        private static Link after(String previous, int step, int totalSteps, String content) {
            String text = "lora4j chain 1\n" + previous + "\n" + step + "\n" + totalSteps + "\n" + content + "\n";
            return new Link(step, totalSteps, content, Sha256.of(text));
        }
    }

    /** Returns the chain of a run that has not done a step. */
    public static Chain start(RunIdentity identity) {
        return new Chain(identity, List.of(Link.after("", 0, 0, contentOf(identity.toJson()))), Map.of());
    }

    /** Returns the chain with a link more. */
    Chain extend(int step, int totalSteps, Map<String, Fingerprint> bound) {
        List<Link> more = new ArrayList<>(links);
        more.add(Link.after(hash(), step, totalSteps, contentOf(RunIdentity.filesToJson(bound))));
        return new Chain(identity, more, bound);
    }

    private static String contentOf(Map<String, Object> json) {
        return Sha256.of(PythonJson.compact().write(json));
    }

    /** Returns the hash of the last link, which stands for everything before it. */
    public String hash() {
        return links.getLast().hash();
    }

    /** Returns the step of the last link. */
    public int step() {
        return links.getLast().step();
    }

    /**
     * Checks that every link is what it says; the files are not read.
     *
     * @param where begins error messages
     * @throws FormatException naming the first link that is not
     */
    void requireWhole(String where) throws FormatException {
        String previous = "";
        int step = 0;
        for (Link link : links) {
            if (!link.equals(Link.after(previous, link.step(), link.totalSteps(), link.content()))
                    || link.step() < step) {
                throw new FormatException(where + ": the link of step " + link.step()
                        + " does not follow from the one before it; the file has changed since it was written");
            }
            previous = link.hash();
            step = link.step();
        }
        if (!links.getFirst().content().equals(contentOf(identity.toJson()))) {
            throw new FormatException(where + ": its identity is not the one that its first link binds; the file has"
                    + " changed since it was written");
        }
        if (links.size() > 1 && !links.getLast().content().equals(contentOf(RunIdentity.filesToJson(files)))) {
            throw new FormatException(where + ": its files are not those that its last link binds; the file has"
                    + " changed since it was written");
        }
    }

    private byte[] bytes() {
        List<Object> list = new ArrayList<>();
        for (Link link : links) {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("step", link.step());
            fields.put("total_steps", link.totalSteps());
            fields.put("content", link.content());
            fields.put("hash", link.hash());
            list.add(fields);
        }
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("version", VERSION);
        json.put("links", list);
        json.put("files", RunIdentity.filesToJson(files));
        json.put("identity", identity.toJson());
        return (FORM.write(json) + "\n").getBytes(StandardCharsets.UTF_8);
    }

    /** Writes the file into a folder. */
    void write(Path dir) throws IOException {
        AtomicFile.write(dir.resolve(FILE_NAME), bytes());
    }

    /**
     * Reads the file of a folder. Every byte of it counts: it must be as {@link #write} writes it.
     *
     * @throws FormatException if it is missing, damaged, of another version, or a link does not follow from those before it
     */
    public static Chain read(Path dir) throws IOException {
        Path file = dir.resolve(FILE_NAME);
        String where = file.toString();
        byte[] bytes;
        JsonNode json;
        try {
            bytes = Files.readAllBytes(file);
            json = MAPPER.readTree(bytes);
        } catch (NoSuchFileException e) {
            throw new FormatException(
                    where + ": is missing; without it nobody can tell whether " + dir + " is whole", e);
        } catch (JacksonException e) {
            throw new FormatException(where + ": not valid JSON: " + e.getOriginalMessage() + "; it is damaged", e);
        }
        if (json.path("version").asInt(-1) != VERSION) {
            throw new FormatException(
                    where + ": has version " + json.path("version") + "; this release reads version " + VERSION);
        }
        List<Link> links = new ArrayList<>();
        for (JsonNode link : json.path("links").values()) {
            links.add(new Link(
                    link.path("step").asInt(-1),
                    link.path("total_steps").asInt(-1),
                    link.path("content").asString(""),
                    link.path("hash").asString("")));
        }
        if (links.isEmpty()) {
            throw new FormatException(where + ": has no links; it is damaged");
        }
        Chain chain = new Chain(
                RunIdentity.ofJson(json.path("identity"), where),
                links,
                RunIdentity.filesOfJson(json.path("files"), where));
        chain.requireWhole(where);
        if (!Arrays.equals(chain.bytes(), bytes)) {
            throw new FormatException(where + ": is not written as lora4j writes it; it has changed since then");
        }
        return chain;
    }
}
