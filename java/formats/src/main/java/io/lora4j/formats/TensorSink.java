package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;

/** Takes the bytes of the tensor that is being written, in one part or many. */
@FunctionalInterface
public interface TensorSink {
    /** Appends bytes, little endian, to the tensor. */
    void accept(MemorySegment part) throws IOException;
}
