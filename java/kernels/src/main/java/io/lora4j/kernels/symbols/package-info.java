/** Where the generated bindings find the functions of the native library. Not exported. */
@org.jspecify.annotations.NullMarked
package io.lora4j.kernels.symbols;
