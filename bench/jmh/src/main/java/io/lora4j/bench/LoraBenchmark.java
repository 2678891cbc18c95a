package io.lora4j.bench;

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
 * A linear layer, frozen and with an adapter of rank 16, forward and backward; and the cost of building its arguments, which the
 * training loop does for every operation of a step.
 *
 * <pre>java -jar bench/jmh/target/benchmarks.jar LoraBenchmark -p shape=512x576x1536</pre>
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(value = 1, jvmArgsAppend = "--enable-native-access=ALL-UNNAMED")
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class LoraBenchmark {
    private static final int RANK = 16;

    /** M×K×N; JMH takes a comma for the next value. */
    @Param({"512x576x576", "512x576x1536", "512x1536x576", "512x2048x2048"})
    public String shape = "";

    /** 0 = one for each CPU. */
    @Param("0")
    public int threads;

    private final Arena arena = Arena.ofShared();
    private final Device device = Device.cpu();
    private Queue queue = Queue.create(device, 1);
    private final SplittableRandom random = new SplittableRandom(1);
    private Operands operands = new Operands(
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            random(1, 1),
            Tensor.allocate(arena, DType.F32, 1));
    private Weight weight = Weight.borrow(device, random(1, 1));
    private Lora frozen = lora(arena, false);
    private Lora adapted = lora(arena, true);

    private record Operands(
            Tensor x,
            Tensor y,
            Tensor dy,
            Tensor dx,
            Tensor a,
            Tensor b,
            Tensor s,
            Tensor da,
            Tensor db,
            Tensor w,
            Tensor scaling) {}

    private Tensor random(long rows, long columns) {
        float[] values = new float[Math.toIntExact(rows * columns)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (random.nextDouble() - 0.5);
        }
        Tensor tensor = Tensor.allocate(arena, DType.F32, rows, columns);
        tensor.copyFrom(values);
        return tensor;
    }

    /** Makes the operands of the shape. */
    @Setup(Level.Trial)
    public void setUp() {
        String[] sizes = shape.split("x");
        long m = Long.parseLong(sizes[0]);
        long k = Long.parseLong(sizes[1]);
        long n = Long.parseLong(sizes[2]);
        Tensor scaling = Tensor.allocate(arena, DType.F32, 1);
        scaling.fill(2);
        operands = new Operands(
                random(m, k),
                random(m, n),
                random(m, n),
                random(m, k),
                random(RANK, k),
                random(n, RANK),
                random(m, RANK),
                random(RANK, k),
                random(n, RANK),
                random(n, k),
                scaling);
        queue.close();
        queue = Queue.create(device, threads);
        weight.close();
        weight = Weight.borrow(device, operands.w());
        frozen = lora(arena, false);
        adapted = lora(arena, true);
    }

    private Lora lora(Arena owner, boolean adapter) {
        Operands o = operands;
        Lora.Builder builder = Lora.builder(owner)
                .x(o.x())
                .projection(weight)
                .y(o.y())
                .dy(o.dy())
                .dx(o.dx());
        if (adapter) {
            builder.adapter(o.a(), o.b(), 0)
                    .s(o.s())
                    .gradients(o.da(), o.db())
                    .scaling(o.scaling())
                    .accumulateGrads(true);
        }
        return builder.build();
    }

    /** y = x Wᵀ. */
    @Benchmark
    public void frozenForward() {
        LoraOps.forward(queue, frozen);
    }

    /** y = x Wᵀ, dx = dy W. */
    @Benchmark
    public void frozenForwardBackward() {
        LoraOps.forward(queue, frozen);
        LoraOps.backward(queue, frozen);
    }

    /** y = x Wᵀ + c (x Aᵀ) Bᵀ. */
    @Benchmark
    public void loraForward() {
        LoraOps.forward(queue, adapted);
    }

    /** The same with dx, dA and dB. */
    @Benchmark
    public void loraForwardBackward() {
        LoraOps.forward(queue, adapted);
        LoraOps.backward(queue, adapted);
    }

    /** Building the arguments alone. */
    @Benchmark
    public Lora buildArguments() {
        try (Arena step = Arena.ofConfined()) {
            return lora(step, true);
        }
    }

    /** Frees everything. */
    @TearDown(Level.Trial)
    public void tearDown() {
        weight.close();
        queue.close();
        device.close();
        arena.close();
    }
}
