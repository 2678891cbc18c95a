package io.lora4j.kernels.symbols;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.util.Optional;

/**
 * The symbols of the loaded library. The bindings ask here and not the class loader: a library that {@link System#load} has bound
 * to one class loader cannot be loaded in another, and an application server has many. Thread-safe.
 */
public final class NativeSymbols {
    /** Finds nothing until a library is loaded. */
    public static final SymbolLookup LOOKUP = NativeSymbols::find;

    private static volatile SymbolLookup library = name -> Optional.empty();

    private NativeSymbols() {}

    /** Makes a loaded library the one that is asked. */
    public static void use(SymbolLookup loaded) {
        library = loaded;
    }

    private static Optional<MemorySegment> find(String name) {
        return library.find(name);
    }
}
