package io.lora4j.cli;

import java.io.InputStream;
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
                new PrintWriter(System.out, true, StandardCharsets.UTF_8),
                new PrintWriter(System.err, true, StandardCharsets.UTF_8));
    }

    /** Prints one JSON document as the result. */
    void json(Object document) {
        out.println(JSON.writeValueAsString(document));
        out.flush();
    }
}
