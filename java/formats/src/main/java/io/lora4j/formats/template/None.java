package io.lora4j.formats.template;

/** Python's {@code None}. */
enum None {
    NONE
}
