package io.lora4j.kernels;

/** Finds and loads the native library, once. */
final class NativeLibrary {
    private NativeLibrary() {}

    static synchronized void load() {
        System.loadLibrary("lora4j");
    }
}
