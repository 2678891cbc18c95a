package io.lora4j.cli;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.InputFile;
import java.io.IOException;
import java.nio.file.Path;

/** Reads files that people write. */
final class TextFile {
    private TextFile() {}

    /**
     * Returns the text of a file without a byte order mark.
     *
     * @throws FormatException if it is missing, a folder, or not UTF-8
     */
    static String read(Path file) throws IOException {
        String text = InputFile.text(file);
        return text.startsWith("\uFEFF") ? text.substring(1) : text;
    }
}
