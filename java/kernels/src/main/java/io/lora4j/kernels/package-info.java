/**
 * The compute kernels of lora4j: devices, queues, tensors, base weights and the operations on them.
 *
 * <p>This is the only module that makes restricted calls of the Foreign Function &amp; Memory API. Programs grant it native
 * access with {@code --enable-native-access=io.lora4j.kernels} (module path) or {@code ALL-UNNAMED} (class path).
 */
@NullMarked
package io.lora4j.kernels;

import org.jspecify.annotations.NullMarked;
