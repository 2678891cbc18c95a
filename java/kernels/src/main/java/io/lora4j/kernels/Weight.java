package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_tensor;
import io.lora4j.kernels.generated.l4j_weight_info;
import io.lora4j.kernels.generated.l4j_weight_options;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import org.jspecify.annotations.Nullable;

/**
 * An immutable base weight [N, K] on a device, in the layout that the kernels read.
 *
 * <p>{@link #borrow} uses the caller's memory as it is, a mapped model file for instance. The weight keeps that memory reachable,
 * but whoever closes its arena before the weight is done with makes the next operation fail with {@link IllegalStateException}.
 * {@link #pack} makes a checked copy in the kernels' own layout; the source may go afterwards.
 *
 * <p>Threads: any number of threads and queues may use a weight at once. {@link #close} fails with {@link Status#EBUSY} while an
 * operation reads it.
 */
public final class Weight implements AutoCloseable {
    private final Handle state = new Handle("weight");
    private final Device device;
    private final MemorySegment handle;
    /** The memory that a borrowing weight reads; null when it has its own. */
    private final @Nullable Tensor borrowed;

    private final DType dtype;
    private final long rows;
    private final long cols;
    private final long bytesHeld;

    private Weight(Device device, MemorySegment handle, Tensor source, boolean borrows, long bytesHeld) {
        this.device = device;
        this.handle = handle;
        this.borrowed = borrows ? source : null;
        this.dtype = source.dtype();
        this.rows = source.size(0);
        this.cols = source.size(1);
        this.bytesHeld = bytesHeld;
    }

    /**
     * Makes a weight that reads the caller's memory.
     *
     * @param values [N, K], F32, F16 or BF16, innermost stride 1, in the device's memory; not changed while the weight is open
     * @throws NumericException if a value is NaN or Inf; the message names row and column
     */
    public static Weight borrow(Device device, Tensor values) {
        return create(device, MemorySegment.NULL, values, LoraNative.L4J_WEIGHT_BORROW());
    }

    /**
     * Makes a weight with a copy in the kernels' layout, checking and packing on the queue's threads.
     *
     * @param values [N, K], F32, F16 or BF16, innermost stride 1; for a GPU from the host's memory or its own
     * @throws NumericException if a value is NaN or Inf; the message names row and column
     */
    public static Weight pack(Queue queue, Tensor values) {
        Weight[] made = new Weight[1];
        queue.lend((owner, error) -> made[0] = create(queue.device(), owner, values, LoraNative.L4J_WEIGHT_PACK()));
        return made[0];
    }

    private static Weight create(Device device, MemorySegment queue, Tensor values, int mode) {
        if (values.dimensions() != 2) {
            throw Lora4jException.invalid("weight: expected values [N, K], found " + values);
        }
        Arguments.requireAccess("weight", values);
        MemorySegment owner = device.acquire();
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment part = arena.allocate(l4j_tensor.layout());
            ArgumentBlock.write(part, values);
            MemorySegment options = arena.allocate(l4j_weight_options.layout());
            l4j_weight_options.struct_size(
                    options, (int) l4j_weight_options.layout().byteSize());
            l4j_weight_options.scheme(options, LoraNative.L4J_SCHEME_DENSE());
            l4j_weight_options.mode(options, mode);
            l4j_weight_options.rows(options, values.size(0));
            l4j_weight_options.cols(options, values.size(1));
            l4j_weight_options.part_count(options, 1);
            l4j_weight_options.part_roles(
                    options, arena.allocateFrom(ValueLayout.JAVA_INT, LoraNative.L4J_ROLE_VALUES()));
            l4j_weight_options.part_values(options, part);
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            error.check(LoraNative.l4j_weight_create(owner, queue, options, out, error.segment()));
            MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);

            MemorySegment info = arena.allocate(l4j_weight_info.layout());
            l4j_weight_info.struct_size(info, (int) l4j_weight_info.layout().byteSize());
            error.check(LoraNative.l4j_weight_query(handle, info, error.segment()));
            boolean borrows = mode == LoraNative.L4J_WEIGHT_BORROW();
            return new Weight(device, handle, values, borrows, l4j_weight_info.bytes_held(info));
        } catch (Throwable failure) {
            device.release();
            throw failure;
        } finally {
            Reference.reachabilityFence(values);
        }
    }

    /** Returns the device of this weight. */
    public Device device() {
        return device;
    }

    /** Returns N, the out-features. */
    public long rows() {
        return rows;
    }

    /** Returns K, the in-features. */
    public long cols() {
        return cols;
    }

    /** Returns the type of the values as stored. */
    public DType dtype() {
        return dtype;
    }

    /** Returns the bytes of native memory that this weight owns; 0 when it borrows. */
    public long bytesHeld() {
        return bytesHeld;
    }

    /**
     * Releases the weight. Closing it again has no effect.
     *
     * @throws Lora4jException with {@link Status#EBUSY}, and nothing is closed, while an operation reads it
     */
    @Override
    public void close() {
        if (state.close()) {
            try (Arena arena = Arena.ofConfined()) {
                NativeError error = new NativeError(arena);
                error.check(LoraNative.l4j_weight_destroy(handle, error.segment()));
            } finally {
                device.release();
            }
        }
    }

    /** The native handle; its address means nothing once the weight is closed. */
    MemorySegment handle() {
        return handle;
    }

    /** Keeps the weight open until {@link #release}. */
    void acquire() {
        state.acquire();
        try {
            if (borrowed != null) {
                Arguments.requireAccess("weight", borrowed);
            }
        } catch (Throwable failure) {
            state.release();
            throw failure;
        }
    }

    void release() {
        state.release();
    }

    @Override
    public String toString() {
        return "weight " + dtype + "[" + rows + ", " + cols + "]";
    }
}
