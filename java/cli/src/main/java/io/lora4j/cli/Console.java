package io.lora4j.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import tools.jackson.databind.SerializationFeature;
import tools.jackson.databind.json.JsonMapper;

/**
 * Where a command reads and writes, in UTF-8 whatever the locale says.
 *
 * @param in standard input
 * @param out results
 * @param err progress, warnings, errors
 */
record Console(InputStream in, PrintWriter out, PrintWriter err) {
    private static final JsonMapper JSON =
            JsonMapper.builder().enable(SerializationFeature.INDENT_OUTPUT).build();

    static Console ofSystem() {
        return new Console(
                System.in,
                new PrintWriter(new Results(new FileOutputStream(FileDescriptor.out)), true, StandardCharsets.UTF_8),
                new PrintWriter(System.err, true, StandardCharsets.UTF_8));
    }

    /** Prints one JSON document as the result. */
    void json(Object document) {
        out.println(JSON.writeValueAsString(document));
        out.flush();
    }

    /** Nobody gets the results: the reader has gone, or the disk is full. */
    static final class OutputException extends RuntimeException {
        private static final long serialVersionUID = 1;

        OutputException(IOException cause) {
            super("standard output: " + cause.getMessage(), cause);
        }

        /** Returns whether the reader of a pipe has gone, as {@code head} does: no failure. */
        boolean readerHasGone() {
            return String.valueOf(getMessage()).endsWith("Broken pipe");
        }
    }

    /** A PrintWriter hides failures of what it writes to, unless they are of this kind. */
    static final class Results extends OutputStream {
        private final OutputStream to;

        Results(OutputStream to) {
            this.to = to;
        }

        @Override
        public void write(int b) {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int from, int count) {
            try {
                to.write(bytes, from, count);
            } catch (IOException e) {
                throw new OutputException(e);
            }
        }

        @Override
        public void flush() {
            try {
                to.flush();
            } catch (IOException e) {
                throw new OutputException(e);
            }
        }
    }
}
