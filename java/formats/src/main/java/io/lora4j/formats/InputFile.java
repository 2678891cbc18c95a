package io.lora4j.formats;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import tools.jackson.core.JacksonException;

/** Whole files as users give them, and what is said of those that cannot be read: the system's own words name no file. */
public final class InputFile {
    private InputFile() {}

    /**
     * Checks that there is something to read.
     *
     * @throws FormatException if the file is missing or a folder
     */
    public static void require(Path file) throws FormatException {
        if (Files.isDirectory(file)) {
            throw new FormatException(file + ": is a folder; expected a file");
        }
        if (Files.notExists(file)) { // Not the opposite of exists: what may not be read is said by the system.
            throw new FormatException(file + ": no such file; check the path");
        }
    }

    /**
     * Returns the bytes of a file.
     *
     * @throws FormatException if it is missing or a folder
     */
    public static byte[] bytes(Path file) throws IOException {
        require(file);
        try {
            return Files.readAllBytes(file);
        } catch (NoSuchFileException e) {
            throw new FormatException(file + ": no such file; check the path", e);
        }
    }

    /**
     * Returns the text of a file, a byte order mark included.
     *
     * @throws FormatException if it is missing, a folder, or not UTF-8
     */
    public static String text(Path file) throws IOException {
        return text(bytes(file), file.toString());
    }

    /**
     * Returns bytes as text.
     *
     * @param where begins the message, for example the file's name
     * @throws FormatException if they are not UTF-8
     */
    public static String text(byte[] bytes, String where) throws FormatException {
        try {
            return StandardCharsets.UTF_8
                    .newDecoder()
                    .decode(ByteBuffer.wrap(bytes))
                    .toString();
        } catch (CharacterCodingException e) {
            throw new FormatException(where + ": is not valid UTF-8; convert it to UTF-8", e);
        }
    }

    /** Returns what is wrong with a JSON text, without the parser's advice on how to configure it. */
    public static String jsonProblem(JacksonException e) {
        String problem = e.getOriginalMessage().lines().findFirst().orElse("");
        if (problem.startsWith("Trailing token")) {
            return "something follows the value";
        }
        return problem.replaceFirst(" \\(start marker at .*", "")
                .replaceFirst(": enable `.*", "")
                .replaceFirst(", from `[^`]*`", "");
    }
}
