package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;

/**
 * Memory of a queue's device, owned like an {@link Arena}: what {@link Tensor#allocate} takes from it stays until this is closed, and
 * closing waits for what the queue has been given. On the CPU it is memory like any other, in huge pages where there is much of it;
 * on a GPU it is the GPU's, and the methods of {@link Tensor} that read or write elements copy them, in the queue's order.
 *
 * <p>Threads: any, but a queue is used by one at a time.
 */
public final class DeviceMemory implements SegmentAllocator, AutoCloseable {
    private final Handle state = new Handle("device memory");
    private final Queue queue;
    private final MemorySegment device;
    private final Arena arena = Arena.ofShared();

    private DeviceMemory(Queue queue, MemorySegment device) {
        this.queue = queue;
        this.device = device;
    }

    /** Starts without any memory. Close it before the device. */
    public static DeviceMemory of(Queue queue) {
        return new DeviceMemory(queue, queue.device().acquire());
    }

    /** Returns the queue that reads and writes of elements go through. */
    public Queue queue() {
        return queue;
    }

    /** Returns whether Java may access the memory itself. */
    public boolean isHost() {
        return queue.device().isHost();
    }

    /**
     * Allocates memory of the device, uninitialised. The segment of a GPU's memory is an address and a size: accessing it from Java
     * ends the process, so give it to {@link Tensor#of} for nothing but operations.
     *
     * @param alignment at most {@link Tensor#ALIGNMENT}
     * @throws Lora4jException with {@link Status#ENOMEM}
     */
    @Override
    @SuppressWarnings("restricted")
    public MemorySegment allocate(long bytes, long alignment) {
        if (bytes < 0 || alignment < 1 || alignment > Tensor.ALIGNMENT || Long.bitCount(alignment) != 1) {
            throw new IllegalArgumentException("cannot allocate " + bytes + " bytes of device memory aligned to "
                    + alignment + "; expected a power of two up to " + Tensor.ALIGNMENT);
        }
        state.acquire();
        try {
            return allocate(device, bytes).reinterpret(bytes, arena, block -> free(device, block));
        } finally {
            state.release();
        }
    }

    /**
     * Returns a contiguous row-major tensor over memory of the same device that something else owns, another library for instance. It
     * behaves as if it had been allocated here: what Java reads and writes of it is copied in this queue's order. Closing this leaves
     * it alone; the segment's arena and its owner say how long it lasts.
     *
     * @param segment address and size, such as {@link ForeignMemory#of} makes
     * @throws IndexOutOfBoundsException if the segment is too small
     */
    public Tensor tensor(MemorySegment segment, DType dtype, long... shape) {
        return isHost() ? Tensor.of(segment, dtype, shape) : Tensor.of(this, segment, dtype, shape);
    }

    /** Memory that {@link #free} must give back. */
    static MemorySegment allocate(MemorySegment device, long bytes) {
        try (Arena call = Arena.ofConfined()) {
            NativeError error = new NativeError(call);
            MemorySegment out = call.allocate(ValueLayout.ADDRESS);
            error.check(LoraNative.l4j_memory_allocate(device, bytes, out, error.segment()));
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }

    static void free(MemorySegment device, MemorySegment block) {
        try (Arena call = Arena.ofConfined()) {
            NativeError error = new NativeError(call);
            error.check(LoraNative.l4j_memory_free(device, block, error.segment()));
        }
    }

    /**
     * Waits for the queue, unless it is closed, and releases the memory. Closing it again has no effect.
     *
     * @throws Lora4jException what {@link Queue#synchronize} reports; the memory is released nevertheless
     */
    @Override
    public void close() {
        if (state.close()) {
            try {
                queue.synchronizeUnlessClosed();
            } finally {
                arena.close();
                queue.device().release();
            }
        }
    }

    @Override
    public String toString() {
        return "memory of " + queue.device();
    }
}
