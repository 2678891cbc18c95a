/**
 * The {@code lora4j} command: trains, evaluates, generates, inspects. What it does is in {@code io.lora4j.train}; here are only
 * its options, what it prints, and its exit status.
 */
@NullMarked
package io.lora4j.cli;

import org.jspecify.annotations.NullMarked;
