package io.lora4j.kernels;

import io.lora4j.kernels.generated.l4j_error;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;

/** The caller-supplied buffer into which a failing native call writes its message. */
final class NativeError {
    private final MemorySegment struct;

    NativeError(SegmentAllocator allocator) {
        struct = allocator.allocate(l4j_error.layout());
    }

    MemorySegment segment() {
        return struct;
    }

    /** Throws what a status other than OK says, with the native message as it is. */
    void check(int status) {
        if (status != 0) {
            String message = l4j_error.message(struct).getString(0);
            throw Lora4jException.of(Status.of(status), message.isEmpty() ? "status " + status : message);
        }
    }
}
