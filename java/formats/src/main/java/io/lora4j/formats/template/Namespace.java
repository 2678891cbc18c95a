package io.lora4j.formats.template;

import java.util.Map;

/**
 * A {@code namespace(…)}: attributes that a template may assign inside loops.
 *
 * @param attributes the attributes, mutable
 */
record Namespace(Map<String, Object> attributes) {}
