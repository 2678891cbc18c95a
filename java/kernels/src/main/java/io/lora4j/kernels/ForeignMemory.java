package io.lora4j.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Memory that somebody else has allocated, for bridges to other libraries: makes segments of it, which {@link Tensor#of} and
 * {@link Tensor#strided} take. As unsafe as {@link MemorySegment#reinterpret}: an address or a size that is wrong is read and
 * written all the same.
 *
 * <p>Threads: any.
 */
public final class ForeignMemory {
    private ForeignMemory() {}

    /**
     * Returns memory that stays another's. The segment may be used by any thread.
     *
     * @param address where it begins
     * @param bytes its size
     * @param release run once, by a thread of the JVM's, when nothing refers to the segment or a slice of it any more: until then
     *     the memory must stay. It keeps what it refers to reachable, and must not refer to the segment
     */
    @SuppressWarnings("restricted")
    public static MemorySegment of(long address, long bytes, Runnable release) {
        if (address == 0 && bytes > 0 || bytes < 0) {
            throw new IllegalArgumentException("no memory of " + bytes + " bytes at address " + address);
        }
        return MemorySegment.ofAddress(address).reinterpret(bytes, Arena.ofAuto(), segment -> release.run());
    }

    /**
     * Has an action run when an arena is closed, just before its memory goes.
     *
     * @throws IllegalStateException if the arena is closed already
     */
    @SuppressWarnings("restricted")
    public static void onClose(Arena arena, Runnable action) {
        // Of no memory at all: only its end is of interest.
        MemorySegment ignored = MemorySegment.NULL.reinterpret(arena, segment -> action.run());
    }
}
