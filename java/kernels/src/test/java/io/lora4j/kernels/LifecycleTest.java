package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is refused after a close, from the wrong thread, on the wrong device; and how memory is kept and bounded. */
class LifecycleTest {
    private Fixture f;

    @BeforeEach
    void open() {
        f = new Fixture(Isa.REF);
    }

    @AfterEach
    void close() {
        f.close();
    }

    private Swiglu swiglu(Arena arena, long rows) {
        return Swiglu.builder(arena)
                .gate(Tensor.allocate(arena, DType.F32, rows, 8))
                .up(Tensor.allocate(arena, DType.F32, rows, 8))
                .out(Tensor.allocate(arena, DType.F32, rows, 8))
                .build();
    }

    private static Status statusOf(Runnable action) {
        try {
            action.run();
        } catch (Lora4jException e) {
            return e.status();
        }
        return Status.OK;
    }

    @Test
    void describesTheDevice() {
        DeviceInfo info = f.device.info();
        assertThat(info.isa()).isEqualTo(Isa.REF);
        assertThat(info.bestIsa()).isBetween(Isa.REF, Isa.AVX512);
        assertThat(info.logicalCpus()).isPositive();
        assertThat(info.cpuName()).isNotBlank();
        assertThat(info.memoryBytes()).isPositive();
        assertThat(f.device).hasToString("cpu(ref)");
        try (Queue one = Queue.create(f.device, 1)) {
            assertThat(one.threads()).isEqualTo(1);
            one.synchronize();
        }
        assertThat(f.queue.threads()).isEqualTo(2);
        assertThat(Device.library().build()).isNotBlank();
    }

    @Test
    void closingTwiceHasNoEffect() {
        Device device = Device.cpu(Isa.REF);
        Queue queue = Queue.create(device, 1);
        Weight weight = Weight.pack(queue, f.random(DType.F32, 3, 4));
        for (int i = 0; i < 2; i++) {
            weight.close();
            queue.close();
            device.close();
        }
    }

    @Test
    void aDeviceOutlivesItsQueuesAndWeights() {
        Device device = Device.cpu(Isa.REF);
        Queue queue = Queue.create(device, 1);
        assertThat(statusOf(device::close)).isEqualTo(Status.EBUSY);
        Weight weight = Weight.borrow(device, f.random(DType.F32, 3, 4));
        queue.close();
        assertThat(statusOf(device::close)).isEqualTo(Status.EBUSY);
        weight.close();
        device.close();
        assertThatIllegalStateException().isThrownBy(() -> Queue.create(device)).withMessage("the device is closed");
        assertThatIllegalStateException()
                .isThrownBy(() -> Weight.borrow(device, f.random(DType.F32, 3, 4)))
                .withMessage("the device is closed");
    }

    @Test
    void aFailedQueueDoesNotHoldTheDevice() {
        Device device = Device.cpu(Isa.REF);
        assertThat(statusOf(() -> Queue.create(device, -1))).isEqualTo(Status.EINVAL);
        assertThat(statusOf(() -> Weight.borrow(device, f.random(DType.F32, 3))))
                .isEqualTo(Status.EINVAL);
        device.close();
    }

    @Test
    void closedQueue() {
        Queue queue = Queue.create(f.device, 1);
        queue.close();
        Swiglu arguments = swiglu(f.arena, 3);
        assertThatIllegalStateException()
                .isThrownBy(() -> SwigluOps.forward(queue, arguments))
                .withMessage("the queue is closed");
        assertThatIllegalStateException().isThrownBy(queue::synchronize);
        assertThatIllegalStateException().isThrownBy(() -> Weight.pack(queue, f.random(DType.F32, 3, 4)));
    }

    @Test
    void closedWeight() {
        Weight weight = Weight.pack(f.queue, f.random(DType.F32, 3, 4));
        Lora arguments = Lora.builder(f.arena)
                .x(f.random(2, 4))
                .projection(weight)
                .y(f.zeros(2, 3))
                .build();
        LoraOps.forward(f.queue, arguments);
        weight.close();
        assertThatIllegalStateException()
                .isThrownBy(() -> LoraOps.forward(f.queue, arguments))
                .withMessage("the weight is closed");
    }

    @Test
    void closedArenas() {
        Arena inner = Arena.ofConfined();
        Swiglu arguments = swiglu(inner, 3);
        SwigluOps.forward(f.queue, arguments);
        inner.close();
        assertThatIllegalStateException()
                .isThrownBy(() -> SwigluOps.forward(f.queue, arguments))
                .withMessageContaining("arena of an argument is closed");

        Arena values = Arena.ofShared();
        try (Weight weight = Weight.borrow(f.device, Tensor.allocate(values, DType.F32, 3, 4))) {
            Lora product = Lora.builder(f.arena)
                    .x(f.random(2, 4))
                    .projection(weight)
                    .y(f.zeros(2, 3))
                    .build();
            LoraOps.forward(f.queue, product);
            values.close();
            assertThatIllegalStateException().isThrownBy(() -> LoraOps.forward(f.queue, product));
        }
    }

    @Test
    void confinedMemoryOfAnotherThread() throws InterruptedException {
        Swiglu arguments = swiglu(f.arena, 3);
        AtomicReference<Throwable> thrown = new AtomicReference<>();
        Thread other = Thread.ofPlatform().start(() -> {
            try {
                SwigluOps.forward(f.queue, arguments);
            } catch (Throwable t) {
                thrown.set(t);
            }
        });
        other.join();
        assertThat(thrown.get()).isInstanceOf(WrongThreadException.class);
        SwigluOps.forward(f.queue, arguments);
    }

    @Test
    void aSecondThreadIsToldThatTheQueueIsBusy() throws InterruptedException {
        try (Arena shared = Arena.ofShared()) {
            Swiglu mine = swiglu(shared, 20_000);
            Swiglu theirs = swiglu(shared, 4);
            AtomicBoolean stop = new AtomicBoolean();
            CountDownLatch started = new CountDownLatch(1);
            Thread worker = Thread.ofPlatform().start(() -> {
                while (!stop.get()) {
                    try {
                        SwigluOps.forward(f.queue, mine);
                    } catch (Lora4jException busy) {
                        assertThat(busy.status()).isEqualTo(Status.EBUSY);
                    }
                    started.countDown();
                }
            });
            started.await();
            Status seen = Status.OK;
            long deadline = System.nanoTime() + 20_000_000_000L;
            while (seen == Status.OK && System.nanoTime() < deadline) {
                seen = statusOf(() -> SwigluOps.forward(f.queue, theirs));
            }
            Status closed = Status.OK;
            while (closed == Status.OK && System.nanoTime() < deadline) {
                closed = statusOf(f.queue::synchronize);
            }
            stop.set(true);
            worker.join();
            assertThat(seen).isEqualTo(Status.EBUSY);
            assertThat(closed).isEqualTo(Status.EBUSY);
            SwigluOps.forward(f.queue, theirs);
        }
    }

    @Test
    void manyQueuesShareAWeight() throws InterruptedException {
        try (Arena shared = Arena.ofShared()) {
            Tensor values = Tensor.allocate(shared, DType.F32, 16, 8);
            values.fill(0.5);
            try (Weight weight = Weight.borrow(f.device, values)) {
                AtomicReference<Throwable> thrown = new AtomicReference<>();
                Thread[] threads = new Thread[4];
                for (int i = 0; i < threads.length; i++) {
                    threads[i] = Thread.ofPlatform().start(() -> {
                        try (Arena arena = Arena.ofConfined();
                                Queue queue = Queue.create(f.device, 1)) {
                            Tensor x = Tensor.allocate(arena, DType.F32, 3, 8);
                            x.fill(1);
                            Tensor y = Tensor.allocate(arena, DType.F32, 3, 16);
                            Lora product = Lora.builder(arena)
                                    .x(x)
                                    .projection(weight)
                                    .y(y)
                                    .build();
                            for (int n = 0; n < 200; n++) {
                                y.fill(0);
                                LoraOps.forward(queue, product);
                                assertThat(y.toFloatArray()).containsOnly(4f);
                            }
                        } catch (Throwable t) {
                            thrown.set(t);
                        }
                    });
                }
                for (Thread thread : threads) {
                    thread.join();
                }
                assertThat(thrown.get()).isNull();
            }
        }
    }

    @Test
    void anotherDevicesWeight() {
        try (Device other = Device.cpu(Isa.REF);
                Weight weight = Weight.borrow(other, f.random(DType.F32, 3, 4))) {
            Lora arguments = Lora.builder(f.arena)
                    .x(f.random(2, 4))
                    .projection(f.pack(f.random(DType.F32, 3, 4)))
                    .y(f.zeros(2, 3))
                    .projection(weight)
                    .y(f.zeros(2, 3))
                    .build();
            assertThat(statusOf(() -> LoraOps.forward(f.queue, arguments))).isEqualTo(Status.EDEVICE);
        } // and the first weight, which was taken before, is free again: close() fails otherwise
    }

    @Test
    void weightsDescribeThemselvesAndRefuseNonFiniteValues() {
        Tensor values = f.random(DType.BF16, 5, 6);
        try (Weight borrowed = Weight.borrow(f.device, values);
                Weight packed = Weight.pack(f.queue, values)) {
            assertThat(borrowed.rows()).isEqualTo(5);
            assertThat(borrowed.cols()).isEqualTo(6);
            assertThat(borrowed.dtype()).isEqualTo(DType.BF16);
            assertThat(borrowed.bytesHeld()).isZero();
            assertThat(packed.bytesHeld()).isGreaterThanOrEqualTo(values.bytes());
            assertThat(packed).hasToString("weight BF16[5, 6]");
        }
        values.setFloat(Double.NaN, 3, 4);
        assertThatThrownBy(() -> Weight.borrow(f.device, values))
                .isInstanceOf(NumericException.class)
                .hasMessageContaining("3")
                .hasMessageContaining("4");
        assertThatThrownBy(() -> Weight.pack(f.queue, values)).isInstanceOf(NumericException.class);
        assertThat(statusOf(
                        () -> Weight.borrow(f.device, f.random(DType.F32, 4, 4).transpose(0, 1))))
                .isEqualTo(Status.EINVAL);
    }

    @Test
    void readOnlyMemoryIsNotWritten(@TempDir Path folder) throws Exception {
        Path file = folder.resolve("values");
        Files.write(file, new byte[128]);
        try (FileChannel channel = FileChannel.open(file);
                Arena arena = Arena.ofShared()) {
            MemorySegment mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, 128, arena);
            Tensor x = Tensor.of(mapped, DType.F32, 4, 8);
            Tensor y = f.poisoned(4, 8);
            SwigluOps.forward(
                    f.queue, Swiglu.builder(f.arena).gate(x).up(x).out(y).build());
            assertThat(y.toFloatArray()).containsOnly(0f);
            assertThatExceptionOfType(Lora4jException.class)
                    .isThrownBy(
                            () -> Swiglu.builder(f.arena).gate(y).up(y).out(x).build())
                    .withMessage("swiglu.out: F32[4, 8] is read-only, and the operation writes it");
        }
    }

    @Test
    void dataThatIsNotAlignedToItsElementsIsRefused() {
        MemorySegment bytes = f.arena.allocate(33 * 4, 64);
        Tensor odd = Tensor.strided(bytes, 2, DType.F32, new long[] {4, 8}, new long[] {8, 1});
        odd.fill(1.5);
        assertThat(odd.toFloatArray()).containsOnly(1.5f);
        Swiglu arguments =
                Swiglu.builder(f.arena).gate(odd).up(odd).out(f.zeros(4, 8)).build();
        assertThat(statusOf(() -> SwigluOps.forward(f.queue, arguments))).isEqualTo(Status.EALIGN);

        Tensor oddIds = Tensor.strided(bytes, 2, DType.I32, new long[] {4}, new long[] {1});
        assertThat(statusOf(() -> Embedding.builder(f.arena)
                        .out(f.zeros(4, 8))
                        .ids(oddIds)
                        .build()))
                .isEqualTo(Status.EALIGN);
    }

    @Test
    void closingGivesMemoryAndThreadsBack() throws IOException {
        Tensor values = f.random(DType.F32, 512, 512);
        packAndClose(values, 20);
        long memory = residentBytes();
        int threads = threads();
        packAndClose(values, 400); // 400 MiB if they stayed
        assertThat(residentBytes() - memory).isLessThan(100L << 20);
        assertThat(threads()).isLessThan(threads + 50);
    }

    private void packAndClose(Tensor values, int times) {
        for (int i = 0; i < times; i++) {
            try (Queue queue = Queue.create(f.device, 2);
                    Weight weight = Weight.pack(queue, values)) {
                assertThat(weight.bytesHeld()).isGreaterThanOrEqualTo(values.bytes());
            }
        }
    }

    private static long residentBytes() throws IOException {
        return Long.parseLong(Files.readString(Path.of("/proc/self/statm")).split(" ")[1]) * 4096;
    }

    private static int threads() throws IOException {
        try (Stream<Path> tasks = Files.list(Path.of("/proc/self/task"))) {
            return (int) tasks.count();
        }
    }

    @Test
    void theWorkspaceGrowsToTheLargestOperationAndStays() {
        Weight weight = f.pack(f.random(DType.F32, 40, 64));
        long largest = 0;
        for (int m : new int[] {1, 700, 3, 700, 2}) {
            try (Arena step = Arena.ofConfined()) {
                Tensor dy = Tensor.allocate(step, DType.F32, m, 40);
                Lora arguments = Lora.builder(step)
                        .x(Tensor.allocate(step, DType.F32, m, 64))
                        .projection(weight)
                        .adapter(f.random(16, 64), f.random(40, 16), 0)
                        .y(Tensor.allocate(step, DType.F32, m, 40))
                        .s(Tensor.allocate(step, DType.F32, m, 16))
                        .dy(dy)
                        .dx(Tensor.allocate(step, DType.F32, m, 64))
                        .gradients(Tensor.allocate(step, DType.F32, 16, 64), Tensor.allocate(step, DType.F32, 40, 16))
                        .scaling(Tensor.ofFloats(step, 2))
                        .build();
                LoraOps.forward(f.queue, arguments);
                LoraOps.backward(f.queue, arguments);
            }
            assertThat(f.queue.workspaceBytes()).isGreaterThanOrEqualTo(largest);
            if (largest > 0 && m < 700) {
                assertThat(f.queue.workspaceBytes()).isEqualTo(largest);
            }
            largest = f.queue.workspaceBytes();
        }
        assertThat(largest).isLessThan(64L << 20);
    }

    @Test
    void aWorkspaceThatDoesNotFitIsRefusedAndTheQueueGoesOn() {
        Workspace workspace = new Workspace(f.device);
        assertThatThrownBy(() -> workspace.atLeast(1L << 50))
                .isInstanceOfSatisfying(
                        Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.ENOMEM))
                .hasMessageContaining("smaller batches");
        assertThat(workspace.atLeast(100_000).address()).isNotZero();
        assertThat(workspace.bytes()).isGreaterThanOrEqualTo(100_000);
        assertThat(workspace.atLeast(1).address() % 64).isZero();
        workspace.close();
    }

    @Test
    void aStepsArenaMayBeConfinedOrShared() {
        for (boolean confined : new boolean[] {true, false}) {
            try (Arena arena = confined ? Arena.ofConfined() : Arena.ofShared()) {
                Swiglu arguments = swiglu(arena, 2);
                assertThatCode(() -> SwigluOps.forward(f.queue, arguments)).doesNotThrowAnyException();
            }
        }
    }
}
