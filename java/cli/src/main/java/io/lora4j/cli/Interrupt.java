package io.lora4j.cli;

import java.util.concurrent.CountDownLatch;

/**
 * Turns Ctrl-C (SIGINT, SIGTERM) into a request to stop: the virtual machine's shutdown waits until this is closed, so that a step
 * can be finished and saved.
 */
final class Interrupt implements AutoCloseable {
    private final CountDownLatch done = new CountDownLatch(1);
    private final Thread hook;

    /** Runs {@code cancel} when the process is asked to stop. */
    Interrupt(Runnable cancel) {
        hook = new Thread(
                () -> {
                    cancel.run();
                    try {
                        done.await();
                    } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                    }
                },
                "lora4j-interrupt");
        Runtime.getRuntime().addShutdownHook(hook);
    }

    /** Lets a shutdown that is waiting go on. */
    @Override
    public void close() {
        done.countDown();
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException e) {
            // The shutdown is under way; the hook ends by itself.
            return;
        }
    }
}
