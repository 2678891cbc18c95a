package io.lora4j.bench;

import io.lora4j.interop.javacpp.JavaCpp;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.DeviceMemory;
import io.lora4j.kernels.Graph;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.bytedeco.cuda.cublas.cublasContext;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cublas;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.ShortPointer;
import org.jspecify.annotations.Nullable;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * The linear layer on a GPU in BF16, frozen and with an adapter of rank 16, and the frozen product by {@code cublasGemmEx} through
 * JavaCPP's preset: one process, one stream of the preset's, the same memory. An invocation gives the stream {@link #CALLS} calls and waits:
 * ours as graphs of one call for each layer, as {@code bench/native/gpu_lora} times them, cuBLAS's one by one. Three layers in turn, so that
 * a small one alone is not measured in the cache.
 *
 * <pre>java -jar bench/jmh/target/benchmarks.jar GpuBenchmark</pre>
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(value = 1, jvmArgsAppend = "--enable-native-access=ALL-UNNAMED")
@Warmup(iterations = 2, time = 1)
@Measurement(iterations = 5, time = 1)
public class GpuBenchmark {
    /** Calls of an invocation. */
    public static final int CALLS = 30;

    private static final int RANK = 16;
    private static final int LAYERS = 3;

    /** M×K×N; JMH takes a comma for the next value. */
    @Param({"8192x4096x4096", "2048x4096x4096", "512x4096x4096", "512x576x1536"})
    public String shape = "";

    private final Arena arena = Arena.ofShared();
    private final SplittableRandom random = new SplittableRandom(1);
    private final CUstream_st stream = new CUstream_st();
    private final cublasContext context = new cublasContext();
    private final FloatPointer one = new FloatPointer(1f);
    private final FloatPointer zero = new FloatPointer(0f);
    private final Layer[] layers = new Layer[LAYERS];
    private final List<Graph> graphs = new ArrayList<>();
    private final Device device = Device.cuda(0);
    private final Queue queue = onStream();
    private final DeviceMemory memory = DeviceMemory.of(queue);
    private @Nullable Graph frozenForward;
    private @Nullable Graph loraForward;
    private @Nullable Graph loraForwardBackward;
    private int m;
    private int k;
    private int n;

    private record Layer(ShortPointer x, ShortPointer w, ShortPointer y, Weight weight, Lora frozen, Lora adapted) {}

    private Queue onStream() {
        check(cudart.cudaStreamCreate(stream), "cudaStreamCreate");
        check(cublas.cublasCreate_v2(context), "cublasCreate");
        check(cublas.cublasSetStream_v2(context, stream), "cublasSetStream");
        return Queue.onStream(device, stream.address());
    }

    /** Makes the operands. */
    @Setup(Level.Trial)
    public void setUp() {
        String[] sizes = shape.split("x");
        m = Integer.parseInt(sizes[0]);
        k = Integer.parseInt(sizes[1]);
        n = Integer.parseInt(sizes[2]);
        Tensor scaling = Tensor.allocate(memory, DType.F32, 1);
        scaling.fill(2);
        for (int i = 0; i < LAYERS; i++) {
            ShortPointer xs = allocate((long) m * k);
            ShortPointer ws = allocate((long) n * k);
            ShortPointer ys = allocate((long) m * n);
            Tensor x = JavaCpp.tensor(memory, xs, DType.BF16, m, k);
            Tensor w = JavaCpp.tensor(memory, ws, DType.BF16, n, k);
            Tensor y = JavaCpp.tensor(memory, ys, DType.BF16, m, n);
            x.copyFrom(values(m, k));
            w.copyFrom(values(n, k));
            Tensor dy = random(m, n);
            Tensor dx = random(m, k);
            Weight weight = Weight.borrow(device, w);
            Lora frozen = Lora.builder(arena)
                    .x(x)
                    .projection(weight)
                    .y(y)
                    .dy(dy)
                    .dx(dx)
                    .build();
            Lora adapted = Lora.builder(arena)
                    .x(x)
                    .projection(weight)
                    .adapter(random(RANK, k), random(n, RANK), 0)
                    .scaling(scaling)
                    .s(random(m, RANK))
                    .y(y)
                    .dy(dy)
                    .dx(dx)
                    .gradients(Tensor.allocate(memory, DType.F32, RANK, k), Tensor.allocate(memory, DType.F32, n, RANK))
                    .build();
            layers[i] = new Layer(xs, ws, ys, weight, frozen, adapted);
        }
        frozenForward = record(layer -> LoraOps.forward(queue, layer.frozen));
        loraForward = record(layer -> LoraOps.forward(queue, layer.adapted));
        loraForwardBackward = record(layer -> {
            LoraOps.forward(queue, layer.adapted);
            LoraOps.backward(queue, layer.adapted);
        });
        queue.synchronize();
    }

    private Graph record(Consumer<Layer> call) {
        Runnable calls = () -> List.of(layers).forEach(call);
        calls.run(); // for its workspace, which the graph takes
        Graph graph = queue.record(calls);
        graphs.add(graph);
        return graph;
    }

    /** BF16 values by the preset. */
    private static ShortPointer allocate(long values) {
        ShortPointer pointer = new ShortPointer();
        check(cudart.cudaMalloc(pointer, 2 * values), "cudaMalloc");
        pointer.capacity(values);
        return pointer;
    }

    private float[] values(int rows, int columns) {
        float[] values = new float[Math.multiplyExact(rows, columns)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (random.nextDouble() - 0.5);
        }
        return values;
    }

    private Tensor random(int rows, int columns) {
        Tensor tensor = Tensor.allocate(memory, DType.BF16, rows, columns);
        tensor.copyFrom(values(rows, columns));
        return tensor;
    }

    /** y = x Wᵀ, ours. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void frozenForward() {
        replay(frozenForward);
    }

    /** y = x Wᵀ + c (x Aᵀ) Bᵀ, ours. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void loraForward() {
        replay(loraForward);
    }

    /** The same with dx, dA and dB. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void loraForwardBackward() {
        replay(loraForwardBackward);
    }

    private void replay(@Nullable Graph graph) {
        for (int i = 0; i < CALLS; i += LAYERS) {
            Objects.requireNonNull(graph).launch();
        }
        queue.synchronize();
    }

    /** y = x Wᵀ by cuBLAS, fp32 sums: to it a row-major matrix is the transposed one. */
    @Benchmark
    @OperationsPerInvocation(CALLS)
    public void cublas() {
        for (int i = 0; i < CALLS; i++) {
            Layer layer = layers[i % LAYERS];
            check(
                    cublas.cublasGemmEx(
                            context,
                            cublas.CUBLAS_OP_T,
                            cublas.CUBLAS_OP_N,
                            n,
                            m,
                            k,
                            one,
                            layer.w,
                            cudart.CUDA_R_16BF,
                            k,
                            layer.x,
                            cudart.CUDA_R_16BF,
                            k,
                            zero,
                            layer.y,
                            cudart.CUDA_R_16BF,
                            n,
                            cublas.CUBLAS_COMPUTE_32F,
                            cublas.CUBLAS_GEMM_DEFAULT),
                    "cublasGemmEx");
        }
        check(cudart.cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    }

    private static void check(int status, String what) {
        if (status != 0) {
            throw new IllegalStateException(what + " returned " + status);
        }
    }

    /** Frees everything. */
    @TearDown(Level.Trial)
    public void tearDown() {
        graphs.forEach(Graph::close);
        memory.close();
        for (Layer layer : layers) {
            layer.weight.close();
            check(cudart.cudaFree(layer.x), "cudaFree");
            check(cudart.cudaFree(layer.w), "cudaFree");
            check(cudart.cudaFree(layer.y), "cudaFree");
        }
        queue.close();
        check(cublas.cublasDestroy_v2(context), "cublasDestroy");
        check(cudart.cudaStreamDestroy(stream), "cudaStreamDestroy");
        device.close();
        arena.close();
    }
}
