/** JavaCPP's pointers as tensors, and tensors as JavaCPP's pointers: see {@link io.lora4j.interop.javacpp.JavaCpp}. */
@NullMarked
package io.lora4j.interop.javacpp;

import org.jspecify.annotations.NullMarked;
