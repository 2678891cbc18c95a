package io.lora4j.kernels;

import java.lang.foreign.MemorySegment;

/**
 * What the argument objects of all operations have in common: a native struct that was filled in once, and the tensors and weights
 * to which it points.
 */
abstract class Arguments {
    private final MemorySegment struct;
    private final Tensor[] tensors;
    private final Weight[] weights;
    private final String name;

    Arguments(ArgumentBlock block) {
        this.name = block.name();
        this.struct = block.struct();
        this.tensors = block.tensors();
        this.weights = block.weights();
    }

    MemorySegment struct() {
        return struct;
    }

    /** Checks that all memory may be used by this thread, and keeps all weights open until {@link #release}. */
    final void acquire(Device device) {
        requireAccess();
        int held = 0;
        try {
            for (; held < weights.length; held++) {
                Weight weight = weights[held];
                if (weight.device() != device) {
                    throw new Lora4jException(
                            Status.EDEVICE, name + ": " + weight + " belongs to another device than the queue");
                }
                weight.acquire();
            }
        } catch (Throwable failure) {
            while (held > 0) {
                weights[--held].release();
            }
            throw failure;
        }
    }

    /** Checks that all memory may be used by this thread. */
    final void requireAccess() {
        requireAccess(name, struct);
        for (Tensor tensor : tensors) {
            requireAccess(name, tensor);
        }
    }

    final void release() {
        for (Weight weight : weights) {
            weight.release();
        }
    }

    static void requireAccess(String name, Tensor tensor) {
        requireAccess(name, tensor.segment());
    }

    private static void requireAccess(String name, MemorySegment segment) {
        if (!segment.scope().isAlive()) {
            throw new IllegalStateException(name + ": the arena of an argument is closed");
        }
        if (!segment.isAccessibleBy(Thread.currentThread())) {
            throw new WrongThreadException(name + ": the arena of an argument belongs to another thread");
        }
    }
}
