/**
 * The file formats around a language model: checkpoints (safetensors, GGUF), {@code config.json}, PEFT adapters,
 * tokenizers and, in {@link io.lora4j.formats.template}, chat templates.
 *
 * <p>Weights are memory-mapped and never copied to the heap. Everything that a file can get wrong is reported as a {@link
 * io.lora4j.formats.FormatException} that names the file, the tensor, field or line, what was found, what was expected and
 * what to do; files are written whole or not at all.
 */
@NullMarked
package io.lora4j.formats;

import org.jspecify.annotations.NullMarked;
