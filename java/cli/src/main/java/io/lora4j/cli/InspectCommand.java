package io.lora4j.cli;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.InputFile;
import io.lora4j.formats.ModelWeights;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.TensorInfo;
import io.lora4j.train.Option;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.json.JsonMapper;

/** {@code lora4j inspect}: tensors, dtypes, sizes and metadata of a model or adapter. Of models it reads headers only. */
final class InspectCommand extends TableCommand {
    private static final Option<Path> PATH = Option.ofPath(
            "path", "A model or adapter: folder, .safetensors file, .safetensors.index.json, or .gguf file.");
    private static final int LONGEST_VALUE = 200;

    InspectCommand() {
        super(
                new OptionTable("inspect", List.of(PATH)),
                "Lists the tensors, dtypes, sizes and metadata of any model or adapter file, and whether lora4j can use it.",
                PATH);
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path path = settings.get(PATH);
        try (Checkpoint checkpoint = Checkpoint.open(path)) {
            Map<String, Object> report = report(path, checkpoint);
            if (json) {
                console.json(report);
            } else {
                print(report, checkpoint, console);
            }
        }
        return 0;
    }

    private static Map<String, Object> report(Path path, Checkpoint checkpoint) throws IOException {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("file", checkpoint.path().toString());
        Map<String, Long> bytesByType = new TreeMap<>();
        List<Map<String, Object>> tensors = new ArrayList<>();
        long elements = 0;
        for (TensorInfo tensor : checkpoint.tensors().values()) {
            tensors.add(Map.of(
                    "name", tensor.name(),
                    "dtype", tensor.typeName(),
                    "shape", tensor.shape(),
                    "bytes", tensor.bytes()));
            bytesByType.merge(tensor.typeName(), tensor.bytes(), Long::sum);
            elements += tensor.elements();
        }
        report.put("tensor_count", tensors.size());
        report.put("parameters", elements);
        report.put("bytes_by_dtype", bytesByType);
        report.put("metadata", new TreeMap<>(checkpoint.metadata()));
        if (Checkpoint.gguf(path).isPresent()) {
            report.put("usable", usable(path));
        } else if (Files.isDirectory(path)) {
            describeFolder(path, report);
        }
        report.put("tensors", tensors);
        return report;
    }

    /** Says whether lora4j can use the folder as a model or adapter, and if not, why. */
    private static void describeFolder(Path dir, Map<String, Object> report) throws IOException {
        Path modelConfig = dir.resolve("config.json");
        Path adapterConfig = dir.resolve(AdapterConfig.FILE_NAME);
        if (Files.exists(modelConfig)) {
            report.put("config", tree(modelConfig));
            report.put("usable", usable(dir));
        } else if (Files.exists(adapterConfig)) {
            report.put("config", tree(adapterConfig));
            try (Arena copies = Arena.ofConfined()) {
                PeftAdapter.read(dir, copies);
                report.put("usable", "yes: an adapter that lora4j can load on its base model");
            } catch (FormatException e) {
                report.put("usable", "no: " + e.getMessage());
            }
        }
    }

    private static String usable(Path model) throws IOException {
        try (ModelWeights weights = ModelWeights.open(model)) {
            return "yes: config and weights of a model that lora4j can train ("
                    + weights.config().architecture() + ")";
        } catch (FormatException e) {
            return "no: " + e.getMessage();
        }
    }

    private static Object tree(Path json) throws IOException {
        try {
            return new JsonMapper().readValue(TextFile.read(json), Object.class);
        } catch (JacksonException e) {
            throw new FormatException(json + ": not valid JSON: " + InputFile.jsonProblem(e), e);
        }
    }

    private static void print(Map<String, Object> report, Checkpoint checkpoint, Console console) {
        report.forEach((key, value) -> {
            if (value instanceof Map<?, ?> map) {
                map.forEach((name, entry) -> {
                    boolean bytes = key.equals("bytes_by_dtype");
                    console.out()
                            .printf("%-16s %s = %s%n", key, name, bytes ? Text.bytes((Long) entry) : shorten(entry));
                });
            } else if (!key.equals("tensors")) {
                console.out().printf("%-16s %s%n", key, value);
            }
        });
        int width = checkpoint.tensors().keySet().stream()
                .mapToInt(String::length)
                .max()
                .orElse(0);
        for (TensorInfo tensor : checkpoint.tensors().values()) {
            String shape = tensor.shape().stream().map(String::valueOf).collect(Collectors.joining(", ", "[", "]"));
            console.out()
                    .printf(
                            "%-" + Math.max(1, width) + "s  %-6s %-16s %s%n",
                            tensor.name(),
                            tensor.typeName(),
                            shape,
                            Text.bytes(tensor.bytes()));
        }
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value).replace("\n", "\\n");
        return text.length() <= LONGEST_VALUE
                ? text
                : text.substring(0, LONGEST_VALUE) + "… (" + text.length() + " characters; --json has them all)";
    }
}
