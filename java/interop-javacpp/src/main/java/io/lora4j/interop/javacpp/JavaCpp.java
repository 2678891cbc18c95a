package io.lora4j.interop.javacpp;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.DeviceMemory;
import io.lora4j.kernels.ForeignMemory;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.lang.ref.WeakReference;
import java.util.Arrays;
import java.util.function.Function;
import org.bytedeco.javacpp.Pointer;

/**
 * The memory of JavaCPP's pointers as tensors, and the memory of tensors as JavaCPP's pointers: OpenBLAS, PyTorch, OpenCV and
 * whatever else has presets share buffers with the kernels. Nothing is copied.
 *
 * <pre>{@code
 * FloatPointer weights = ...;                                      // of another library
 * Tensor w = JavaCpp.tensor(weights, DType.F32, rows, columns);    // the same memory
 * FloatPointer y = JavaCpp.pointer(tensor, FloatPointer::new);     // for another library's function
 * }</pre>
 *
 * <p>Lifetimes: a tensor keeps its pointer, and a pointer keeps its tensor's memory, as long as either can be reached, views
 * included. What ends memory by hand is in the methods' descriptions.
 *
 * <p>Threads: any; the two sides agree about who writes when.
 */
public final class JavaCpp {
    private JavaCpp() {}

    /**
     * Returns a contiguous row-major tensor over a pointer's memory from its position on.
     *
     * <p>The tensor counts as a reference to the pointer, so that {@link Pointer#close} and the end of a {@code PointerScope} leave the
     * memory until the tensor is gone. {@link Pointer#deallocate()} does not ask: after it the tensor must not be used. Memory that
     * JavaCPP does not own, such as what a function of a library has returned, lasts as long as its owner lets it.
     *
     * @param pointer elements of the size of {@code dtype} (a {@code ShortPointer} for F16 and BF16), or bytes
     * @param dtype what the memory holds
     * @param shape one to four sizes
     * @throws IllegalArgumentException if the pointer is null, its size is not known, or its elements have another size
     * @throws IndexOutOfBoundsException if the tensor does not fit between position and limit
     */
    public static Tensor tensor(Pointer pointer, DType dtype, long... shape) {
        return Tensor.of(memory(pointer, dtype), dtype, shape);
    }

    /**
     * Returns a strided tensor over a pointer's memory, whose element [0, ..., 0] is at the pointer's position. Otherwise as
     * {@link #tensor(Pointer, DType, long...)}.
     *
     * @param strides in elements, one for each size; none below zero
     */
    public static Tensor tensor(Pointer pointer, DType dtype, long[] shape, long[] strides) {
        return Tensor.strided(memory(pointer, dtype), 0, dtype, shape, strides);
    }

    /**
     * Returns a contiguous row-major tensor over a device's memory, what {@code cudaMalloc} of JavaCPP's CUDA preset has returned for
     * instance. Otherwise as {@link #tensor(Pointer, DType, long...)}; whoever frees the memory waits for the operations before.
     *
     * @param device memory of the device that the pointer's belongs to; reads and writes by Java go through its queue
     */
    public static Tensor tensor(DeviceMemory device, Pointer pointer, DType dtype, long... shape) {
        return device.tensor(memory(pointer, dtype), dtype, shape);
    }

    private static MemorySegment memory(Pointer pointer, DType dtype) {
        long address;
        long bytes;
        int size;
        synchronized (pointer) {
            if (pointer.isNull()) {
                throw new IllegalArgumentException("the pointer is null: " + pointer);
            }
            size = pointer.sizeof();
            address = pointer.address() + pointer.position() * size;
            bytes = (pointer.limit() - pointer.position()) * size;
        }
        if (size != dtype.bytes() && size != 1) {
            throw new IllegalArgumentException("elements of " + dtype + " have " + dtype.bytes()
                    + " bytes, but those of " + pointer + " have " + size);
        }
        if (bytes <= 0) {
            throw new IllegalArgumentException("the size of the memory is not known: " + pointer
                    + ". Say how many elements it has with its method capacity(n)");
        }
        return ForeignMemory.of(address, bytes, hold(pointer));
    }

    /** Keeps the pointer's memory; the action gives it back. */
    private static Runnable hold(Pointer pointer) {
        synchronized (pointer) {
            if (pointer.referenceCount() < 0) { // nothing to count: a view, which keeps what it is a view of
                return () -> Reference.reachabilityFence(pointer);
            }
            if (pointer.referenceCount()
                    == 0) { // not in a scope: close() would free it at the first reference given back
                pointer.retainReference();
            }
            pointer.retainReference();
        }
        return pointer::releaseReference;
    }

    /**
     * Returns a pointer to a tensor's memory, from the element at the lowest address to the end of the one at the highest. A pointer
     * has no strides: those of a tensor that is not contiguous are passed on by the caller, as a leading dimension for instance.
     *
     * <p>The pointer, and every pointer that is made from it, keeps the memory reachable; that suffices for automatic and global
     * arenas and for memory that was a pointer's before. An arena that is closed by hand must outlive the pointers: use
     * {@link #pointer(Tensor, Function, Arena)} for it. Closing the pointer leaves the tensor as it is.
     *
     * @param type makes the pointer, {@code FloatPointer::new} for instance; its elements have the size of the tensor's, or are bytes
     * @throws IllegalArgumentException if they have another size, or a stride is negative
     * @throws IllegalStateException if the tensor's arena is closed
     */
    public static <P extends Pointer> P pointer(Tensor tensor, Function<Pointer, P> type) {
        if (Arrays.stream(tensor.strides()).anyMatch(stride -> stride < 0)) {
            throw new IllegalArgumentException(
                    "a pointer begins at the first element; " + tensor + " has others before it");
        }
        MemorySegment data = tensor.data();
        if (!data.scope().isAlive()) {
            throw new IllegalStateException("the arena of " + tensor + " is closed");
        }
        P pointer = type.apply(new View(data));
        int size = pointer.sizeof();
        if (size != tensor.dtype().bytes() && size != 1) {
            throw new IllegalArgumentException(
                    "elements of " + tensor + " have " + tensor.dtype().bytes() + " bytes, but those of a "
                            + pointer.getClass().getSimpleName() + " have " + size);
        }
        return pointer.capacity(data.byteSize() / size);
    }

    /**
     * Returns a pointer that becomes null when the arena is closed: Java then refuses to read or write through it, and a library's
     * function is given a null pointer and not freed memory. Pointers made from it are not told. Otherwise as
     * {@link #pointer(Tensor, Function)}.
     *
     * @param arena the arena of the tensor's memory
     * @throws IllegalArgumentException if the memory is of another arena
     */
    public static <P extends Pointer> P pointer(Tensor tensor, Function<Pointer, P> type, Arena arena) {
        if (!tensor.data().scope().equals(arena.scope())) {
            throw new IllegalArgumentException("the memory of " + tensor + " is of another arena");
        }
        P pointer = pointer(tensor, type);
        WeakReference<Pointer> weak = new WeakReference<>(pointer);
        ForeignMemory.onClose(arena, () -> {
            Pointer open = weak.get();
            if (open != null) {
                open.setNull();
            }
        });
        return pointer;
    }

    /** An address that keeps its segment: JavaCPP gives every pointer made from it a reference to its deallocator. */
    private static final class View extends Pointer {
        private View(MemorySegment segment) {
            super((Pointer) null);
            address = segment.address();
            limit = segment.byteSize();
            capacity = limit;
            deallocator(new Keeper(segment));
        }

        /** Has nothing to free. */
        private record Keeper(MemorySegment segment) implements Deallocator {
            @Override
            public void deallocate() {}
        }
    }
}
