package io.lora4j.train.checkpoint;

import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.PythonJson;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * {@code metrics.jsonl}: one JSON object in each line, under TRL's keys, with {@code step} in every one. A resumed run goes on
 * behind the lines up to its step; what an interrupted run wrote after its checkpoint is taken out. One thread at a time.
 */
public final class MetricsLog implements AutoCloseable {
    /** The name of the file. */
    public static final String FILE_NAME = "metrics.jsonl";

    private static final PythonJson FORM = new PythonJson(false, null, ", ", ": ", false);
    private static final JsonMapper MAPPER = new JsonMapper();

    private final Path file;
    private @Nullable FileChannel channel;

    private MetricsLog(Path file) {
        this.file = file;
    }

    /**
     * Opens the log of a run. There is no file before the first line: a run that fails in its first step leaves none.
     *
     * @param outputDir the run's output directory
     * @param step the step that the run goes on from, 0 for a new one; lines of later steps, and a last line that was cut
     *     off, are removed
     */
    public static MetricsLog open(Path outputDir, int step) throws IOException {
        Path file = outputDir.resolve(FILE_NAME);
        if (Files.exists(file)) {
            StringBuilder kept = new StringBuilder();
            for (String line : new String(Files.readAllBytes(file), StandardCharsets.UTF_8).split("\n", -1)) {
                if (stepOf(line) <= step) {
                    kept.append(line).append('\n');
                }
            }
            AtomicFile.write(file, kept.toString().getBytes(StandardCharsets.UTF_8));
        }
        return new MetricsLog(file);
    }

    private static int stepOf(String line) {
        try {
            JsonNode json = MAPPER.readTree(line);
            return json.path("step").asInt(Integer.MAX_VALUE);
        } catch (JacksonException e) {
            return Integer.MAX_VALUE; // A line that a killed process wrote in part.
        }
    }

    /**
     * Appends a line.
     *
     * @throws FormatException if the disk is full; the end of the file is put right when the run goes on
     */
    public void write(Map<String, ?> metrics) throws IOException {
        byte[] line = (FORM.write(metrics) + "\n").getBytes(StandardCharsets.UTF_8);
        try {
            if (channel == null) {
                channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            }
            AtomicFile.writeFully(channel, ByteBuffer.wrap(line));
        } catch (IOException e) {
            throw new FormatException(
                    file + ": cannot be written: " + e.getMessage() + "; make room and go on from the last checkpoint",
                    e);
        }
    }

    /** Makes sure that what was written survives a power failure. */
    public void flush() throws IOException {
        if (channel != null) {
            channel.force(false);
        }
    }

    @Override
    public void close() throws IOException {
        if (channel != null) {
            channel.close();
        }
    }
}
