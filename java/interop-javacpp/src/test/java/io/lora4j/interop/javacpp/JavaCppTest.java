package io.lora4j.interop.javacpp;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.ForeignMemory;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.function.BooleanSupplier;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.javacpp.ShortPointer;
import org.junit.jupiter.api.Test;

class JavaCppTest {
    private static final int MEGABYTE = 1 << 20;

    // --------------------------------------------------------------------------------------------- pointers as tensors

    @Test
    void theSameMemoryBothWays() {
        try (FloatPointer pointer = new FloatPointer(0, 1, 2, 3, 4, 5)) {
            Tensor tensor = JavaCpp.tensor(pointer, DType.F32, 2, 3);
            assertThat(tensor.toFloatArray()).containsExactly(0, 1, 2, 3, 4, 5);
            tensor.setFloat(9, 1, 1);
            assertThat(pointer.get(4)).isEqualTo(9);

            FloatPointer back = JavaCpp.pointer(tensor.rows(1, 2), FloatPointer::new);
            assertThat(back.capacity()).isEqualTo(3);
            assertThat(back.get(1)).isEqualTo(9);
            back.put(2, 7);
            assertThat(pointer.get(5)).isEqualTo(7);
        }
    }

    @Test
    void everyElementType() {
        try (PointerScope scope = new PointerScope();
                Arena arena = Arena.ofConfined()) {
            Tensor bf16 = JavaCpp.tensor(new ShortPointer((short) 0x3fc0, (short) 0xc000), DType.BF16, 2);
            assertThat(bf16.toFloatArray()).containsExactly(1.5f, -2);
            Tensor f16 = JavaCpp.tensor(new ShortPointer((short) 0x3e00, (short) 0xc000), DType.F16, 2);
            assertThat(f16.toFloatArray()).containsExactly(1.5f, -2);
            assertThat(JavaCpp.tensor(new IntPointer(7, -8), DType.I32, 2).toIntArray())
                    .containsExactly(7, -8);
            assertThat(JavaCpp.tensor(new LongPointer(7L, 1L << 40), DType.I64, 2)
                            .getLong(1))
                    .isEqualTo(1L << 40);
            assertThat(JavaCpp.tensor(new DoublePointer(0.1, 0.2), DType.F64, 2).getDouble(1))
                    .isEqualTo(0.2);
            Tensor bytes = JavaCpp.tensor(new BytePointer((byte) 0, (byte) 0, (byte) 0x80, (byte) 0x3f), DType.F32, 1);
            assertThat(bytes.getFloat(0)).isEqualTo(1);

            assertThat(JavaCpp.pointer(Tensor.ofInts(arena, 3, 4), IntPointer::new)
                            .get(1))
                    .isEqualTo(4);
            assertThat(JavaCpp.pointer(Tensor.ofLongs(arena, 3, 4), LongPointer::new)
                            .get(1))
                    .isEqualTo(4);
            Tensor half = Tensor.allocate(arena, DType.BF16, 2);
            half.setFloat(1.5, 1);
            assertThat(JavaCpp.pointer(half, ShortPointer::new).get(1)).isEqualTo((short) 0x3fc0);
            assertThat(JavaCpp.pointer(half, BytePointer::new).capacity()).isEqualTo(4);
        }
    }

    @Test
    void positionLimitAndStrides() {
        try (FloatPointer pointer = new FloatPointer(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)) {
            pointer.position(2).limit(8);
            Tensor columns = JavaCpp.tensor(pointer, DType.F32, new long[] {2, 3}, new long[] {1, 2});
            assertThat(columns.toFloatArray()).containsExactly(2, 4, 6, 3, 5, 7);
            assertThatThrownBy(() -> JavaCpp.tensor(pointer, DType.F32, 7))
                    .isInstanceOf(IndexOutOfBoundsException.class);

            FloatPointer strided = JavaCpp.pointer(columns.narrow(1, 1, 3), FloatPointer::new);
            assertThat(strided.get(0)).isEqualTo(4);
            assertThat(strided.capacity()).isEqualTo(4);
        }
    }

    @Test
    void whatIsRefused() {
        try (FloatPointer pointer = new FloatPointer(4);
                Arena arena = Arena.ofConfined()) {
            assertThatThrownBy(() -> JavaCpp.tensor(pointer, DType.F64, 2))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("elements of F64 have 8 bytes, but those of ")
                    .hasMessageEndingWith(" have 4");
            assertThatThrownBy(() -> JavaCpp.tensor(new FloatPointer(), DType.F32, 1))
                    .hasMessageContaining("the pointer is null");
            FloatPointer unknown = new FloatPointer(pointer).capacity(0);
            assertThatThrownBy(() -> JavaCpp.tensor(unknown, DType.F32, 1)).hasMessageContaining("capacity(n)");

            Tensor tensor = Tensor.ofFloats(arena, 1, 2);
            assertThatThrownBy(() -> JavaCpp.pointer(tensor, ShortPointer::new))
                    .hasMessageContaining("have 4 bytes, but those of a ShortPointer have 2");
            Tensor reversed = Tensor.strided(tensor.data(), 4, DType.F32, new long[] {2}, new long[] {-1});
            assertThatThrownBy(() -> JavaCpp.pointer(reversed, FloatPointer::new))
                    .hasMessageContaining("begins at the first element");
        }
    }

    // ------------------------------------------------------------------------------------------------------- lifetimes

    /** Only tensors are kept; memory that were freed too early would be given to the pointers made in between. */
    @Test
    void aTensorKeepsItsPointer() {
        long before = settledBytes();
        List<Tensor> tensors = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            FloatPointer pointer = new FloatPointer(MEGABYTE / Float.BYTES);
            pointer.put(100, i);
            tensors.add(
                    JavaCpp.tensor(pointer, DType.F32, MEGABYTE / Float.BYTES).rows(100, 101));
        }
        for (int round = 0; round < 5; round++) {
            collect();
            try (FloatPointer other = new FloatPointer(MEGABYTE / Float.BYTES)) {
                other.fill(0xff);
            }
        }
        assertThat(Pointer.totalBytes() - before).isEqualTo(16L * MEGABYTE);
        for (int i = 0; i < 16; i++) {
            assertThat(tensors.get(i).getFloat(0)).isEqualTo(i);
        }
        tensors.clear();
        assertThat(eventually(() -> Pointer.totalBytes() == before))
                .as("all is freed")
                .isTrue();
    }

    @Test
    void closedPointersLastAsLongAsTheirTensors() {
        long before = settledBytes();
        FloatPointer closed = new FloatPointer(MEGABYTE);
        closed.put(5, 5);
        Tensor first = JavaCpp.tensor(closed, DType.F32, MEGABYTE);
        Tensor second = JavaCpp.tensor(closed, DType.F32, 1024, 1024);
        closed.close();
        Tensor scoped;
        try (PointerScope scope = new PointerScope()) {
            scoped = JavaCpp.tensor(new FloatPointer(1, 2, 3), DType.F32, 3);
        }
        collect();
        assertThat(Pointer.totalBytes() - before).isGreaterThanOrEqualTo(4L * MEGABYTE + 12);
        assertThat(first.getFloat(5)).isEqualTo(5);
        assertThat(second.getFloat(0, 5)).isEqualTo(5);
        assertThat(scoped.toFloatArray()).containsExactly(1, 2, 3);
        Reference.reachabilityFence(second);
        first = null;
        second = null;
        scoped = null;
        assertThat(eventually(() -> Pointer.totalBytes() == before))
                .as("all is freed")
                .isTrue();
    }

    @Test
    void aPointerKeepsItsTensorsMemory() {
        CountDownLatch released = new CountDownLatch(1);
        try (Arena arena = Arena.ofShared()) {
            Tensor owned = Tensor.ofFloats(arena, 1, 2, 3, 4);
            long address = owned.data().address();
            FloatPointer pointer = JavaCpp.pointer(
                    Tensor.of(ForeignMemory.of(address, 16, released::countDown), DType.F32, 4), FloatPointer::new);
            FloatPointer derived = pointer.getPointer(2);
            collect();
            assertThat(released.getCount()).isOne();
            Reference.reachabilityFence(pointer);
            pointer = null;
            collect();
            assertThat(derived.get(0)).isEqualTo(3);
            assertThat(released.getCount()).as("in use").isOne();
            Reference.reachabilityFence(derived);
            derived = null;
            assertThat(eventually(() -> released.getCount() == 0)).as("let go").isTrue();
        }
    }

    @Test
    void aClosedPointerLeavesTheTensor() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor tensor = Tensor.ofFloats(arena, 1, 2);
            FloatPointer pointer = JavaCpp.pointer(tensor, FloatPointer::new);
            pointer.close();
            assertThat(pointer.isNull()).isTrue();
            assertThat(tensor.toFloatArray()).containsExactly(1, 2);
        }
    }

    @Test
    void aClosedArenaMakesThePointerNull() {
        Arena arena = Arena.ofConfined();
        Tensor tensor = Tensor.ofFloats(arena, 1, 2);
        FloatPointer pointer = JavaCpp.pointer(tensor, FloatPointer::new, arena);
        assertThat(pointer.get(1)).isEqualTo(2);
        try (Arena other = Arena.ofConfined()) {
            assertThatThrownBy(() -> JavaCpp.pointer(tensor, FloatPointer::new, other))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageEndingWith("is of another arena");
        }
        arena.close();
        assertThat(pointer.isNull()).isTrue();
        assertThatThrownBy(() -> pointer.get(1)).isInstanceOf(NullPointerException.class);
        assertThatThrownBy(() -> JavaCpp.pointer(tensor, FloatPointer::new)).isInstanceOf(IllegalStateException.class);
    }

    // --------------------------------------------------------------------------------------------------------- helpers

    private static void collect() {
        for (int i = 0; i < 3; i++) {
            System.gc();
            sleep();
        }
    }

    /** What other tests have left to the collector must be gone before bytes are compared. */
    private static long settledBytes() {
        long[] last = {-1};
        eventually(() -> {
            long now = Pointer.totalBytes();
            boolean same = now == last[0];
            last[0] = now;
            return same;
        });
        return last[0];
    }

    private static boolean eventually(BooleanSupplier condition) {
        for (int i = 0; i < 200; i++) {
            collect();
            if (condition.getAsBoolean()) {
                return true;
            }
        }
        return false;
    }

    private static void sleep() {
        try {
            Thread.sleep(10);
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }
}
