package io.lora4j.formats.template;

/**
 * What a missing variable, attribute or item gives: empty where it is printed or looped over, false in a condition, an error
 * in every other use.
 *
 * @param name what was asked for, for the message
 */
record Undefined(String name) {
    TemplateError error() {
        return new TemplateError("'" + name + "' is undefined");
    }
}
