package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.jspecify.annotations.Nullable;

/** A device of one tier with a queue and an arena, random inputs, poisoned outputs, and a tolerance that fits the tier. */
final class Fixture implements AutoCloseable {
    final Arena arena = Arena.ofConfined(); // of arguments
    final Device device;
    final Queue queue;
    final DeviceMemory memory; // of tensors
    final DType dtype;

    /** Whether a wrong id or target is refused before any write. A GPU finds it on the way and says so later: outputs are then undefined. */
    final boolean refusesBeforeWriting;

    private final List<Weight> weights = new ArrayList<>();
    private final Random random = new Random(42);

    Fixture(Isa isa) {
        this(isa, 2);
    }

    Fixture(Isa isa, int threads) {
        device = isa == Isa.CUDA ? Device.cuda(0) : Device.cpu(isa);
        queue = Queue.create(device, isa == Isa.CUDA ? 0 : threads);
        memory = DeviceMemory.of(queue);
        refusesBeforeWriting = isa != Isa.CUDA;
        dtype = isa == Isa.REF64 ? DType.F64 : DType.F32;
    }

    /** The tiers of this machine, the oracle included, and the GPU if there is one. */
    static List<Isa> tiers() {
        List<Isa> tiers = new ArrayList<>(fp32Tiers());
        tiers.add(Isa.REF64);
        if (GPU_MISSING == null) {
            tiers.add(Isa.CUDA);
        }
        return tiers;
    }

    /** The tiers that promise the same bits, and the GPU if there is one: where quantized weights live. */
    static List<Isa> weightDevices() {
        List<Isa> devices = new ArrayList<>(fp32Tiers());
        if (GPU_MISSING == null) {
            devices.add(Isa.CUDA);
        }
        return devices;
    }

    /** Why there is no GPU; null where there is one. */
    static final @Nullable String GPU_MISSING = missingGpu();

    private static @Nullable String missingGpu() {
        try (Device device = Device.cuda(0)) {
            return null;
        } catch (Lora4jException e) {
            return e.getMessage();
        }
    }

    /** The tiers that promise the same bits. */
    static List<Isa> fp32Tiers() {
        try (Device device = Device.cpu()) {
            Isa best = device.info().bestIsa();
            return List.of(Isa.REF, Isa.AVX2, Isa.AVX512).stream()
                    .filter(isa -> isa.compareTo(best) <= 0)
                    .toList();
        }
    }

    /** Values of about 1. */
    Tensor random(long... shape) {
        return random(dtype, shape);
    }

    Tensor random(DType type, long... shape) {
        Tensor t = Tensor.allocate(memory, type, shape);
        float[] values = new float[(int) t.elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        t.copyFrom(values);
        return t;
    }

    Tensor zeros(long... shape) {
        return Tensor.allocate(memory, dtype, shape);
    }

    /** An output: an element that is not written stays NaN. */
    Tensor poisoned(long... shape) {
        Tensor t = zeros(shape);
        t.fill(Double.NaN);
        return t;
    }

    Weight borrow(Tensor values) {
        return keep(Weight.borrow(device, values));
    }

    Weight pack(Tensor values) {
        return keep(Weight.pack(queue, values));
    }

    private Weight keep(Weight weight) {
        weights.add(weight);
        return weight;
    }

    /** Runs something and waits for it, so that what a GPU reports later is thrown here. */
    void complete(Runnable work) {
        work.run();
        queue.synchronize();
    }

    void assertClose(Tensor actual, double[] expected) {
        double[] values = actual.toDoubleArray();
        assertThat(values).hasSameSizeAs(expected);
        double tolerance = dtype == DType.F64 ? 1e-6 : 5e-5;
        for (int i = 0; i < values.length; i++) {
            assertThat(Math.abs(values[i] - expected[i]) <= tolerance * (1 + Math.abs(expected[i])))
                    .as("element %d of %s: %s, expected %s", i, actual, values[i], expected[i])
                    .isTrue();
        }
    }

    @Override
    public void close() {
        weights.forEach(Weight::close);
        memory.close();
        queue.close();
        device.close();
        arena.close();
    }
}
