/** Benchmarks of the kernels through the Java API: what the bindings add to the native times of {@code bench/native}. */
@NullMarked
package io.lora4j.bench;

import org.jspecify.annotations.NullMarked;
