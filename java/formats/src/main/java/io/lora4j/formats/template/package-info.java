/**
 * Chat templates: an interpreter of the part of Jinja that chat templates use, which also tells where in the rendered text
 * each assistant message's answer lies.
 *
 * <p>The pipeline is one class a step: {@code Lexer} (whitespace control as transformers sets it), {@code Parser} (to the
 * records of {@code Node}), {@code Evaluator} (statements and scopes), {@code Expressions}, {@code Filters}, {@code Tests} and
 * {@code Methods}. Every string is a {@code Text}, whose characters remember which message they come from.
 */
@NullMarked
package io.lora4j.formats.template;

import org.jspecify.annotations.NullMarked;
