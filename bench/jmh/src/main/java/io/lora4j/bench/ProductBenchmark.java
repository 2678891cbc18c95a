package io.lora4j.bench;

import io.lora4j.interop.javacpp.JavaCpp;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import org.bytedeco.dnnl.global.dnnl;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.openblas.global.openblas_nolapack;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * Y[M,N] = X[M,K] · W[N,K]ᵀ in fp32 through the Java API, and in the same process, on the same memory, by OpenBLAS and oneDNN through
 * JavaCPP's presets. How many threads those two take is told by {@code OPENBLAS_NUM_THREADS} and {@code OMP_NUM_THREADS}.
 *
 * <pre>java -jar bench/jmh/target/benchmarks.jar ProductBenchmark -p shape=512x576x1536</pre>
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(value = 1, jvmArgsAppend = "--enable-native-access=ALL-UNNAMED")
@Warmup(iterations = 2, time = 1)
@Measurement(iterations = 5, time = 1)
public class ProductBenchmark {
    private static final int ROW_MAJOR = 101; // of CBLAS
    private static final int AS_IS = 111;
    private static final int TRANSPOSED = 112;

    /** M×K×N; JMH takes a comma for the next value. */
    @Param({"64x576x576", "512x576x576", "512x576x1536", "512x1536x576", "512x2048x2048", "512x4096x4096"})
    public String shape = "";

    /** Of ours; 0 = one for each CPU. */
    @Param("0")
    public int threads;

    private final Arena arena = Arena.ofShared();
    private final Device device = Device.cpu();
    private int m;
    private int k;
    private int n;
    private Queue queue = Queue.create(device, 1);
    private Tensor w = Tensor.allocate(arena, DType.F32, 1, 1);
    private Weight weight = Weight.borrow(device, w);
    private Lora product = Lora.builder(arena).x(w).projection(weight).y(w).build();
    private FloatPointer x = JavaCpp.pointer(w, FloatPointer::new);
    private FloatPointer weights = x;
    private FloatPointer y = x;

    /** Makes the operands. */
    @Setup(Level.Trial)
    public void setUp() {
        String[] sizes = shape.split("x");
        m = Integer.parseInt(sizes[0]);
        k = Integer.parseInt(sizes[1]);
        n = Integer.parseInt(sizes[2]);
        tearDownProduct();
        queue = Queue.create(device, threads);
        Tensor input = random(m, k);
        Tensor output = random(m, n);
        w = random(n, k);
        weight = Weight.borrow(device, w);
        product = Lora.builder(arena).x(input).projection(weight).y(output).build();
        x = JavaCpp.pointer(input, FloatPointer::new);
        weights = JavaCpp.pointer(w, FloatPointer::new);
        y = JavaCpp.pointer(output, FloatPointer::new);
    }

    private Tensor random(int rows, int columns) {
        SplittableRandom random = new SplittableRandom(rows);
        float[] values = new float[Math.multiplyExact(rows, columns)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (random.nextDouble() - 0.5);
        }
        Tensor tensor = Tensor.allocate(arena, DType.F32, rows, columns);
        tensor.copyFrom(values);
        return tensor;
    }

    /** Ours, the weight read as it lies. */
    @Benchmark
    public void ours() {
        LoraOps.forward(queue, product);
    }

    /** {@code cblas_sgemm}. */
    @Benchmark
    public void openblas() {
        openblas_nolapack.cblas_sgemm(ROW_MAJOR, AS_IS, TRANSPOSED, m, n, k, 1, x, k, weights, k, 0, y, n);
    }

    /** {@code dnnl_sgemm}. */
    @Benchmark
    public void onednn() {
        int status = dnnl.dnnl_sgemm((byte) 'N', (byte) 'T', m, n, k, 1, x, k, weights, k, 0, y, n);
        if (status != 0) {
            throw new IllegalStateException("dnnl_sgemm returned " + status);
        }
    }

    private void tearDownProduct() {
        weight.close();
        queue.close();
    }

    /** Frees everything. */
    @TearDown(Level.Trial)
    public void tearDown() {
        tearDownProduct();
        device.close();
        arena.close();
    }
}
