package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class TensorTest {
    private Arena arena;

    @BeforeEach
    void open() {
        arena = Arena.ofConfined();
    }

    @AfterEach
    void close() {
        arena.close();
    }

    @ParameterizedTest
    @EnumSource(DType.class)
    void allocatesAlignedZeros(DType dtype) {
        Tensor t = Tensor.allocate(arena, dtype, 3, 5);
        assertThat(t.elements()).isEqualTo(15);
        assertThat(t.bytes()).isEqualTo(15L * dtype.bytes());
        assertThat(t.data().byteSize()).isEqualTo(t.bytes());
        assertThat(t.data().address() % Tensor.ALIGNMENT).isZero();
        assertThat(t.data().toArray(ValueLayout.JAVA_BYTE)).containsOnly(0);
    }

    @Test
    void allocatesZerosFromUsedMemory() {
        MemorySegment used = arena.allocate(1024, 64).fill((byte) 0x7f);
        Tensor t = Tensor.allocate(SegmentAllocator.slicingAllocator(used), DType.F32, 8);
        assertThat(t.toFloatArray()).containsOnly(0f);
    }

    @Test
    void readsAndWritesRowMajor() {
        Tensor t = iota(2, 3, 4);
        assertThat(t.getFloat(1, 2, 3)).isEqualTo(23);
        t.setFloat(-1, 0, 1, 2);
        assertThat(t.toFloatArray()[6]).isEqualTo(-1);
        assertThat(t.shape()).containsExactly(2, 3, 4);
        assertThat(t.strides()).containsExactly(12, 4, 1);
    }

    @Test
    void viewsShareMemory() {
        Tensor t = iota(4, 6);
        assertThat(t.rows(1, 3).toFloatArray()).containsExactly(range(6, 18));
        assertThat(t.columns(4, 6).toFloatArray()).containsExactly(4, 5, 10, 11, 16, 17, 22, 23);
        assertThat(t.select(2).toFloatArray()).containsExactly(range(12, 18));
        assertThat(t.rows(1, 3).columns(0, 1).toFloatArray()).containsExactly(6, 12);
        assertThat(t.transpose(0, 1).select(1).toFloatArray()).containsExactly(1, 7, 13, 19);
        assertThat(t.reshape(2, 2, 6).select(1).toFloatArray()).containsExactly(range(12, 24));
        assertThat(iota(2, 3, 2).narrow(1, 1, 2).toFloatArray()).containsExactly(2, 3, 8, 9);

        t.columns(4, 6).fill(9);
        t.columns(0, 2).zero();
        assertThat(t.select(0).toFloatArray()).containsExactly(0, 0, 2, 3, 9, 9);
    }

    @Test
    void viewsKnowWhetherTheyAreContiguous() {
        Tensor t = iota(4, 6);
        assertThat(t.isContiguous()).isTrue();
        assertThat(t.rows(1, 2).isContiguous()).isTrue();
        assertThat(t.columns(0, 5).isContiguous()).isFalse();
        assertThat(t.rows(1, 2).columns(0, 5).isContiguous()).isTrue();
        assertThat(t.columns(0, 5)).hasToString("F32[4, 5] strides [6, 1]");
        assertThat(t).hasToString("F32[4, 6]");
        assertThatIllegalArgumentException().isThrownBy(() -> t.columns(0, 5).reshape(20));
        assertThatIllegalArgumentException().isThrownBy(() -> t.reshape(5, 5));
    }

    @Test
    void negativeAndZeroStrides() {
        Tensor base = iota(6);
        Tensor backwards = Tensor.strided(base.data(), 20, DType.F32, new long[] {6}, new long[] {-1});
        assertThat(backwards.toFloatArray()).containsExactly(5, 4, 3, 2, 1, 0);
        assertThat(backwards.data().byteSize()).isEqualTo(24);
        assertThat(backwards.rows(1, 4).toFloatArray()).containsExactly(4, 3, 2);
        assertThat(backwards.rows(1, 4).originAddress()).isEqualTo(base.originAddress() + 16);

        Tensor repeated = Tensor.strided(base.data(), 4, DType.F32, new long[] {3, 2}, new long[] {0, 1});
        assertThat(repeated.toFloatArray()).containsExactly(1, 2, 1, 2, 1, 2);
        assertThat(repeated.data().byteSize()).isEqualTo(8);
    }

    @Test
    void everyElementLiesInTheSegment() {
        MemorySegment segment = arena.allocate(24, 8);
        Tensor.of(segment, DType.F32, 6);
        Tensor.strided(segment, 20, DType.F32, new long[] {2, 2}, new long[] {-4, -1});
        assertOutside(segment, 0, new long[] {7}, new long[] {1});
        assertOutside(segment, 4, new long[] {6}, new long[] {1});
        assertOutside(segment, -4, new long[] {1}, new long[] {1});
        assertOutside(segment, 20, new long[] {7}, new long[] {-1});
        assertOutside(segment, 0, new long[] {2, 2}, new long[] {-1, 1});
        assertOutside(segment, 0, new long[] {2}, new long[] {Long.MAX_VALUE / 4});
        assertOutside(segment, 0, new long[] {2, 2}, new long[] {Long.MAX_VALUE / 4, Long.MAX_VALUE / 4});
        assertOutside(segment, 21, new long[] {1}, new long[] {1});
    }

    private static void assertOutside(MemorySegment segment, long offset, long[] shape, long[] strides) {
        assertThatThrownBy(() -> Tensor.strided(segment, offset, DType.F32, shape, strides))
                .isInstanceOf(IndexOutOfBoundsException.class)
                .hasMessageContaining("does not fit a segment of 24 bytes");
    }

    @Test
    void refusesWhatIsNotATensor() {
        assertThatIllegalArgumentException()
                .isThrownBy(() -> Tensor.of(MemorySegment.ofArray(new float[4]), DType.F32, 4))
                .withMessageContaining("heap segment of 16 bytes");
        assertThatIllegalArgumentException().isThrownBy(() -> Tensor.allocate(arena, DType.F32));
        assertThatIllegalArgumentException().isThrownBy(() -> Tensor.allocate(arena, DType.F32, 1, 1, 1, 1, 1));
        assertThatIllegalArgumentException().isThrownBy(() -> Tensor.allocate(arena, DType.F32, 2, -1));
        assertThatIllegalArgumentException().isThrownBy(() -> Tensor.allocate(arena, DType.F32, 1L << 40, 1L << 40));
        assertThatIllegalArgumentException().isThrownBy(() -> Tensor.allocate(arena, DType.F64, 1L << 61));
        assertThatIllegalArgumentException()
                .isThrownBy(() -> Tensor.strided(arena.allocate(64), 0, DType.F32, new long[] {2, 2}, new long[] {1}));
    }

    @Test
    void refusesIndicesOutside() {
        Tensor t = iota(4, 6);
        assertThatThrownBy(() -> t.getFloat(4, 0)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> t.getFloat(0, -1)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> t.getFloat(0)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> t.rows(2, 5)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> t.rows(3, 2)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatThrownBy(() -> t.select(4)).isInstanceOf(IndexOutOfBoundsException.class);
        assertThatIllegalArgumentException().isThrownBy(() -> t.select(0).select(0));
    }

    @Test
    void emptyTensors() {
        Tensor t = Tensor.allocate(arena, DType.F32, 0, 7);
        assertThat(t.elements()).isZero();
        assertThat(t.isContiguous()).isTrue();
        assertThat(t.toFloatArray()).isEmpty();
        assertThat(t.columns(3, 3).rows(0, 0).elements()).isZero();
        assertThat(iota(4, 6).rows(4, 4).elements()).isZero();
        Tensor.strided(arena.allocate(8), 0, DType.F32, new long[] {0, 99}, new long[] {99, 1});
    }

    @Test
    void convertsHalfAndBfloat16ToNearestEven() {
        float[] values = {1f, -2.5f, 65504f, 1e-8f, 0.1f, Float.POSITIVE_INFINITY, Float.NaN, 1.00390625f, 1.01171875f};
        Tensor half = Tensor.allocate(arena, DType.F16, values.length);
        half.copyFrom(values);
        for (int i = 0; i < values.length; i++) {
            assertThat(half.getFloat(i))
                    .isEqualTo(Float.valueOf(Float.float16ToFloat(Float.floatToFloat16(values[i]))));
        }
        Tensor brain = Tensor.allocate(arena, DType.BF16, values.length);
        brain.copyFrom(values);
        assertThat(brain.toFloatArray())
                .containsExactly(
                        1f,
                        -2.5f,
                        65536f,
                        0x1.58p-27f,
                        0.10009765625f,
                        Float.POSITIVE_INFINITY,
                        Float.NaN,
                        1f,
                        1.015625f);
        Tensor wide = Tensor.allocate(arena, DType.F64, values.length);
        wide.copyFrom(brain);
        assertThat(wide.getDouble(4)).isEqualTo(0.10009765625);
    }

    @Test
    void everyBfloat16SurvivesTheRoundTrip() {
        for (int bits = 0; bits < 0x10000; bits++) {
            float value = Float.intBitsToFloat(bits << 16);
            short back = Elements.toBfloat16(value);
            if (!Float.isNaN(value)) {
                assertThat(back).isEqualTo((short) bits);
            } else {
                assertThat(Float.intBitsToFloat(back << 16)).isNaN();
            }
        }
    }

    @Test
    void copiesBetweenViews() {
        Tensor source = iota(4, 6);
        Tensor target = Tensor.allocate(arena, DType.F32, 6, 4);
        target.copyFrom(source.transpose(0, 1));
        assertThat(target.getFloat(5, 2)).isEqualTo(17);
        target.rows(0, 2).copyFrom(new float[] {1, 2, 3, 4, 5, 6, 7, 8});
        assertThat(target.getFloat(1, 3)).isEqualTo(8);
        assertThatIllegalArgumentException().isThrownBy(() -> target.copyFrom(source));
        assertThatIllegalArgumentException().isThrownBy(() -> target.copyFrom(new float[3]));
        assertThatIllegalArgumentException().isThrownBy(() -> target.copyFrom(new int[24]));
    }

    @Test
    void integers() {
        Tensor ids = Tensor.ofInts(arena, 3, -1, 4);
        assertThat(ids.dtype()).isEqualTo(DType.I32);
        assertThat(ids.getInt(1)).isEqualTo(-1);
        ids.setInt(7, 2);
        assertThat(ids.toIntArray()).containsExactly(3, -1, 7);
        Tensor step = Tensor.ofLongs(arena, 1L << 40);
        assertThat(step.getLong(0)).isEqualTo(1L << 40);
        step.setLong(5, 0);
        assertThat(step.getLong(0)).isEqualTo(5);
        assertThatIllegalArgumentException().isThrownBy(() -> ids.getFloat(0));
        assertThatIllegalArgumentException().isThrownBy(() -> step.getInt(0));
        assertThatIllegalArgumentException().isThrownBy(() -> ids.fill(1));
    }

    @Test
    void closedArena() {
        Arena own = Arena.ofConfined();
        Tensor t = Tensor.allocate(own, DType.F32, 4);
        own.close();
        assertThatThrownBy(() -> t.getFloat(0)).isInstanceOf(IllegalStateException.class);
    }

    private Tensor iota(long... shape) {
        Tensor t = Tensor.allocate(arena, DType.F32, shape);
        t.copyFrom(range(0, (int) t.elements()));
        return t;
    }

    private static float[] range(int from, int to) {
        float[] values = new float[to - from];
        for (int i = 0; i < values.length; i++) {
            values[i] = from + i;
        }
        return values;
    }
}
