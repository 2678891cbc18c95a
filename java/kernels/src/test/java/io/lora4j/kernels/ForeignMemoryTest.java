package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class ForeignMemoryTest {
    @Test
    void aTensorOfMemoryThatIsNotOurs() {
        try (Arena arena = Arena.ofConfined()) {
            Tensor owned = Tensor.ofFloats(arena, 1, 2, 3, 4, 5, 6);
            MemorySegment memory = ForeignMemory.of(owned.data().address(), owned.bytes(), () -> {});
            Tensor view = Tensor.of(memory, DType.F32, 2, 3);
            view.setFloat(9, 1, 2);
            assertThat(owned.getFloat(5)).isEqualTo(9);
            assertThatThrownBy(() -> Tensor.of(memory, DType.F32, 7)).isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    @Test
    void nothingAtNull() {
        assertThat(ForeignMemory.of(0, 0, () -> {}).byteSize()).isZero();
        assertThatThrownBy(() -> ForeignMemory.of(0, 4, () -> {})).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> ForeignMemory.of(4096, -1, () -> {})).isInstanceOf(IllegalArgumentException.class);
    }

    @Test
    void releasedOnceTheLastViewIsGone() throws Exception {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment owned = arena.allocate(64);
            CountDownLatch released = new CountDownLatch(1);
            Tensor view = Tensor.of(ForeignMemory.of(owned.address(), 64, released::countDown), DType.F32, 4, 4)
                    .rows(1, 2);
            for (int i = 0; i < 5; i++) {
                System.gc();
                assertThat(released.await(20, TimeUnit.MILLISECONDS))
                        .as("in use")
                        .isFalse();
            }
            Reference.reachabilityFence(view);
            view = null;
            boolean done = false;
            for (int i = 0; i < 100 && !done; i++) {
                System.gc();
                done = released.await(50, TimeUnit.MILLISECONDS);
            }
            assertThat(done).isTrue();
        }
    }

    @Test
    void actionsOfAnArena() {
        List<String> log = new ArrayList<>();
        Arena arena = Arena.ofConfined();
        ForeignMemory.onClose(arena, () -> log.add("closed"));
        assertThat(log).isEmpty();
        arena.close();
        assertThat(log).containsExactly("closed");
        assertThatThrownBy(() -> ForeignMemory.onClose(arena, () -> {})).isInstanceOf(IllegalStateException.class);
    }
}
