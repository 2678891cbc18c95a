package io.lora4j.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * An immutable view of off-heap memory with a dtype, one to four dimensions, and strides in elements. The view is immutable; the
 * elements are not. Memory belongs to whoever made the segment: a tensor keeps it reachable, not open.
 *
 * <p>Every element of a tensor lies inside its segment: that is proved when the tensor is made, so that no kernel can be led
 * outside. Heap segments are refused, because kernels cannot read them. Strides may be zero or negative; operations take such
 * tensors as inputs.
 *
 * <p>Element-wise access here is for set-up, tests and results, not for arithmetic. Of a tensor in a GPU's {@link DeviceMemory} it
 * copies all elements to the host, and back where they change, in the order of the memory's queue.
 *
 * <p>Threads: as for the segment. A tensor of a confined arena may be used by the arena's thread only; a tensor of a shared arena
 * by any thread, if the threads agree about who writes.
 */
public final class Tensor {
    /** Alignment, in bytes, of what {@link #allocate} gives: a cache line and the widest vector. */
    public static final long ALIGNMENT = 64;

    private static final int MAX_DIMENSIONS = 4;

    /** From the element at the lowest address to the end of the one at the highest. */
    private final MemorySegment data;
    /** Where element [0, ..., 0] begins in {@code data}: zero unless a stride is negative. */
    private final long origin;

    private final DType dtype;
    private final long[] shape;
    private final long[] strides;
    private final long elements;
    /** Whose memory it is where Java cannot access it: a GPU's. */
    private final @Nullable DeviceMemory gpu;

    private Tensor(
            MemorySegment segment, long offset, DType dtype, long[] shape, long[] strides, @Nullable DeviceMemory gpu) {
        if (shape.length == 0 || shape.length > MAX_DIMENSIONS) {
            throw new IllegalArgumentException(
                    "a tensor has 1 to 4 dimensions, not the shape " + Arrays.toString(shape));
        }
        if (strides.length != shape.length) {
            throw new IllegalArgumentException(
                    "strides " + Arrays.toString(strides) + " do not fit the shape " + Arrays.toString(shape));
        }
        if (!segment.isNative()) {
            throw new IllegalArgumentException("kernels need off-heap memory; found a heap segment of "
                    + segment.byteSize() + " bytes. Allocate it with Tensor.allocate or copy into one");
        }
        this.gpu = gpu;
        this.dtype = dtype;
        this.shape = shape;
        this.strides = strides;
        this.elements = product(shape);

        long low = 0;
        long high = 0;
        try {
            for (int i = 0; i < shape.length && elements > 0; i++) {
                long reach = Math.multiplyExact(Math.multiplyExact(shape[i] - 1, strides[i]), (long) dtype.bytes());
                if (reach < 0) {
                    low = Math.addExact(low, reach);
                } else {
                    high = Math.addExact(high, reach);
                }
            }
            long size = elements == 0 ? 0 : Math.addExact(Math.subtractExact(high, low), dtype.bytes());
            this.data = segment.asSlice(Math.addExact(offset, low), size);
        } catch (ArithmeticException | IndexOutOfBoundsException e) {
            throw new IndexOutOfBoundsException("a " + dtype + " tensor " + Arrays.toString(shape) + " with strides "
                    + Arrays.toString(strides) + " at byte " + offset + " does not fit a segment of "
                    + segment.byteSize() + " bytes");
        }
        this.origin = -low;
    }

    // ------------------------------------------------------------------------------------------------------- making

    /**
     * Allocates a contiguous tensor of zeros, aligned to {@value #ALIGNMENT} bytes.
     *
     * @param allocator an arena, an allocator over memory of one, or a device's memory
     * @param shape one to four sizes, zero or more each
     */
    public static Tensor allocate(SegmentAllocator allocator, DType dtype, long... shape) {
        long[] sizes = shape.clone();
        long bytes;
        try {
            bytes = Math.multiplyExact(product(sizes), (long) dtype.bytes());
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException(
                    "a " + dtype + " tensor " + Arrays.toString(shape) + " has too many bytes");
        }
        MemorySegment segment = allocator.allocate(bytes, ALIGNMENT);
        if (allocator instanceof DeviceMemory memory && !memory.isHost()) {
            memory.queue().zero(segment, bytes);
            return new Tensor(segment, 0, dtype, sizes, rowMajor(sizes), memory);
        }
        if (!(allocator instanceof Arena)) {
            segment.fill((byte) 0); // an arena promises zeros, an allocator does not
        }
        return of(segment, dtype, shape);
    }

    /**
     * Returns a contiguous row-major view of the beginning of a segment.
     *
     * @throws IndexOutOfBoundsException if the segment is too small
     */
    public static Tensor of(MemorySegment segment, DType dtype, long... shape) {
        long[] sizes = shape.clone();
        return new Tensor(segment, 0, dtype, sizes, rowMajor(sizes), null);
    }

    /**
     * Returns a strided view of a segment.
     *
     * @param offset where element [0, ..., 0] begins, in bytes
     * @param shape one to four sizes
     * @param strides in elements, one for each size; zero and negative ones are allowed
     * @throws IndexOutOfBoundsException if an element lies outside the segment
     */
    public static Tensor strided(MemorySegment segment, long offset, DType dtype, long[] shape, long[] strides) {
        return new Tensor(segment, offset, dtype, shape.clone(), strides.clone(), null);
    }

    /** {@link DeviceMemory#tensor}. */
    static Tensor of(DeviceMemory gpu, MemorySegment segment, DType dtype, long... shape) {
        long[] sizes = shape.clone();
        return new Tensor(segment, 0, dtype, sizes, rowMajor(sizes), gpu);
    }

    /** Returns a new one-dimensional {@link DType#I32} tensor with these values. */
    public static Tensor ofInts(SegmentAllocator allocator, int... values) {
        Tensor tensor = allocate(allocator, DType.I32, values.length);
        tensor.copyFrom(values);
        return tensor;
    }

    /** Returns a new one-dimensional {@link DType#I64} tensor with these values. */
    public static Tensor ofLongs(SegmentAllocator allocator, long... values) {
        Tensor tensor = allocate(allocator, DType.I64, values.length);
        tensor.update(host -> MemorySegment.copy(values, 0, host, Elements.I64, 0, values.length));
        return tensor;
    }

    /** Returns a new one-dimensional {@link DType#F32} tensor with these values. */
    public static Tensor ofFloats(SegmentAllocator allocator, float... values) {
        Tensor tensor = allocate(allocator, DType.F32, values.length);
        tensor.copyFrom(values);
        return tensor;
    }

    // ------------------------------------------------------------------------------------------------------ questions

    /** Returns the element type. */
    public DType dtype() {
        return dtype;
    }

    /** Returns the number of dimensions, 1 to 4. */
    public int dimensions() {
        return shape.length;
    }

    /** Returns the sizes, in a new array. */
    public long[] shape() {
        return shape.clone();
    }

    /** Returns the size of one dimension. */
    public long size(int dimension) {
        return shape[dimension];
    }

    /** Returns the strides in elements, in a new array. */
    public long[] strides() {
        return strides.clone();
    }

    /** Returns the stride of one dimension, in elements. */
    public long stride(int dimension) {
        return strides[dimension];
    }

    /** Returns the number of elements. */
    public long elements() {
        return elements;
    }

    /** Returns the bytes that the elements take when they are packed: elements times their size. */
    public long bytes() {
        return elements * dtype.bytes();
    }

    /**
     * Returns the memory from the element at the lowest address to the end of the one at the highest.
     *
     * @throws UnsupportedOperationException if it is a GPU's
     */
    public MemorySegment data() {
        if (gpu != null) {
            throw new UnsupportedOperationException(this + " lies on "
                    + gpu.queue().device() + ", which Java cannot access; copy it, with toFloatArray or copyFrom");
        }
        return data;
    }

    /** Returns whether the elements lie in row-major order without gaps. */
    public boolean isContiguous() {
        long expected = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            if (shape[i] != 1 && strides[i] != expected && elements > 0) {
                return false;
            }
            expected *= shape[i];
        }
        return true;
    }

    // ---------------------------------------------------------------------------------------------------------- views

    /** Returns the view of [from, to) of the first dimension. */
    public Tensor rows(long from, long to) {
        return narrow(0, from, to);
    }

    /** Returns the view of [from, to) of the last dimension. */
    public Tensor columns(long from, long to) {
        return narrow(shape.length - 1, from, to);
    }

    /** Returns the view of [from, to) of one dimension. */
    public Tensor narrow(int dimension, long from, long to) {
        if (from < 0 || to < from || to > shape[dimension]) {
            throw new IndexOutOfBoundsException(
                    "[" + from + ", " + to + ") of dimension " + dimension + " of " + this + " does not exist");
        }
        long[] sizes = shape.clone();
        sizes[dimension] = to - from;
        return view(from == to ? 0 : from * strides[dimension], sizes, strides.clone());
    }

    /** Returns the view of one index of the first dimension, without that dimension. */
    public Tensor select(long index) {
        if (shape.length == 1) {
            throw new IllegalArgumentException(
                    "cannot select from " + this + ": it has one dimension; use rows(i, i + 1)");
        }
        checkIndex(index, 0);
        return view(
                index * strides[0],
                Arrays.copyOfRange(shape, 1, shape.length),
                Arrays.copyOfRange(strides, 1, strides.length));
    }

    /**
     * Returns the same elements in another shape.
     *
     * @param newShape sizes whose product is {@link #elements()}
     * @throws IllegalArgumentException if the tensor is not contiguous or the product differs
     */
    public Tensor reshape(long... newShape) {
        long[] sizes = newShape.clone();
        if (!isContiguous()) {
            throw new IllegalArgumentException("cannot reshape " + this + ": it is not contiguous");
        }
        if (product(sizes) != elements) {
            throw new IllegalArgumentException("cannot reshape " + this + " to " + Arrays.toString(newShape));
        }
        return new Tensor(data, origin, dtype, sizes, rowMajor(sizes), gpu);
    }

    /** Returns the view with two dimensions exchanged. */
    public Tensor transpose(int first, int second) {
        long[] sizes = shape.clone();
        long[] steps = strides.clone();
        sizes[first] = shape[second];
        sizes[second] = shape[first];
        steps[first] = strides[second];
        steps[second] = strides[first];
        return view(0, sizes, steps);
    }

    private Tensor view(long elementOffset, long[] sizes, long[] steps) {
        return new Tensor(
                data, product(sizes) == 0 ? 0 : origin + elementOffset * dtype.bytes(), dtype, sizes, steps, gpu);
    }

    // ------------------------------------------------------------------------------------------------------- elements

    /** Returns the element at these indices as a float: floating-point types are converted, integers are refused. */
    public float getFloat(long... indices) {
        return (float) getDouble(indices);
    }

    /** Returns the element at these indices as a double; floating-point types only. */
    public double getDouble(long... indices) {
        return Elements.read(host(), dtype, address(indices));
    }

    /** Sets the element at these indices, rounded to nearest even in the dtype; floating-point types only. */
    public void setFloat(double value, long... indices) {
        long at = address(indices);
        update(host -> Elements.write(host, dtype, at, value));
    }

    /** Returns the element at these indices; {@link DType#I32}, and the smaller integers, which are widened. */
    public int getInt(long... indices) {
        long at = address(indices);
        MemorySegment host = host();
        return switch (dtype) {
            case I8 -> host.get(ValueLayout.JAVA_BYTE, at);
            case U8, BOOL -> host.get(ValueLayout.JAVA_BYTE, at) & 0xff;
            case I16 -> host.get(Elements.I16, at);
            case I32 -> host.get(Elements.I32, at);
            default -> throw wrongType("getInt", "an integer of 32 bits or less");
        };
    }

    /** Sets the element at these indices; {@link DType#I32} only. */
    public void setInt(int value, long... indices) {
        require(DType.I32, "setInt");
        long at = address(indices);
        update(host -> host.set(Elements.I32, at, value));
    }

    /** Returns the element at these indices; {@link DType#I64} only. */
    public long getLong(long... indices) {
        require(DType.I64, "getLong");
        return host().get(Elements.I64, address(indices));
    }

    /** Sets the element at these indices; {@link DType#I64} only. */
    public void setLong(long value, long... indices) {
        require(DType.I64, "setLong");
        long at = address(indices);
        update(host -> host.set(Elements.I64, at, value));
    }

    // ----------------------------------------------------------------------------------------------------------- bulk

    /** Copies these values in row-major order, rounded to nearest even in the dtype; floating-point types only. */
    public void copyFrom(float[] values) {
        checkLength(values.length);
        update(host -> {
            if (dtype == DType.F32 && isContiguous()) {
                MemorySegment.copy(values, 0, host, Elements.F32, 0, values.length);
                return;
            }
            Elements.Walk walk = walk();
            for (float value : values) {
                Elements.write(host, dtype, walk.next(), value);
            }
        });
    }

    /** Copies these values in row-major order; {@link DType#I32} only. */
    public void copyFrom(int[] values) {
        require(DType.I32, "copyFrom(int[])");
        checkLength(values.length);
        update(host -> {
            if (isContiguous()) {
                MemorySegment.copy(values, 0, host, Elements.I32, 0, values.length);
                return;
            }
            Elements.Walk walk = walk();
            for (int value : values) {
                host.set(Elements.I32, walk.next(), value);
            }
        });
    }

    /**
     * Copies the elements of a tensor of the same shape, from and to any device. Equal dtypes keep every bit; floating-point types
     * convert, rounding to nearest even. The two must not overlap unless they are the same view.
     */
    public void copyFrom(Tensor source) {
        if (!Arrays.equals(shape, source.shape)) {
            throw new IllegalArgumentException("cannot copy " + source + " to " + this + ": the shapes differ");
        }
        if (dtype == source.dtype && isContiguous() && source.isContiguous()) {
            DeviceMemory through = gpu != null ? gpu : source.gpu;
            if (through == null) {
                data.copyFrom(source.data);
            } else {
                through.queue().copy(data, source.data, data.byteSize());
            }
            return;
        }
        MemorySegment values = source.host();
        update(host -> {
            Elements.Walk to = walk();
            Elements.Walk from = source.walk();
            for (long i = 0; i < elements; i++) {
                if (dtype == source.dtype) {
                    MemorySegment.copy(values, from.next(), host, to.next(), dtype.bytes());
                } else {
                    Elements.write(host, dtype, to.next(), Elements.read(values, source.dtype, from.next()));
                }
            }
        });
    }

    /** Returns the elements in row-major order, converted to float; floating-point types only. */
    public float[] toFloatArray() {
        float[] values = new float[arrayLength()];
        MemorySegment host = host();
        if (dtype == DType.F32 && isContiguous()) {
            MemorySegment.copy(host, Elements.F32, 0, values, 0, values.length);
            return values;
        }
        Elements.Walk walk = walk();
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) Elements.read(host, dtype, walk.next());
        }
        return values;
    }

    /** Returns the elements in row-major order, converted to double; floating-point types only. */
    public double[] toDoubleArray() {
        double[] values = new double[arrayLength()];
        MemorySegment host = host();
        Elements.Walk walk = walk();
        for (int i = 0; i < values.length; i++) {
            values[i] = Elements.read(host, dtype, walk.next());
        }
        return values;
    }

    /** Returns the elements in row-major order; {@link DType#I32} only. */
    public int[] toIntArray() {
        require(DType.I32, "toIntArray");
        int[] values = new int[arrayLength()];
        MemorySegment host = host();
        Elements.Walk walk = walk();
        for (int i = 0; i < values.length; i++) {
            values[i] = host.get(Elements.I32, walk.next());
        }
        return values;
    }

    /** Sets every element to a value, rounded to nearest even in the dtype; floating-point types only. */
    public void fill(double value) {
        update(host -> {
            Elements.Walk walk = walk();
            for (long i = 0; i < elements; i++) {
                Elements.write(host, dtype, walk.next(), value);
            }
        });
    }

    /** Sets every element to zero; any dtype. */
    public void zero() {
        update(host -> {
            if (isContiguous()) {
                host.fill((byte) 0);
                return;
            }
            Elements.Walk walk = walk();
            for (long i = 0; i < elements; i++) {
                host.asSlice(walk.next(), dtype.bytes()).fill((byte) 0);
            }
        });
    }

    /** Returns dtype and shape, and the strides of a tensor that is not contiguous: {@code F32[2, 3]}. */
    @Override
    public String toString() {
        return dtype + Arrays.toString(shape) + (isContiguous() ? "" : " strides " + Arrays.toString(strides));
    }

    // -------------------------------------------------------------------------------------------------------- helpers

    /** Where the elements lie, on whichever device. */
    MemorySegment segment() {
        return data;
    }

    /** The memory of a GPU that it lies in; null: the host's. */
    @Nullable
    DeviceMemory gpu() {
        return gpu;
    }

    /** The elements where Java can read them: themselves, or a copy of what a GPU has once its queue has passed. */
    MemorySegment host() {
        if (gpu == null) {
            return data;
        }
        MemorySegment copy = Arena.ofAuto().allocate(data.byteSize(), ALIGNMENT);
        gpu.queue().copy(copy, data, data.byteSize());
        return copy;
    }

    /** Changes the elements: themselves, or a copy that then goes back to the GPU. */
    void update(Consumer<MemorySegment> change) {
        MemorySegment host = host();
        change.accept(host);
        if (gpu != null) {
            gpu.queue().copy(data, host, data.byteSize());
        }
    }

    /** Address of element [0, ..., 0]; valid while the segment is open. */
    long originAddress() {
        return data.address() + origin;
    }

    boolean hasShape(long... sizes) {
        return Arrays.equals(shape, sizes);
    }

    private Elements.Walk walk() {
        return new Elements.Walk(origin, dtype.bytes(), shape, strides);
    }

    private long address(long... indices) {
        if (indices.length != shape.length) {
            throw new IndexOutOfBoundsException(
                    Arrays.toString(indices) + " does not index " + this + ": it has " + shape.length + " dimensions");
        }
        long at = origin;
        for (int i = 0; i < shape.length; i++) {
            checkIndex(indices[i], i);
            at += indices[i] * strides[i] * dtype.bytes();
        }
        return at;
    }

    private void checkIndex(long index, int dimension) {
        if (index < 0 || index >= shape[dimension]) {
            throw new IndexOutOfBoundsException(
                    "index " + index + " of dimension " + dimension + " of " + this + " does not exist");
        }
    }

    private void checkLength(int length) {
        if (length != elements) {
            throw new IllegalArgumentException("cannot copy " + length + " values to " + this + ": it has " + elements);
        }
    }

    private int arrayLength() {
        if (elements > Integer.MAX_VALUE - 8) {
            throw new IllegalArgumentException(this + " has too many elements for an array; take it in rows");
        }
        return (int) elements;
    }

    private void require(DType expected, String operation) {
        if (dtype != expected) {
            throw wrongType(operation, expected.toString());
        }
    }

    private IllegalArgumentException wrongType(String operation, String expected) {
        return new IllegalArgumentException(operation + " needs " + expected + ", found " + this);
    }

    private static long product(long[] shape) {
        long product = 1;
        boolean empty = false;
        for (long size : shape) {
            if (size < 0) {
                throw new IllegalArgumentException("negative size in the shape " + Arrays.toString(shape));
            }
            empty |= size == 0;
        }
        if (empty) {
            return 0;
        }
        try {
            for (long size : shape) {
                product = Math.multiplyExact(product, size);
            }
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException("the shape " + Arrays.toString(shape) + " has too many elements");
        }
        return product;
    }

    private static long[] rowMajor(long[] shape) {
        long[] strides = new long[shape.length];
        long stride = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            strides[i] = stride;
            stride *= Math.max(shape[i], 1);
        }
        return strides;
    }
}
