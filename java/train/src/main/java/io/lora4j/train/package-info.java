@NullMarked
package io.lora4j.train;

import org.jspecify.annotations.NullMarked;
