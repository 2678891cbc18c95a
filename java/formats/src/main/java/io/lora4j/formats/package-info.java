@NullMarked
package io.lora4j.formats;

import org.jspecify.annotations.NullMarked;
