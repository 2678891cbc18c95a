package io.lora4j.kernels;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * The life of a native object: open, in use by a number of calls or children, closed. It is what keeps a handle from being freed
 * under a running call.
 */
final class Handle {
    private static final int CLOSED = -1;

    private final AtomicInteger uses = new AtomicInteger();
    private final String name;

    Handle(String name) {
        this.name = name;
    }

    /** Takes one of any number of shares. */
    void acquire() {
        int now;
        do {
            now = uses.get();
            if (now == CLOSED) {
                throw closed();
            }
        } while (!uses.compareAndSet(now, now + 1));
    }

    /** Takes the only share. */
    void acquireExclusively() {
        if (!uses.compareAndSet(0, 1)) {
            throw uses.get() == CLOSED ? closed() : busy();
        }
    }

    void release() {
        uses.decrementAndGet();
    }

    /** Returns true for the call that closes, false when closed already; fails while shares are out. */
    boolean close() {
        if (uses.compareAndSet(0, CLOSED)) {
            return true;
        }
        if (uses.get() == CLOSED) {
            return false;
        }
        throw busy();
    }

    boolean isClosed() {
        return uses.get() == CLOSED;
    }

    private IllegalStateException closed() {
        return new IllegalStateException("the " + name + " is closed");
    }

    private Lora4jException busy() {
        return new Lora4jException(Status.EBUSY, "the " + name + " is in use");
    }
}
