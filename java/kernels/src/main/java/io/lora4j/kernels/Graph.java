package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * Operations that {@link Queue#record} has recorded, to be run again in one call: a CUDA graph. It keeps their weights open, their
 * arguments reachable and a workspace of its own; the memory of tensors must stay open as for the operations themselves. What
 * arguments point to is read anew in every run: inputs, learning rates, segments.
 *
 * <p>Threads: as for the queue. Close it before the queue.
 */
public final class Graph implements AutoCloseable {
    private final Handle state = new Handle("graph");
    private final Queue queue;
    private final MemorySegment handle;
    private final List<Arguments> arguments;
    private final Workspace workspace;

    Graph(Queue queue, MemorySegment handle, List<Arguments> arguments, Workspace workspace) {
        this.queue = queue;
        this.handle = handle;
        this.arguments = arguments;
        this.workspace = workspace;
    }

    /** Gives the recorded work to the queue. Like an operation it returns before the work is done. */
    public void launch() {
        state.acquire();
        try {
            arguments.forEach(Arguments::requireAccess);
            queue.lend((owner, error) -> error.check(LoraNative.l4j_graph_launch(handle, owner, error.segment())));
        } finally {
            state.release();
        }
    }

    /** Waits for the queue and releases the graph and its workspace. Closing it again has no effect. */
    @Override
    public void close() {
        if (state.close()) {
            try (Arena arena = Arena.ofConfined()) {
                queue.synchronizeUnlessClosed();
                NativeError error = new NativeError(arena);
                error.check(LoraNative.l4j_graph_destroy(handle, error.segment()));
            } finally {
                arguments.forEach(Arguments::release);
                workspace.close();
            }
        }
    }
}
