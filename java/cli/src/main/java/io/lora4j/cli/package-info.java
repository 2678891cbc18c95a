@NullMarked
package io.lora4j.cli;

import org.jspecify.annotations.NullMarked;
