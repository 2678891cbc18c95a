package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_device_info;
import io.lora4j.kernels.generated.l4j_device_options;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Locale;

/**
 * Where work can run: the CPU, with one instruction-set tier chosen when the device is opened, or a GPU.
 *
 * <p>Opening the first device loads the native library. Several devices may be open at once, with different tiers for instance.
 * The environment variable {@code LORA4J_MAX_ISA} ({@code ref}, {@code avx2}, {@code avx512}, {@code avx512-bf16} or
 * {@code amx-bf16}) caps every device's tier.
 *
 * <p>Threads: any number of threads may use a device. {@link #close} fails with {@link Status#EBUSY} while queues, weights or
 * memory of the device are open.
 */
public final class Device implements AutoCloseable {
    private static final System.Logger LOG = System.getLogger(Device.class.getName());

    private final Handle state = new Handle("device");
    private final MemorySegment handle;
    private final DeviceInfo info;
    private final int ordinal;

    private Device(MemorySegment handle, DeviceInfo info, int ordinal) {
        this.handle = handle;
        this.info = info;
        this.ordinal = ordinal;
    }

    /**
     * Loads the native library unless it is loaded, and tells where it came from.
     *
     * @throws UnsatisfiedLinkError if it cannot be loaded; the message says what to do
     */
    public static LibraryInfo library() {
        return NativeLibrary.load();
    }

    /**
     * Opens the CPU with the best tier.
     *
     * @throws UnsatisfiedLinkError if the native library cannot be loaded; the message says what to do
     */
    public static Device cpu() {
        return cpu(Isa.AUTO);
    }

    /**
     * Opens the CPU.
     *
     * @param max the highest tier to use; a tier that the CPU does not have is capped to the best that it has
     * @throws UnsatisfiedLinkError if the native library cannot be loaded; the message says what to do
     */
    public static Device cpu(Isa max) {
        NativeLibrary.load(); // before anything of the bindings is touched
        return open(LoraNative.L4J_DEVICE_CPU(), 0, max);
    }

    /**
     * Opens an NVIDIA GPU of compute capability 8.0 or newer. The first one loads {@code liblora4j_cuda.so}: the file that the
     * environment variable {@code LORA4J_CUDA_LIBRARY} names, else the one of the jar that the native library came from, or in the folder
     * of the native library, else as the system finds it.
     *
     * @param ordinal 0 for the first, as CUDA counts them ({@code CUDA_VISIBLE_DEVICES})
     * @throws Lora4jException with {@link Status#ENOTSUP} where the library, the driver or a usable GPU is missing, and with {@link
     *     Status#EINVAL} where there is no GPU of that number
     */
    public static Device cuda(int ordinal) {
        NativeLibrary.loadForCuda();
        return open(LoraNative.L4J_DEVICE_CUDA(), ordinal, Isa.AUTO);
    }

    private static Device open(int type, int ordinal, Isa max) {
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment options = arena.allocate(l4j_device_options.layout());
            l4j_device_options.struct_size(
                    options, (int) l4j_device_options.layout().byteSize());
            l4j_device_options.device_type(options, type);
            l4j_device_options.device_id(options, ordinal);
            l4j_device_options.max_isa(options, max.code());
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            error.check(LoraNative.l4j_device_open(options, out, error.segment()));
            MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);

            MemorySegment info = arena.allocate(l4j_device_info.layout());
            l4j_device_info.struct_size(info, (int) l4j_device_info.layout().byteSize());
            error.check(LoraNative.l4j_device_query(handle, info, error.segment()));
            Device device = new Device(
                    handle,
                    new DeviceInfo(
                            Isa.of(l4j_device_info.isa(info)),
                            Isa.of(l4j_device_info.best_isa(info)),
                            Isa.of(l4j_device_info.bf16_isa(info)),
                            Isa.of(l4j_device_info.int8_isa(info)),
                            l4j_device_info.logical_cpus(info),
                            l4j_device_info.cpu_name(info).getString(0),
                            l4j_device_info.memory_bytes(info)),
                    ordinal);
            LOG.log(Level.DEBUG, () -> "opened " + device + ": " + device.info);
            return device;
        }
    }

    /** Returns what this device is; also after it is closed. */
    public DeviceInfo info() {
        return info;
    }

    /**
     * Closes the device. Closing it again has no effect.
     *
     * @throws Lora4jException with {@link Status#EBUSY}, and nothing is closed, while queues, weights or memory of it are open
     */
    @Override
    public void close() {
        if (state.close()) {
            try (Arena arena = Arena.ofConfined()) {
                NativeError error = new NativeError(arena);
                error.check(LoraNative.l4j_device_close(handle, error.segment()));
            }
        }
    }

    /** Returns whether memory of this device is the host's. */
    boolean isHost() {
        return info.isa() != Isa.CUDA;
    }

    int ordinal() {
        return ordinal;
    }

    /** Keeps the device open until {@link #release}: one share for each queue, weight and memory. */
    MemorySegment acquire() {
        state.acquire();
        return handle;
    }

    void release() {
        state.release();
    }

    @Override
    public String toString() {
        return isHost() ? "cpu(" + info.isa().name().toLowerCase(Locale.ROOT) + ")" : "cuda(" + ordinal + ")";
    }
}
