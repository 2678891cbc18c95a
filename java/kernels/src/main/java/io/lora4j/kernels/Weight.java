package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_weight_info;
import io.lora4j.kernels.generated.l4j_weight_options;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Reference;
import java.util.Collection;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/**
 * An immutable base weight [N, K] on a device, dense or quantized. Operations decode a quantized weight where they read it, with
 * the same bits as from the decoded weight.
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
    /** The memory that a borrowing weight reads; empty when it has its own. */
    private final List<Tensor> borrowed;

    private final Scheme scheme;
    private final DType dtype;
    private final long rows;
    private final long cols;
    private final long bytesHeld;

    private Weight(Device device, MemorySegment handle, Builder source, Collection<Tensor> borrowed, long bytesHeld) {
        this.device = device;
        this.handle = handle;
        this.borrowed = List.copyOf(borrowed);
        this.scheme = source.scheme;
        this.dtype =
                source.compute == Compute.BF16 ? DType.BF16 : source.values().dtype();
        this.rows = source.rows;
        this.cols = source.cols;
        this.bytesHeld = bytesHeld;
    }

    /**
     * Makes a weight that reads the caller's memory.
     *
     * @param values [N, K], F32, F16 or BF16, innermost stride 1, in the device's memory; not changed while the weight is open
     * @throws NumericException if a value is NaN or Inf; the message names row and column
     */
    public static Weight borrow(Device device, Tensor values) {
        return dense(values).borrow(device);
    }

    /**
     * Makes a weight with a copy in the kernels' layout, checking and packing on the queue's threads.
     *
     * @param values [N, K], F32, F16 or BF16, innermost stride 1; for a GPU from the host's memory or its own
     * @throws NumericException if a value is NaN or Inf; the message names row and column
     */
    public static Weight pack(Queue queue, Tensor values) {
        return dense(values).pack(queue);
    }

    /**
     * The same in the layout for operations of one precision. For {@link Compute#BF16} the copy holds the values rounded to bf16,
     * whatever they were, and is a weight of that type to every operation; operations of the other precision take it too, more slowly.
     *
     * @param values [N, K], F32, F16 or BF16, innermost stride 1
     * @throws NumericException if a value is NaN or Inf, or becomes Inf in bf16; the message names row and column
     */
    public static Weight pack(Queue queue, Tensor values, Compute compute) {
        return dense(values).compute(compute).pack(queue);
    }

    private static Builder dense(Tensor values) {
        if (values.dimensions() != 2) {
            throw Lora4jException.invalid("weight: expected values [N, K], found " + values);
        }
        return builder(Scheme.DENSE, values.size(0), values.size(1)).part(Part.VALUES, values);
    }

    /** Starts a weight of any scheme, [rows, cols]. */
    public static Builder builder(Scheme scheme, long rows, long cols) {
        return new Builder(scheme, rows, cols);
    }

    /** Collects the parts of a weight. Not thread-safe. */
    public static final class Builder {
        private Compute compute = Compute.F32;
        private final Scheme scheme;
        private final long rows;
        private final long cols;
        private final Map<Part, Tensor> parts = new EnumMap<>(Part.class);

        private Builder(Scheme scheme, long rows, long cols) {
            this.scheme = scheme;
            this.rows = rows;
            this.cols = cols;
        }

        /** A part; {@code lora4j.h} lists those of each scheme with their dtypes and shapes. */
        public Builder part(Part part, Tensor tensor) {
            parts.put(part, tensor);
            return this;
        }

        /** The precision of the operations that {@link #pack} lays a dense weight out for; see {@link Weight#pack(Queue, Tensor, Compute)}. */
        public Builder compute(Compute compute) {
            this.compute = compute;
            return this;
        }

        private Tensor values() {
            return ArgumentBlock.required("weight", "VALUES", parts.get(Part.VALUES));
        }

        /**
         * Makes a weight that reads the parts where they are; they are not changed while it is open. Not for quantized weights of a GPU,
         * which has them in a layout of its own ({@link Status#ENOTSUP}).
         *
         * @throws Lora4jException with {@link Status#EINVAL} if parts are missing or do not fit the scheme
         * @throws NumericException if a value is NaN or Inf; the message names row and column
         */
        public Weight borrow(Device device) {
            return create(device, MemorySegment.NULL, this, LoraNative.L4J_WEIGHT_BORROW());
        }

        /**
         * Makes a weight with a copy of the parts, checking and packing on the queue's threads. Codes stay codes: a quantized weight
         * takes about the memory of its parts. For a GPU the parts of a quantized weight lie in the host's memory.
         *
         * @throws Lora4jException with {@link Status#EINVAL} if parts are missing or do not fit the scheme
         * @throws NumericException if a value is NaN or Inf; the message names row and column
         */
        public Weight pack(Queue queue) {
            Weight[] made = new Weight[1];
            queue.lend((owner, error) -> made[0] = create(queue.device(), owner, this, LoraNative.L4J_WEIGHT_PACK()));
            return made[0];
        }
    }

    private static Weight create(Device device, MemorySegment queue, Builder source, int mode) {
        source.values();
        Map<Part, Tensor> parts = new EnumMap<>(source.parts);
        parts.values().forEach(part -> Arguments.requireAccess("weight", part));
        MemorySegment owner = device.acquire();
        try (Arena arena = Arena.ofConfined()) {
            NativeError error = new NativeError(arena);
            MemorySegment options = arena.allocate(l4j_weight_options.layout());
            l4j_weight_options.struct_size(
                    options, (int) l4j_weight_options.layout().byteSize());
            l4j_weight_options.scheme(options, source.scheme.code());
            l4j_weight_options.mode(options, mode);
            l4j_weight_options.compute(options, source.compute.code());
            l4j_weight_options.rows(options, source.rows);
            l4j_weight_options.cols(options, source.cols);
            l4j_weight_options.part_count(options, parts.size());
            l4j_weight_options.part_roles(options, Part.codes(arena, parts.keySet()));
            l4j_weight_options.part_values(options, Part.tensors(arena, parts));
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            error.check(LoraNative.l4j_weight_create(owner, queue, options, out, error.segment()));
            MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);

            MemorySegment info = arena.allocate(l4j_weight_info.layout());
            l4j_weight_info.struct_size(info, (int) l4j_weight_info.layout().byteSize());
            error.check(LoraNative.l4j_weight_query(handle, info, error.segment()));
            boolean borrows = mode == LoraNative.L4J_WEIGHT_BORROW();
            return new Weight(
                    device, handle, source, borrows ? parts.values() : List.of(), l4j_weight_info.bytes_held(info));
        } catch (Throwable failure) {
            device.release();
            throw failure;
        } finally {
            Reference.reachabilityFence(parts);
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

    /** Returns how the values are stored. */
    public Scheme scheme() {
        return scheme;
    }

    /** Returns the type of {@link Part#VALUES}: of the values as held where the weight is dense, otherwise of what their codes lie in. */
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
            for (Tensor part : borrowed) {
                Arguments.requireAccess("weight", part);
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
        return "weight " + (scheme == Scheme.DENSE ? dtype : scheme) + "[" + rows + ", " + cols + "]";
    }
}
