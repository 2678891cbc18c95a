package io.lora4j.kernels;

import java.lang.foreign.MemorySegment;

/** The two native functions of an operation: how much workspace it needs, and the operation. */
record Kernel(Size size, Run run) {
    /** {@code l4j_<op>_workspace}. */
    @FunctionalInterface
    interface Size {
        int apply(MemorySegment queue, MemorySegment arguments, MemorySegment bytes, MemorySegment error);
    }

    /** {@code l4j_<op>}. */
    @FunctionalInterface
    interface Run {
        int apply(
                MemorySegment queue, MemorySegment arguments, MemorySegment workspace, long bytes, MemorySegment error);
    }

    int workspace(MemorySegment queue, MemorySegment arguments, MemorySegment bytes, MemorySegment error) {
        return size.apply(queue, arguments, bytes, error);
    }

    int run(MemorySegment queue, MemorySegment arguments, MemorySegment workspace, long bytes, MemorySegment error) {
        return run.apply(queue, arguments, workspace, bytes, error);
    }
}
