package io.lora4j.examples;

import static org.bytedeco.openblas.global.openblas.CblasNoTrans;
import static org.bytedeco.openblas.global.openblas.CblasRowMajor;
import static org.bytedeco.openblas.global.openblas.CblasTrans;
import static org.bytedeco.openblas.global.openblas.cblas_sgemm;

import io.lora4j.interop.javacpp.JavaCpp;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.Random;
import org.bytedeco.javacpp.FloatPointer;

/**
 * A LoRA layer in two ways over the same memory, which is JavaCPP's: y = x · Wᵀ + c · (x · Aᵀ) · Bᵀ by three calls of OpenBLAS, and
 * by one fused kernel that reads OpenBLAS's buffers and writes into another one of its kind.
 */
public final class OpenBlasBuffers {
    private static final int M = 37;
    private static final int K = 192;
    private static final int N = 160;
    private static final int R = 8;
    private static final float SCALING = 2;

    private OpenBlasBuffers() {}

    public static void main(String[] args) {
        Random random = new Random(1);
        FloatPointer x = uniform(random, M * K);
        FloatPointer w = uniform(random, N * K);
        FloatPointer a = uniform(random, R * K);
        FloatPointer b = uniform(random, N * R);
        FloatPointer expected = new FloatPointer((long) M * N);
        FloatPointer s = new FloatPointer((long) M * R);
        timesTransposed(M, N, K, 1, x, w, 0, expected);
        timesTransposed(M, R, K, SCALING, x, a, 0, s);
        timesTransposed(M, N, R, 1, s, b, 1, expected);

        FloatPointer y = new FloatPointer((long) M * N);
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device);
                Weight weight = Weight.borrow(device, JavaCpp.tensor(w, DType.F32, N, K));
                Arena arena = Arena.ofConfined()) {
            Lora layer = Lora.builder(arena)
                    .x(JavaCpp.tensor(x, DType.F32, M, K))
                    .projection(weight)
                    .adapter(JavaCpp.tensor(a, DType.F32, R, K), JavaCpp.tensor(b, DType.F32, N, R), 0)
                    .scaling(Tensor.ofFloats(arena, SCALING))
                    .s(Tensor.allocate(arena, DType.F32, M, R))
                    .y(JavaCpp.tensor(y, DType.F32, M, N))
                    .build();
            LoraOps.forward(queue, layer);
        }
        double difference = 0;
        double norm = 0;
        for (int i = 0; i < M * N; i++) {
            difference += Math.pow(y.get(i) - (double) expected.get(i), 2);
            norm += Math.pow(expected.get(i), 2);
        }
        System.out.printf("relative difference %.1e%n", Math.sqrt(difference / norm));
    }

    /** c = alpha · a · bᵀ + beta · c with a [m, k], b [n, k], c [m, n]. */
    private static void timesTransposed(
            int m, int n, int k, float alpha, FloatPointer a, FloatPointer b, float beta, FloatPointer c) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, alpha, a, k, b, k, beta, c, n);
    }

    private static FloatPointer uniform(Random random, int size) {
        FloatPointer values = new FloatPointer(size);
        for (int i = 0; i < size; i++) {
            values.put(i, random.nextFloat() - 0.5f);
        }
        return values;
    }
}
