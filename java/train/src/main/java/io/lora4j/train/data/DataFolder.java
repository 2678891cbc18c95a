package io.lora4j.train.data;

import io.lora4j.formats.FormatException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/**
 * What a path to data means: a file, or a folder with {@code train.jsonl}, {@code valid.jsonl} (or {@code validation.jsonl}) and
 * {@code test.jsonl}.
 */
public final class DataFolder {
    private static final String TRAIN = "train.jsonl";
    private static final List<String> VALID = List.of("valid.jsonl", "validation.jsonl");
    private static final String TEST = "test.jsonl";

    private DataFolder() {}

    /**
     * Returns the file to train on.
     *
     * @throws FormatException if the folder has no {@code train.jsonl}
     */
    public static Path train(Path fileOrFolder) throws FormatException {
        if (!Files.isDirectory(fileOrFolder)) {
            return fileOrFolder;
        }
        Path file = fileOrFolder.resolve(TRAIN);
        if (!Files.exists(file)) {
            throw new FormatException(fileOrFolder + ": is a folder without " + TRAIN
                    + "; expected a JSONL file, or a folder that has it");
        }
        return file;
    }

    /**
     * Returns the file of a folder to evaluate on while training, if there is one; nothing for a file.
     *
     * @throws FormatException if the folder has it under both names
     */
    public static Optional<Path> validation(Path fileOrFolder) throws FormatException {
        if (!Files.isDirectory(fileOrFolder)) {
            return Optional.empty();
        }
        List<Path> files =
                VALID.stream().map(fileOrFolder::resolve).filter(Files::exists).toList();
        if (files.size() > 1) {
            throw new FormatException(
                    fileOrFolder + ": has both " + String.join(" and ", VALID) + "; name one with eval_file");
        }
        return files.stream().findFirst();
    }

    /**
     * Returns the file to judge a finished model by: the file itself; of a folder {@code test.jsonl}, or else the validation file.
     *
     * @throws FormatException if the folder has neither
     */
    public static Path test(Path fileOrFolder) throws FormatException {
        if (!Files.isDirectory(fileOrFolder)) {
            return fileOrFolder;
        }
        Path test = fileOrFolder.resolve(TEST);
        if (Files.exists(test)) {
            return test;
        }
        return validation(fileOrFolder)
                .orElseThrow(() -> new FormatException(fileOrFolder + ": is a folder without " + TEST + " and "
                        + VALID.getFirst() + "; expected a JSONL file, or a folder that has one of them"));
    }
}
