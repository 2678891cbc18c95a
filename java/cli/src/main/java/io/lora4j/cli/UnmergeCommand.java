package io.lora4j.cli;

import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.Sources;
import io.lora4j.train.checkpoint.Sha256;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * {@code lora4j unmerge}: the base of a merged model, bit for bit. Subtracting the update would not give it back, since sums are rounded;
 * it was never overwritten, so it is found again and proved by its hashes.
 */
final class UnmergeCommand extends TableCommand {
    private static final Option<Path> MERGED =
            Option.ofPath("merged", "A model that lora4j merge wrote: its folder, or its GGUF file.");
    private static final Option<Path> BASE = Option.ofPath(
                    "model_name_or_path",
                    "The base model, if it is no longer where it was: a folder, or a name in the Hugging Face cache.")
            .alias("model")
            .otherwise("where it was when it was merged");
    private static final Option<Path> OUTPUT = Option.ofPath("output", "A folder for a copy of the base model's files.")
            .otherwise("no copy: the base is only checked");

    UnmergeCommand() {
        super(
                new OptionTable("unmerge", List.of(MERGED, BASE, OUTPUT)),
                "Finds the base of a merged model, proves by the hashes written with the merged one that every byte is what it"
                        + " was, and copies it if a folder is named.",
                MERGED);
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        MergeRecord merge = MergeRecord.read(settings.get(MERGED));
        Path base = settings.isSet(BASE) ? Sources.model(settings.get(BASE)).dir() : Path.of(merge.base());
        for (Map.Entry<String, String> file : merge.baseFiles().entrySet()) {
            requireHash(file(base, file.getKey()), file.getValue());
        }
        Path output = settings.find(OUTPUT).orElse(null);
        if (output != null) {
            if (Files.exists(output)) {
                throw new OptionException("option output: " + output + " is there already; choose another");
            }
            AtomicDirectory.write(output, dir -> {
                for (Map.Entry<String, String> file : merge.baseFiles().entrySet()) {
                    Path copy = dir.resolve(file.getKey());
                    copy(file(base, file.getKey()), copy);
                    requireHash(copy, file.getValue());
                }
            });
        }
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("base", base.toString());
        report.put("sha256", merge.baseFiles());
        report.put("output", output == null ? null : output.toString());
        if (json) {
            console.json(report);
        } else {
            merge.baseFiles().forEach((name, hash) -> console.out().println(hash + "  " + name));
            console.out()
                    .println(base + ": every byte is what it was" + (output == null ? "" : "; copied to " + output));
        }
        return 0;
    }

    /** A base that is one file is named by itself. */
    private static Path file(Path base, String name) {
        return Files.isDirectory(base) ? base.resolve(name) : base;
    }

    private static void requireHash(Path file, String expected) throws IOException {
        String found = Sha256.of(file);
        if (!found.equals(expected)) {
            throw new FormatException(file + ": has the SHA-256 " + found + ", but the model was merged from one of "
                    + expected + "; the base was changed since, or is another: name the right one with --model");
        }
    }

    private static void copy(Path from, Path to) throws IOException {
        try (FileChannel source = FileChannel.open(from, StandardOpenOption.READ)) {
            AtomicFile.write(to, channel -> {
                long size = source.size();
                for (long at = 0; at < size; ) {
                    at += source.transferTo(at, size - at, channel);
                }
            });
        }
    }
}
