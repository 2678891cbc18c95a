package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_queue_options;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Runs operations, one at a time, on a pool of threads of its own. Results never depend on the number of threads.
 *
 * <p>The queue owns the workspace of its operations: one off-heap block that grows to what the largest of them asked for and is
 * released when the queue is closed.
 *
 * <p>Threads: any thread may give work to a queue, but only one at a time. A second one gets {@link Status#EBUSY} instead of
 * waiting; use a queue for each thread. {@link #close} fails with {@link Status#EBUSY} while an operation runs.
 *
 * <p>Memory of the arguments is checked to be open and accessible when an operation starts. From then on it has to stay so: closing
 * a shared arena in another thread while an operation uses its memory takes the memory away under native code, which ends the
 * process. (A confined arena cannot be closed meanwhile: its thread is the one that waits for the operation.)
 */
public final class Queue implements AutoCloseable {
    private final Handle state = new Handle("queue");
    private final Device device;
    private final MemorySegment handle;
    private final int threads;

    private final Arena arena = Arena.ofShared();
    private final NativeError error = new NativeError(arena);
    private final MemorySegment bytes = arena.allocate(ValueLayout.JAVA_LONG);
    private final Workspace workspace = new Workspace();

    private Queue(Device device, MemorySegment handle, int threads) {
        this.device = device;
        this.handle = handle;
        this.threads = threads;
    }

    /** Creates a queue with a thread for each CPU that this process may run on. */
    public static Queue create(Device device) {
        return create(device, 0);
    }

    /**
     * Creates a queue.
     *
     * @param threads threads that compute, the caller's included; 0 = one for each CPU that this process may run on
     */
    public static Queue create(Device device, int threads) {
        MemorySegment owner = device.acquire();
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment options = arena.allocate(l4j_queue_options.layout());
            l4j_queue_options.struct_size(
                    options, (int) l4j_queue_options.layout().byteSize());
            l4j_queue_options.threads(options, threads);
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            error.check(LoraNative.l4j_queue_create(owner, options, out, error.segment()));
            MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);
            return new Queue(device, handle, LoraNative.l4j_queue_threads(handle));
        } catch (Throwable failure) {
            device.release();
            throw failure;
        }
    }

    /** Returns the device of this queue. */
    public Device device() {
        return device;
    }

    /** Returns the number of threads that compute, the caller's included. */
    public int threads() {
        return threads;
    }

    /** Returns the size of the workspace now, in bytes. */
    public long workspaceBytes() {
        return workspace.bytes();
    }

    /**
     * Waits until everything given to the queue has run, and reports the first failure that came later than its call. On the CPU
     * calls return when they are done, so there is nothing to wait for.
     */
    public void synchronize() {
        state.acquireExclusively();
        try {
            error.check(LoraNative.l4j_queue_synchronize(handle, error.segment()));
        } finally {
            state.release();
        }
    }

    /**
     * Stops the threads and releases the workspace. Closing a queue again has no effect.
     *
     * @throws Lora4jException with {@link Status#EBUSY}, and nothing is closed, while an operation runs
     */
    @Override
    public void close() {
        if (state.close()) {
            try {
                error.check(LoraNative.l4j_queue_destroy(handle, error.segment()));
            } finally {
                workspace.close();
                arena.close();
                device.release();
            }
        }
    }

    /** Runs one operation with arguments that are known to be alive for as long as it takes. */
    void run(Kernel kernel, Arguments arguments) {
        state.acquireExclusively();
        try {
            arguments.acquire(device);
            try {
                MemorySegment struct = arguments.struct();
                error.check(kernel.workspace(handle, struct, bytes, error.segment()));
                long needed = bytes.get(ValueLayout.JAVA_LONG, 0);
                MemorySegment scratch = workspace.atLeast(needed);
                error.check(kernel.run(handle, struct, scratch, scratch.byteSize(), error.segment()));
            } finally {
                arguments.release();
                Reference.reachabilityFence(arguments);
            }
        } finally {
            state.release();
        }
    }

    /** Lends the native queue to something that is not an operation. */
    <T extends @Nullable Object> T lend(Function<MemorySegment, T> use) {
        state.acquireExclusively();
        try {
            return use.apply(handle);
        } finally {
            state.release();
        }
    }

    @Override
    public String toString() {
        return "queue(" + device + ", " + threads + " threads)";
    }
}
