package io.lora4j.formats;

/**
 * A token with a role of its own, such as the end of a sequence.
 *
 * @param text the token's text
 * @param id its id
 */
public record SpecialToken(String text, int id) {}
