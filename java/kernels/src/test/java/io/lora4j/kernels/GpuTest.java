package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What only a GPU has; the operations' own tests run on it too. */
class GpuTest {
    @BeforeEach
    void needsGpu() {
        assumeTrue(Fixture.GPU_MISSING == null, Fixture.GPU_MISSING);
    }

    @Test
    void tensorsAreReadAndWrittenThroughCopies() {
        try (Fixture f = new Fixture(Isa.CUDA)) {
            Tensor t = Tensor.allocate(f.memory, DType.BF16, 3, 4);
            assertThat(t.toFloatArray()).containsOnly(0);
            t.setFloat(2.5, 1, 2);
            t.columns(0, 1).fill(-1);
            Tensor transposed = t.transpose(0, 1);
            assertThat(transposed.toFloatArray()).containsExactly(-1, -1, -1, 0, 0, 0, 0, 2.5f, 0, 0, 0, 0);
            Tensor host = Tensor.allocate(f.arena, DType.F32, 4, 3);
            host.copyFrom(transposed);
            assertThat(host.getFloat(2, 1)).isEqualTo(2.5f);
            t.rows(0, 1).zero();
            assertThat(t.getFloat(0, 0)).isZero();
            assertThat(t.getFloat(1, 0)).isEqualTo(-1);
            assertThatThrownBy(t::data)
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessageContaining("BF16[3, 4] lies on cuda(0)");
        }
    }

    @Test
    void refusesTheMemoryOfAnotherDevice() {
        try (Fixture gpu = new Fixture(Isa.CUDA);
                Fixture cpu = new Fixture(Isa.AUTO)) {
            Tensor there = gpu.zeros(2, 3);
            Tensor here = cpu.zeros(2, 3);
            for (Fixture f : new Fixture[] {gpu, cpu}) {
                Swiglu mixed =
                        Swiglu.builder(f.arena).gate(there).up(here).out(there).build();
                assertThatThrownBy(() -> SwigluOps.forward(f.queue, mixed))
                        .isInstanceOfSatisfying(
                                Lora4jException.class,
                                e -> assertThat(e.status()).isEqualTo(Status.EDEVICE));
            }
            Weight weight = cpu.pack(cpu.random(4, 5));
            Tensor ids = Tensor.ofInts(gpu.memory, 1);
            Embedding foreign = Embedding.builder(gpu.arena)
                    .weight(weight)
                    .ids(ids)
                    .out(gpu.zeros(1, 5))
                    .build();
            assertThatThrownBy(() -> EmbeddingOps.forward(gpu.queue, foreign))
                    .hasMessageContaining("belongs to another device");
        }
    }

    @Test
    void memoryIsReleasedWhenItsWorkIsDone() {
        try (Device device = Device.cuda(0);
                Queue queue = Queue.create(device)) {
            DeviceMemory memory = DeviceMemory.of(queue);
            Tensor x = Tensor.allocate(memory, DType.F32, 64 << 20);
            assertThatThrownBy(device::close)
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.EBUSY));
            memory.close();
            memory.close();
            assertThatThrownBy(() -> x.getFloat(0)).isInstanceOf(IllegalStateException.class);
            assertThatThrownBy(() -> memory.allocate(4)).isInstanceOf(IllegalStateException.class);
            try (DeviceMemory tooMuch = DeviceMemory.of(queue)) {
                assertThatThrownBy(() -> tooMuch.allocate(1L << 60))
                        .isInstanceOfSatisfying(
                                Lora4jException.class,
                                e -> assertThat(e.status()).isEqualTo(Status.ENOMEM));
            }
        }
    }

    /** A recorded step reads its inputs anew, keeps its weight open, and gives the bits of the same calls. */
    @Test
    void graphsReplay() {
        try (Fixture f = new Fixture(Isa.CUDA)) {
            Tensor x = f.random(6, 16);
            Tensor y = f.poisoned(6, 8);
            Weight weight = Weight.pack(f.queue, f.random(8, 16));
            Lora arguments = Lora.builder(f.arena)
                    .x(x)
                    .projection(weight)
                    .adapter(f.random(4, 16), f.random(8, 4), 1)
                    .scaling(Tensor.ofFloats(f.memory, 2))
                    .y(y)
                    .s(f.poisoned(6, 4))
                    .build();
            LoraOps.forward(f.queue, arguments);
            try (Graph graph = f.queue.record(() -> LoraOps.forward(f.queue, arguments))) {
                for (int step = 0; step < 3; step++) {
                    x.copyFrom(f.random(6, 16));
                    LoraOps.forward(f.queue, arguments);
                    float[] expected = y.toFloatArray();
                    y.fill(Double.NaN);
                    graph.launch();
                    assertThat(y.toFloatArray()).isEqualTo(expected);
                }
                assertThatThrownBy(weight::close).hasMessageContaining("in use");
            }
            weight.close();
        }
    }

    @Test
    void refusesProductsInBf16OfFp32Tensors() {
        try (Fixture f = new Fixture(Isa.CUDA)) {
            Lora lora = Lora.builder(f.arena)
                    .x(f.random(2, 16))
                    .projection(f.pack(f.random(8, 16)))
                    .y(f.zeros(2, 8))
                    .compute(Compute.BF16)
                    .build();
            assertThatThrownBy(() -> LoraOps.forward(f.queue, lora))
                    .isInstanceOfSatisfying(
                            Lora4jException.class, e -> assertThat(e.status()).isEqualTo(Status.ENOTSUP))
                    .hasMessageContaining("compute is L4J_COMPUTE_BF16");
        }
    }
}
