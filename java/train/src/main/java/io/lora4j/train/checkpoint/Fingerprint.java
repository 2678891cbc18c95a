package io.lora4j.train.checkpoint;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.TensorInfo;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.CRC32C;
import tools.jackson.databind.JsonNode;

/**
 * What a file's bytes were. Whether they still are so, SHA-256 says; where they are not, the CRC-32C of each part says: a tensor
 * of a safetensors or GGUF file, a line of a JSONL file (neighbouring lines together where there are many), or the whole
 * file. Immutable.
 *
 * @param sha256 as {@code sha256sum} prints it
 * @param size bytes of the file
 * @param parts what lies in the file, one after the other and without a hole
 */
public record Fingerprint(String sha256, long size, List<Part> parts) {
    private static final int CHUNK = 1 << 20;
    private static final int MAX_LINE_PARTS = 1024;
    private static final int NAMED = 3;

    /** Copies the list. */
    public Fingerprint {
        parts = List.copyOf(parts);
    }

    /**
     * A part of a file. It begins where the one before it ends.
     *
     * @param name what it is, for people
     * @param end position behind its last byte
     * @param crc32c its checksum, eight hexadecimal digits
     */
    public record Part(String name, long end, String crc32c) {}

    /**
     * Reads a file, in pieces.
     *
     * @throws FormatException if it does not exist, or has the name but not the form of a tensor file
     */
    public static Fingerprint of(Path file) throws IOException {
        String name = String.valueOf(file.getFileName());
        Map<String, Long> layout;
        if (name.endsWith(".safetensors") || name.endsWith(".gguf")) {
            layout = tensors(file);
        } else if (name.endsWith(".jsonl")) {
            layout = lines(file);
        } else {
            layout = Map.of();
        }
        return read(file, layout, Long.MAX_VALUE);
    }

    private static Map<String, Long> tensors(Path file) throws IOException {
        Map<String, Long> ends = new LinkedHashMap<>();
        try (Checkpoint checkpoint = Checkpoint.open(file)) {
            List<TensorInfo> tensors = checkpoint.tensors().values().stream()
                    .sorted(Comparator.comparingLong(TensorInfo::offset))
                    .toList();
            ends.put("the header", tensors.isEmpty() ? 0 : tensors.getFirst().offset());
            // Between the tensors of a GGUF file there may be padding; it counts to the tensor before it.
            for (int i = 1; i < tensors.size(); i++) {
                ends.put("tensor " + tensors.get(i - 1).name(), tensors.get(i).offset());
            }
            if (!tensors.isEmpty()) {
                ends.put("tensor " + tensors.getLast().name(), Long.MAX_VALUE);
            }
        }
        return ends;
    }

    private static Map<String, Long> lines(Path file) throws IOException {
        List<Long> ends = new ArrayList<>();
        long at = 0;
        try (InputStream in = new BufferedInputStream(open(file), 1 << 16)) {
            for (int b = in.read(); b >= 0; b = in.read()) {
                at++;
                if (b == '\n') {
                    ends.add(at);
                }
            }
        }
        if (ends.isEmpty() || ends.getLast() < at) {
            ends.add(at); // A last line without its end.
        }
        int together = Math.ceilDiv(ends.size(), MAX_LINE_PARTS);
        Map<String, Long> layout = new LinkedHashMap<>();
        for (int first = 1; first <= ends.size(); first += together) {
            int last = Math.min(first + together - 1, ends.size());
            layout.put(first == last ? "line " + first : "lines " + first + " to " + last, ends.get(last - 1));
        }
        return layout;
    }

    private static InputStream open(Path file) throws IOException {
        try {
            return Files.newInputStream(file);
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; check the path", e);
        }
    }

    /** Reads at most {@code limit} bytes; bytes behind the last part of the layout make a part of their own. */
    private static Fingerprint read(Path file, Map<String, Long> layout, long limit) throws IOException {
        MessageDigest sha = Sha256.digest();
        List<Part> parts = new ArrayList<>();
        ByteBuffer buffer = ByteBuffer.allocateDirect(CHUNK);
        long at = 0;
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            long size = Math.min(channel.size(), limit);
            Map<String, Long> all = new LinkedHashMap<>(layout);
            long described =
                    all.values().stream().mapToLong(Long::longValue).max().orElse(0);
            if (described < size && !all.isEmpty()) {
                all.put("what follows", size);
            }
            for (Map.Entry<String, Long> part : all.entrySet()) {
                CRC32C crc = new CRC32C();
                long end = Math.min(part.getValue(), size);
                at = update(channel, buffer, at, end, sha, crc);
                parts.add(new Part(part.getKey(), end, HexFormat.of().toHexDigits((int) crc.getValue())));
            }
            at = update(channel, buffer, at, size, sha, new CRC32C());
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; check the path", e);
        }
        return new Fingerprint(HexFormat.of().formatHex(sha.digest()), at, parts);
    }

    private static long update(
            FileChannel channel, ByteBuffer buffer, long from, long end, MessageDigest sha, CRC32C crc)
            throws IOException {
        long at = from;
        while (at < end) {
            int read = channel.read(buffer.clear().limit((int) Math.min(CHUNK, end - at)), at);
            if (read < 0) {
                break; // It has become shorter meanwhile; the hash will say so.
            }
            crc.update(buffer.flip());
            sha.update(buffer.rewind());
            at += read;
        }
        return at;
    }

    /**
     * Returns what is different in a file now, for people; nothing if it has the same bytes.
     *
     * @param prefix whether the file may have grown behind its old end, as a log does
     */
    public Optional<String> differenceOf(Path file, boolean prefix) throws IOException {
        if (!Files.isRegularFile(file)) {
            return Optional.of("is missing");
        }
        Map<String, Long> layout = new LinkedHashMap<>();
        parts.forEach(part -> layout.put(part.name(), part.end()));
        Fingerprint now = read(file, layout, prefix ? size : Long.MAX_VALUE);
        if (now.sha256.equals(sha256) && now.size == size) {
            return Optional.empty();
        }
        StringBuilder text = new StringBuilder("has changed");
        List<String> where = new ArrayList<>();
        for (int i = 0; i < parts.size(); i++) {
            if (!now.parts.get(i).equals(parts.get(i))) {
                where.add(parts.get(i).name());
            }
        }
        if (!where.isEmpty()) {
            text.append(" in ").append(String.join(", ", where.subList(0, Math.min(NAMED, where.size()))));
            text.append(where.size() > NAMED ? " and " + (where.size() - NAMED) + " more parts" : "");
        }
        text.append(": sha256 was ").append(sha256).append(", is ").append(now.sha256);
        if (now.size != size) {
            text.append("; it had ").append(size).append(" bytes, has ").append(now.size);
        }
        return Optional.of(text.toString());
    }

    /** Returns this as an object of JSON. */
    Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("sha256", sha256);
        json.put("size", size);
        Map<String, Object> ends = new LinkedHashMap<>();
        parts.forEach(part -> ends.put(part.name(), part.end() + " " + part.crc32c()));
        json.put("parts", ends);
        return json;
    }

    /**
     * Reads what {@link #toJson} wrote.
     *
     * @param where begins error messages
     */
    static Fingerprint ofJson(JsonNode json, String where) throws FormatException {
        List<Part> parts = new ArrayList<>();
        for (Map.Entry<String, JsonNode> entry : json.path("parts").properties()) {
            String[] fields = entry.getValue().asString("").split(" ", -1);
            if (fields.length != 2 || !fields[0].matches("\\d{1,18}")) {
                throw new FormatException(where + ": the part " + entry.getKey() + " is " + entry.getValue()
                        + "; expected \"<end> <crc32c>\"");
            }
            parts.add(new Part(entry.getKey(), Long.parseLong(fields[0]), fields[1]));
        }
        if (!json.path("sha256").isString() || !json.path("size").isIntegralNumber()) {
            throw new FormatException(where + ": is not {sha256, size, parts} but " + json.getNodeType());
        }
        return new Fingerprint(
                json.path("sha256").stringValue(), json.path("size").longValue(), parts);
    }
}
