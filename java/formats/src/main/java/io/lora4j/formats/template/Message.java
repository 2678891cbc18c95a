package io.lora4j.formats.template;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A message of a conversation. Immutable.
 *
 * @param role who speaks: {@code system}, {@code user}, {@code assistant}, {@code tool}, …
 * @param content what is said: a String, or a List of Maps with {@code type} and {@code text}; null where there is none
 * @param extra further fields that a template may read, such as {@code name} or {@code tool_calls}
 * @param train whether the message may be learned; templates do not see it
 */
public record Message(String role, @Nullable Object content, Map<String, Object> extra, boolean train) {
    /** Copies the map. */
    public Message {
        extra = Collections.unmodifiableMap(new LinkedHashMap<>(extra));
    }

    /** Creates a message that may be learned. */
    public Message(String role, @Nullable Object content, Map<String, Object> extra) {
        this(role, content, extra, true);
    }

    /** Creates a message of plain text that may be learned. */
    public Message(String role, String content) {
        this(role, content, Map.of(), true);
    }
}
