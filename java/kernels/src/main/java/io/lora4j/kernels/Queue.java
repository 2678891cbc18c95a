package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_queue_options;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Runs operations, one at a time, on a pool of threads of its own. Results never depend on the number of threads.
 *
 * <p>On a GPU a queue is a CUDA stream: operations return when they have been given to it. {@link #synchronize} waits for them and
 * reports what was found wrong meanwhile; reading a tensor's elements waits too.
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
    private Workspace workspace;
    /** The arguments of what is being recorded. */
    private @Nullable List<Arguments> recorded;

    private Queue(Device device, MemorySegment handle, int threads) {
        this.device = device;
        this.handle = handle;
        this.threads = threads;
        this.workspace = new Workspace(device);
    }

    /** Creates a queue with a thread for each CPU that this process may run on, or a stream of its own on a GPU. */
    public static Queue create(Device device) {
        return create(device, 0);
    }

    /**
     * Creates a queue.
     *
     * @param threads threads that compute, the caller's included; 0 = one for each CPU that this process may run on; 0 on a GPU
     */
    public static Queue create(Device device, int threads) {
        return create(device, options -> l4j_queue_options.threads(options, threads));
    }

    /**
     * Creates a queue of a GPU that works on another's stream, so that its operations come after what is there already and before
     * what follows.
     *
     * @param stream a {@code cudaStream_t} (or {@code CUstream}) of the device, as an address; 0 is CUDA's default stream. It stays its
     *     owner's and must outlive the queue
     */
    public static Queue onStream(Device device, long stream) {
        return create(device, options -> {
            l4j_queue_options.flags(options, LoraNative.L4J_QUEUE_STREAM());
            l4j_queue_options.stream(options, MemorySegment.ofAddress(stream));
        });
    }

    private static Queue create(Device device, Consumer<MemorySegment> settings) {
        MemorySegment owner = device.acquire();
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment options = arena.allocate(l4j_queue_options.layout());
            l4j_queue_options.struct_size(
                    options, (int) l4j_queue_options.layout().byteSize());
            settings.accept(options);
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

    /** Returns the number of threads that compute, the caller's included; of a GPU its multiprocessors. */
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

    void synchronizeUnlessClosed() {
        if (!state.isClosed()) {
            synchronize();
        }
    }

    /**
     * Records what an action gives to this queue, a GPU's, into a graph instead of running it. The same operations must have run on
     * this queue once before, so that its workspace is as large as they need; the graph takes that workspace.
     *
     * @throws Lora4jException with {@link Status#EINVAL} on the CPU
     */
    public Graph record(Runnable work) {
        lend((owner, error) -> error.check(LoraNative.l4j_graph_begin(owner, error.segment())));
        List<Arguments> kept = new ArrayList<>();
        recorded = kept;
        try (Arena call = Arena.ofConfined()) {
            MemorySegment out = call.allocate(ValueLayout.ADDRESS);
            try {
                work.run();
            } catch (Throwable failure) {
                lend((owner, error) -> LoraNative.l4j_graph_end(owner, out, error.segment()));
                throw failure;
            }
            lend((owner, error) -> error.check(LoraNative.l4j_graph_end(owner, out, error.segment())));
            Workspace used = workspace;
            workspace = new Workspace(device);
            return new Graph(this, out.get(ValueLayout.ADDRESS, 0), List.copyOf(kept), used);
        } catch (Throwable failure) {
            kept.forEach(Arguments::release);
            throw failure;
        } finally {
            recorded = null;
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
                workspace.close(); // after the stream has passed
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
            boolean keep = false;
            try {
                MemorySegment struct = arguments.struct();
                error.check(kernel.workspace(handle, struct, bytes, error.segment()));
                long needed = bytes.get(ValueLayout.JAVA_LONG, 0);
                if (recorded != null && needed > workspace.bytes()) {
                    throw Lora4jException.invalid(
                            "the workspace has " + workspace.bytes() + " bytes and the operation needs " + needed
                                    + ", but it cannot grow while a graph is recorded; run the same operations once before");
                }
                MemorySegment scratch = workspace.atLeast(needed);
                error.check(kernel.run(handle, struct, scratch, workspace.bytes(), error.segment()));
                keep = recorded != null && recorded.add(arguments);
            } finally {
                if (!keep) {
                    arguments.release();
                }
                Reference.reachabilityFence(arguments);
            }
        } finally {
            state.release();
        }
    }

    /** Something to do with the native queue that is not an operation. */
    interface Loan {
        void use(MemorySegment queue, NativeError error);
    }

    /** Lends the native queue. */
    void lend(Loan loan) {
        state.acquireExclusively();
        try {
            loan.use(handle, error);
        } finally {
            state.release();
        }
    }

    /** Copies bytes between any two memories, in the queue's order, and waits. */
    void copy(MemorySegment to, MemorySegment from, long count) {
        lend((owner, failure) -> {
            failure.check(LoraNative.l4j_memory_copy(owner, to, from, count, failure.segment()));
            failure.check(LoraNative.l4j_queue_synchronize(owner, failure.segment()));
        });
    }

    /** Zeroes memory of the device, in the queue's order. */
    void zero(MemorySegment memory, long count) {
        lend((owner, failure) -> failure.check(LoraNative.l4j_memory_fill(owner, memory, 0, count, failure.segment())));
    }

    @Override
    public String toString() {
        return "queue(" + device + (device.isHost() ? ", " + threads + " threads)" : ")");
    }
}
