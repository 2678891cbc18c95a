package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.SegmentAllocator;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiConsumer;
import java.util.function.Function;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Every argument of every operation, left out and with a shape or dtype that does not fit: refused where it is needed, never a crash
 * and never a write.
 */
class MisfitTest {
    private static final int M = 4;
    private static final int N = 8;

    /** One direction of an operation, and the arguments without which it is refused. */
    private record Direction(BiConsumer<Queue, Arguments> run, Set<String> needed) {}

    private record Operation(
            Class<?> type, Function<Fixture, Map<String, Object>> arguments, List<Direction> directions) {
        @Override
        public String toString() {
            return type.getSimpleName();
        }

        Arguments build(Fixture f, Map<String, Object> values) {
            try {
                Object builder =
                        type.getMethod("builder", SegmentAllocator.class).invoke(null, f.arena);
                for (Method setter : builder.getClass().getMethods()) {
                    if (values.containsKey(setter.getName())) {
                        setter.invoke(builder, values.get(setter.getName()));
                    }
                }
                return (Arguments) builder.getClass().getMethod("build").invoke(builder);
            } catch (InvocationTargetException e) {
                throw (RuntimeException) e.getCause();
            } catch (ReflectiveOperationException e) {
                throw new AssertionError(e);
            }
        }
    }

    private static Direction direction(BiConsumer<Queue, Arguments> run, String... needed) {
        return new Direction(run, Set.of(needed));
    }

    static List<Operation> operations() {
        return List.of(
                new Operation(
                        RmsNorm.class,
                        f -> Map.ofEntries(
                                Map.entry("x", f.random(M, N)),
                                Map.entry("residual", f.random(M, N)),
                                Map.entry("weight", f.random(N)),
                                Map.entry("h", f.zeros(M, N)),
                                Map.entry("y", f.zeros(M, N)),
                                Map.entry("rstd", f.zeros(M)),
                                Map.entry("dy", f.random(M, N)),
                                Map.entry("dresidual", f.random(M, N)),
                                Map.entry("dx", f.zeros(M, N)),
                                Map.entry("dweight", f.zeros(N)),
                                Map.entry("eps", 1e-5)),
                        List.of(
                                direction(
                                        (q, a) -> RmsNormOps.forward(q, (RmsNorm) a), "x", "weight", "h", "y", "rstd"),
                                direction(
                                        (q, a) -> RmsNormOps.backward(q, (RmsNorm) a),
                                        "weight",
                                        "h",
                                        "rstd",
                                        "dy",
                                        "dx"))),
                new Operation(
                        Rope.class,
                        f -> Map.of(
                                "src", f.random(M, 2, N),
                                "dst", f.zeros(M, 2, N),
                                "cosine", f.random(5, N / 2),
                                "sine", f.random(5, N / 2),
                                "positions", Tensor.ofInts(f.arena, 0, 1, 2, 3)),
                        List.of(
                                direction(
                                        (q, a) -> RopeOps.forward(q, (Rope) a),
                                        "src",
                                        "dst",
                                        "cosine",
                                        "sine",
                                        "positions"),
                                direction(
                                        (q, a) -> RopeOps.backward(q, (Rope) a),
                                        "src",
                                        "dst",
                                        "cosine",
                                        "sine",
                                        "positions"))),
                new Operation(
                        Attention.class,
                        f -> Map.ofEntries(
                                Map.entry("q", f.random(M, 2, N)),
                                Map.entry("k", f.random(M, 1, N)),
                                Map.entry("v", f.random(M, 1, N)),
                                Map.entry("o", f.zeros(M, 2, N)),
                                Map.entry("lse", f.zeros(M, 2)),
                                Map.entry("dO", f.random(M, 2, N)),
                                Map.entry("dq", f.zeros(M, 2, N)),
                                Map.entry("dk", f.zeros(M, 1, N)),
                                Map.entry("dv", f.zeros(M, 1, N)),
                                Map.entry("qOffsets", Tensor.ofInts(f.arena, 0, 1, 4)),
                                Map.entry("kvStarts", Tensor.ofInts(f.arena, 0, 1)),
                                Map.entry("kvLengths", Tensor.ofInts(f.arena, 1, 3)),
                                Map.entry("maxQLength", 3L),
                                Map.entry("maxKvLength", 3L),
                                Map.entry("scale", 0.5)),
                        List.of(
                                direction(
                                        (q, a) -> AttentionOps.forward(q, (Attention) a),
                                        "q",
                                        "k",
                                        "v",
                                        "o",
                                        "qOffsets",
                                        "kvStarts",
                                        "kvLengths",
                                        "maxQLength",
                                        "maxKvLength"),
                                direction(
                                        (q, a) -> AttentionOps.backward(q, (Attention) a),
                                        "q",
                                        "k",
                                        "v",
                                        "o",
                                        "lse",
                                        "dO",
                                        "dq",
                                        "dk",
                                        "dv",
                                        "qOffsets",
                                        "kvStarts",
                                        "kvLengths",
                                        "maxQLength",
                                        "maxKvLength"))),
                new Operation(
                        Swiglu.class,
                        f -> Map.of(
                                "gate", f.random(M, N),
                                "up", f.random(M, N),
                                "out", f.zeros(M, N),
                                "dout", f.random(M, N),
                                "dgate", f.zeros(M, N),
                                "dup", f.zeros(M, N)),
                        List.of(
                                direction((q, a) -> SwigluOps.forward(q, (Swiglu) a), "gate", "up", "out"),
                                direction(
                                        (q, a) -> SwigluOps.backward(q, (Swiglu) a),
                                        "gate",
                                        "up",
                                        "dout",
                                        "dgate",
                                        "dup"))),
                new Operation(
                        Embedding.class,
                        f -> Map.of(
                                "weight", f.pack(f.random(DType.F32, 5, N)),
                                "ids", Tensor.ofInts(f.arena, 0, 1, 2, 4),
                                "out", f.zeros(M, N),
                                "dout", f.random(M, N),
                                "dweight", f.zeros(5, N)),
                        List.of(
                                direction((q, a) -> EmbeddingOps.forward(q, (Embedding) a), "weight", "ids", "out"),
                                direction(
                                        (q, a) -> EmbeddingOps.backward(q, (Embedding) a), "ids", "dout", "dweight"))),
                new Operation(
                        LinearCrossEntropy.class,
                        f -> Map.ofEntries(
                                Map.entry("x", f.random(M, N)),
                                Map.entry("weight", f.pack(f.random(DType.F32, 9, N))),
                                Map.entry("targets", Tensor.ofInts(f.arena, 0, 8, -100, 1)),
                                Map.entry("rowWeight", Tensor.ofFloats(f.arena, 1, 2, 3, 4)),
                                Map.entry("gradScale", Tensor.ofFloats(f.arena, 1)),
                                Map.entry("step", Tensor.ofLongs(f.arena, 1)),
                                Map.entry("loss", f.zeros(M)),
                                Map.entry("lse", f.zeros(M)),
                                Map.entry("predicted", Tensor.ofInts(f.arena, 0, 0, 0, 0)),
                                Map.entry("dx", f.zeros(M, N)),
                                Map.entry("numeric", NumericStatus.allocate(f.arena))),
                        List.of(direction(
                                (q, a) -> LinearCrossEntropyOps.forward(q, (LinearCrossEntropy) a),
                                "x",
                                "weight",
                                "targets",
                                "loss",
                                "lse"))),
                new Operation(
                        Axpby.class,
                        f -> Map.of(
                                "alpha", Tensor.ofFloats(f.arena, 1),
                                "beta", Tensor.ofFloats(f.arena, 1),
                                "x", f.random(M, N),
                                "y", f.random(M, N)),
                        List.of(direction((q, a) -> AxpbyOps.forward(q, (Axpby) a), "alpha", "beta", "x", "y"))),
                new Operation(
                        Sample.class,
                        f -> Map.of(
                                "logits", f.random(M, N),
                                "hyper", SampleHyper.allocate(f.arena),
                                "ids", Tensor.ofInts(f.arena, 0, 0, 0, 0)),
                        List.of(direction((q, a) -> SampleOps.forward(q, (Sample) a), "logits", "hyper", "ids"))),
                new Operation(
                        Dequantize.class,
                        f -> Map.of("weight", f.pack(f.random(DType.F32, 5, N)), "out", f.zeros(M, N)),
                        List.of(direction((q, a) -> DequantizeOps.forward(q, (Dequantize) a), "weight", "out"))));
    }

    @ParameterizedTest
    @MethodSource("operations")
    void everythingInPlace(Operation operation) {
        try (Fixture f = new Fixture(Isa.AUTO)) {
            Arguments arguments = operation.build(f, operation.arguments.apply(f));
            operation.directions.forEach(direction -> direction.run.accept(f.queue, arguments));
        }
    }

    @ParameterizedTest
    @MethodSource("operations")
    void oneArgumentLeftOut(Operation operation) {
        try (Fixture f = new Fixture(Isa.AUTO)) {
            Map<String, Object> all = operation.arguments.apply(f);
            for (String name : all.keySet()) {
                Map<String, Object> some = new HashMap<>(all);
                some.remove(name);
                for (Direction direction : operation.directions) {
                    Status expected = direction.needed.contains(name) ? Status.EINVAL : Status.OK;
                    assertThat(statusOf(() -> direction.run.accept(f.queue, operation.build(f, some))))
                            .as("%s without %s", operation, name)
                            .isEqualTo(expected);
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("operations")
    void oneTensorOfAnotherShapeOrType(Operation operation) {
        try (Fixture f = new Fixture(Isa.AUTO)) {
            Map<String, Object> all = operation.arguments.apply(f);
            all.forEach((name, value) -> {
                if (value instanceof Tensor tensor) {
                    for (Tensor misfit : misfits(f, tensor)) {
                        Map<String, Object> some = new HashMap<>(all);
                        some.put(name, misfit);
                        for (Direction direction : operation.directions) {
                            Status status = statusOf(() -> direction.run.accept(f.queue, operation.build(f, some)));
                            boolean mayFit = status == Status.OK && !direction.needed.contains(name);
                            assertThat(status == Status.EINVAL || status == Status.ENOTSUP || mayFit)
                                    .as("%s with %s = %s: %s", operation, name, misfit, status)
                                    .isTrue();
                        }
                    }
                }
            });
        }
    }

    private static List<Tensor> misfits(Fixture f, Tensor tensor) {
        long[] longer = Arrays.stream(tensor.shape()).map(size -> size + 1).toArray();
        long[] deeper = Arrays.copyOf(tensor.shape(), longer.length + 1);
        deeper[longer.length] = 1;
        return List.of(
                Tensor.allocate(f.arena, tensor.dtype(), longer),
                Tensor.allocate(f.arena, tensor.dtype(), deeper),
                Tensor.allocate(f.arena, DType.I16, tensor.shape()));
    }

    private static Status statusOf(Runnable action) {
        try {
            action.run();
        } catch (Lora4jException e) {
            assertThat(e.getMessage()).isNotBlank();
            return e.status();
        }
        return Status.OK;
    }
}
