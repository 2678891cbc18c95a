package io.lora4j.cli;

import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Reads files that people write. */
final class TextFile {
    private TextFile() {}

    /**
     * Returns the text of a file.
     *
     * @throws FormatException if it is missing, a folder, or not UTF-8
     */
    static String read(Path file) throws IOException {
        if (!Files.exists(file)) {
            throw new FormatException(file + ": no such file; check the path");
        }
        if (Files.isDirectory(file)) {
            throw new FormatException(file + ": is a folder; expected a file");
        }
        try {
            String text = StandardCharsets.UTF_8
                    .newDecoder()
                    .decode(ByteBuffer.wrap(Files.readAllBytes(file)))
                    .toString();
            return text.startsWith("\uFEFF") ? text.substring(1) : text;
        } catch (CharacterCodingException e) {
            throw new FormatException(file + ": is not valid UTF-8; convert the file to UTF-8", e);
        }
    }
}
