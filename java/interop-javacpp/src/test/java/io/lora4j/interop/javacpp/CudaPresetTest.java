package io.lora4j.interop.javacpp;

import static org.assertj.core.api.Assertions.assertThat;
import static org.bytedeco.cuda.global.cudart.cudaFree;
import static org.bytedeco.cuda.global.cudart.cudaGetErrorString;
import static org.bytedeco.cuda.global.cudart.cudaMalloc;
import static org.bytedeco.cuda.global.cudart.cudaMemcpyAsync;
import static org.bytedeco.cuda.global.cudart.cudaMemcpyDefault;
import static org.bytedeco.cuda.global.cudart.cudaStreamCreate;
import static org.bytedeco.cuda.global.cudart.cudaStreamDestroy;
import static org.bytedeco.cuda.global.cudart.cudaStreamSynchronize;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.DeviceMemory;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.Lora4jException;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.ShortPointer;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;

/** Our linear layer between the calls of JavaCPP's CUDA preset: on its stream, in memory that it has allocated. */
class CudaPresetTest {
    private static final int M = 7;
    private static final int K = 24;
    private static final int N = 40;
    private static final int R = 4;

    private final Random random = new Random(1);
    private final List<Pointer> allocated = new ArrayList<>();

    @Test
    void loraOnTheStreamAndPointersOfThePreset() {
        try (Device device = gpu();
                Arena arena = Arena.ofConfined()) {
            CUstream_st stream = new CUstream_st();
            check(cudaStreamCreate(stream));
            try (Queue queue = Queue.onStream(device, stream.address());
                    DeviceMemory gpu = DeviceMemory.of(queue)) {
                Tensor x = host(arena, M, K);
                Tensor w = host(arena, N, K);
                Tensor a = host(arena, R, K);
                Tensor b = host(arena, N, R);
                Tensor scaling = Tensor.allocate(arena, DType.F32, 1);
                scaling.fill(2);
                // Nothing waits between the copies and the operation but the stream's order.
                Pointer y = memory(new ShortPointer(), 2L * M * N, M * N);
                Pointer s = memory(new ShortPointer(), 2L * M * R, M * R);
                Tensor there = JavaCpp.tensor(gpu, y, DType.BF16, M, N);
                try (Weight weight = Weight.borrow(device, copied(gpu, w, stream))) {
                    Lora lora = Lora.builder(arena)
                            .x(copied(gpu, x, stream))
                            .projection(weight)
                            .adapter(copied(gpu, a, stream), copied(gpu, b, stream), 0)
                            .scaling(copied(gpu, scaling, stream))
                            .s(JavaCpp.tensor(gpu, s, DType.BF16, M, R))
                            .y(there)
                            .build();
                    LoraOps.forward(queue, lora);
                    Tensor back = Tensor.allocate(arena, DType.BF16, M, N);
                    check(cudaMemcpyAsync(
                            JavaCpp.pointer(back, ShortPointer::new), y, 2L * M * N, cudaMemcpyDefault, stream));
                    check(cudaStreamSynchronize(stream));
                    assertThat(error(back, expected(x, w, a, b))).isLessThan(4e-3);
                    assertThat(there.toFloatArray())
                            .as("read through our queue")
                            .isEqualTo(back.toFloatArray());
                }
            } finally {
                check(cudaStreamSynchronize(stream));
                allocated.forEach(pointer -> check(cudaFree(pointer)));
                check(cudaStreamDestroy(stream));
            }
        }
    }

    /** The test is skipped where there is no GPU, or not what the preset itself needs. */
    private static Device gpu() {
        try {
            Device device = Device.cuda(0);
            try {
                cudaGetErrorString(0);
                return device;
            } catch (LinkageError e) {
                device.close();
                Assumptions.abort("JavaCPP's CUDA preset cannot be loaded: " + e);
            }
        } catch (Lora4jException e) {
            Assumptions.abort(e.getMessage());
        }
        throw new AssertionError();
    }

    private static void check(int status) {
        assertThat(status).as(() -> cudaGetErrorString(status).getString()).isZero();
    }

    private <P extends Pointer> P memory(P pointer, long bytes, long elements) {
        check(cudaMalloc(pointer, bytes));
        allocated.add(pointer);
        pointer.capacity(elements);
        return pointer;
    }

    /** Returns a tensor of the preset's memory, to which the stream copies the host's. */
    private Tensor copied(DeviceMemory gpu, Tensor host, CUstream_st stream) {
        long bytes = host.elements() * host.dtype().bytes();
        Pointer there =
                memory(host.dtype() == DType.F32 ? new FloatPointer() : new ShortPointer(), bytes, host.elements());
        check(cudaMemcpyAsync(there, pointer(host), bytes, cudaMemcpyDefault, stream));
        return JavaCpp.tensor(gpu, there, host.dtype(), host.shape());
    }

    private static Pointer pointer(Tensor host) {
        return host.dtype() == DType.F32
                ? JavaCpp.pointer(host, FloatPointer::new)
                : JavaCpp.pointer(host, ShortPointer::new);
    }

    private Tensor host(Arena arena, int rows, int columns) {
        float[] values = new float[rows * columns];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        Tensor tensor = Tensor.allocate(arena, DType.BF16, rows, columns);
        tensor.copyFrom(values);
        return tensor;
    }

    /** y = x Wᵀ + 2 (x Aᵀ) Bᵀ of the stored values. */
    private static double[] expected(Tensor x, Tensor w, Tensor a, Tensor b) {
        double[] y = new double[M * N];
        for (int m = 0; m < M; m++) {
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int k = 0; k < K; k++) {
                    double weight = w.getFloat(n, k);
                    for (int r = 0; r < R; r++) {
                        weight += 2.0 * b.getFloat(n, r) * a.getFloat(r, k);
                    }
                    sum += x.getFloat(m, k) * weight;
                }
                y[m * N + n] = sum;
            }
        }
        return y;
    }

    /** ‖actual − expected‖ / ‖expected‖; half a unit in the last place of BF16 is 2⁻⁹. */
    private static double error(Tensor actual, double[] expected) {
        double difference = 0;
        double norm = 0;
        double[] values = actual.toDoubleArray();
        for (int i = 0; i < expected.length; i++) {
            difference += Math.pow(values[i] - expected[i], 2);
            norm += Math.pow(expected[i], 2);
        }
        return Math.sqrt(difference / norm);
    }
}
