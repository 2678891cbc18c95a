/** Programs on top of the library, each to be read in one sitting. */
@NullMarked
package io.lora4j.examples;

import org.jspecify.annotations.NullMarked;
