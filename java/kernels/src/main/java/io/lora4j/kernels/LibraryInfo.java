package io.lora4j.kernels;

/**
 * The native library that was loaded.
 *
 * @param path the file, or how it was found
 * @param build one line about the build: release, ABI, compiler, tiers compiled in
 */
public record LibraryInfo(String path, String build) {}
