package io.lora4j.kernels;

import io.lora4j.kernels.generated.LoraNative;
import io.lora4j.kernels.generated.l4j_tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The native memory of one argument object, in one allocation: the struct, then the descriptors and arrays to which it points.
 * Collects the tensors and weights on the way, and checks what the native side cannot: that there is as much memory behind a plain
 * pointer as the operation will touch.
 */
final class ArgumentBlock {
    private static final long TENSOR_BYTES = l4j_tensor.layout().byteSize();

    private final String name;
    private final MemorySegment memory;
    private final MemorySegment struct;
    private long used;
    private final ArrayList<Tensor> tensors = new ArrayList<>();
    private final ArrayList<Weight> weights = new ArrayList<>();

    /**
     * @param name of the operation, for messages
     * @param layout of its argument struct, which starts with struct_size
     * @param tensorCount how many tensor descriptors will be needed at most
     * @param arrayBytes bytes of other arrays at most, in multiples of 8
     */
    ArgumentBlock(SegmentAllocator allocator, String name, MemoryLayout layout, int tensorCount, long arrayBytes) {
        this.name = name;
        long structBytes = layout.byteSize();
        this.memory = allocator.allocate(structBytes + tensorCount * TENSOR_BYTES + arrayBytes, 8);
        if (!(allocator instanceof Arena)) {
            memory.fill((byte) 0); // an arena promises zeros, an allocator does not
        }
        this.struct = memory.asSlice(0, structBytes);
        this.used = structBytes;
        struct.set(ValueLayout.JAVA_INT, 0, (int) structBytes);
    }

    String name() {
        return name;
    }

    MemorySegment struct() {
        return struct;
    }

    Tensor[] tensors() {
        return tensors.toArray(Tensor[]::new);
    }

    Weight[] weights() {
        return weights.toArray(Weight[]::new);
    }

    /** Reserves zeroed bytes after the struct. */
    MemorySegment array(long bytes) {
        long size = (bytes + 7) & -8;
        MemorySegment slice = memory.asSlice(used, bytes);
        used += size;
        return slice;
    }

    // -------------------------------------------------------------------------------------------------------- tensors

    /** Descriptor of a tensor that the operation reads; NULL for none. */
    MemorySegment in(String argument, @Nullable Tensor tensor, long... shape) {
        if (tensor == null) {
            return MemorySegment.NULL;
        }
        requireShape(argument, tensor, shape);
        return describe(array(TENSOR_BYTES), tensor);
    }

    /** Descriptor of a tensor that the operation writes; NULL for none. */
    MemorySegment out(String argument, @Nullable Tensor tensor, long... shape) {
        if (tensor != null) {
            requireWritable(argument, tensor);
        }
        return in(argument, tensor, shape);
    }

    MemorySegment descriptors(int count) {
        return array(count * TENSOR_BYTES);
    }

    /** Fills in descriptor i of an array of descriptors; none leaves data NULL. */
    void in(MemorySegment descriptors, int i, String argument, @Nullable Tensor tensor, long... shape) {
        if (tensor != null) {
            if (!tensor.hasShape(shape)) {
                requireShape(argument + "[" + i + "]", tensor, shape);
            }
            describe(descriptors.asSlice(i * TENSOR_BYTES, TENSOR_BYTES), tensor);
        }
    }

    void out(MemorySegment descriptors, int i, String argument, @Nullable Tensor tensor, long... shape) {
        if (tensor != null) {
            requireWritable(argument, tensor);
            in(descriptors, i, argument, tensor, shape);
        }
    }

    private MemorySegment describe(MemorySegment descriptor, Tensor tensor) {
        tensors.add(tensor);
        write(descriptor, tensor);
        return descriptor;
    }

    static void write(MemorySegment descriptor, Tensor tensor) {
        l4j_tensor.data(descriptor, MemorySegment.ofAddress(tensor.originAddress()));
        l4j_tensor.dtype(descriptor, tensor.dtype().code());
        DeviceMemory gpu = tensor.gpu();
        l4j_tensor.device_type(descriptor, gpu == null ? LoraNative.L4J_DEVICE_CPU() : LoraNative.L4J_DEVICE_CUDA());
        l4j_tensor.device_id(descriptor, gpu == null ? 0 : gpu.queue().device().ordinal());
        int dimensions = tensor.dimensions();
        l4j_tensor.ndim(descriptor, dimensions);
        for (int i = 0; i < dimensions; i++) {
            descriptor.set(ValueLayout.JAVA_LONG, l4j_tensor.shape$offset() + 8L * i, tensor.size(i));
            descriptor.set(ValueLayout.JAVA_LONG, l4j_tensor.stride$offset() + 8L * i, tensor.stride(i));
        }
    }

    // ------------------------------------------------------------------------------------- memory behind plain
    // pointers

    /** Pointer to {@code count} packed elements that the operation reads; NULL for none. */
    MemorySegment pointer(String argument, @Nullable Tensor tensor, DType dtype, long count) {
        if (tensor == null) {
            return MemorySegment.NULL;
        }
        if (tensor.dtype() != dtype || !tensor.hasShape(count) || !tensor.isContiguous()) {
            throw invalid(argument, "expected contiguous " + dtype + "[" + count + "], found " + tensor);
        }
        if (tensor.originAddress() % dtype.bytes() != 0) {
            throw new Lora4jException(
                    Status.EALIGN,
                    name + "." + argument + ": " + tensor + " is not aligned to " + dtype.bytes() + " bytes");
        }
        tensors.add(tensor);
        return tensor.segment();
    }

    /** Pointer to packed elements that the operation writes; NULL for none. */
    MemorySegment outPointer(String argument, @Nullable Tensor tensor, DType dtype, long count) {
        if (tensor != null) {
            requireWritable(argument, tensor);
        }
        return pointer(argument, tensor, dtype, count);
    }

    /** Pointer to values that are the argument object's own, in the memory that `beside` lies in. */
    MemorySegment values(Tensor beside, int... values) {
        DeviceMemory gpu = beside.gpu();
        if (gpu != null) {
            return view(Tensor.ofInts(gpu, values));
        }
        MemorySegment array = array(4L * values.length);
        MemorySegment.copy(values, 0, array, ValueLayout.JAVA_INT, 0, values.length);
        return array;
    }

    /** Pointer to a struct that the operation reads or writes when it runs. */
    MemorySegment view(Tensor bytes) {
        tensors.add(bytes);
        return bytes.segment();
    }

    MemorySegment numeric(@Nullable NumericStatus numeric) {
        return numeric == null ? MemorySegment.NULL : view(numeric.bytes());
    }

    // -------------------------------------------------------------------------------------------------------- weights

    MemorySegment weight(String argument, @Nullable Weight weight) {
        Weight present = required(argument, weight);
        weights.add(present);
        return present.handle();
    }

    // --------------------------------------------------------------------------------------------------------- checks

    <T> T required(String argument, @Nullable T value) {
        return required(name, argument, value);
    }

    static <T> T required(String name, String argument, @Nullable T value) {
        if (value == null) {
            throw Lora4jException.invalid(name + "." + argument + " is missing");
        }
        return value;
    }

    /** The tensor that gives an operation its sizes: present, with this many dimensions. */
    Tensor shaped(String argument, @Nullable Tensor tensor, int dimensions) {
        Tensor present = required(argument, tensor);
        if (present.dimensions() != dimensions) {
            throw invalid(argument, "expected " + dimensions + " dimensions, found " + present);
        }
        return present;
    }

    Tensor matrix(String argument, @Nullable Tensor tensor) {
        return shaped(argument, tensor, 2);
    }

    void requireShape(String argument, Tensor tensor, long... shape) {
        if (!tensor.hasShape(shape)) {
            throw invalid(argument, "expected the shape " + Arrays.toString(shape) + ", found " + tensor);
        }
    }

    private void requireWritable(String argument, Tensor tensor) {
        if (tensor.segment().isReadOnly()) {
            throw invalid(argument, tensor + " is read-only, and the operation writes it");
        }
    }

    Lora4jException invalid(String argument, String message) {
        return Lora4jException.invalid(name + "." + argument + ": " + message);
    }
}
