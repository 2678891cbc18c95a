/** What a run leaves on disk and how it goes on after an interruption. */
@NullMarked
package io.lora4j.train.checkpoint;

import org.jspecify.annotations.NullMarked;
