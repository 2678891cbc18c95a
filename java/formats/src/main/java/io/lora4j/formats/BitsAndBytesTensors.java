package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Dequantize;
import io.lora4j.kernels.DequantizeOps;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Quantize;
import io.lora4j.kernels.QuantizeOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The tensors that bitsandbytes stores of one quantized weight. It is quantized when it is made, whole, since blocks go across rows and
 * double quantization takes the mean of all scales: the largest memory of a conversion is one weight in float32.
 *
 * <p>Source: bitsandbytes' {@code QuantState.as_dict} and {@code Linear8bitLt._save_to_state_dict}.
 */
final class BitsAndBytesTensors implements AutoCloseable {
    private static final int NESTED_BLOCK = 256;
    /** Room for the text of a quant_state with an offset; bitsandbytes, as any JSON reader, ignores the spaces behind it. */
    private static final int NESTED_STATE = 256;

    private final BitsAndBytes how;
    private final String name;
    private final List<Long> shape;
    private final DType original;
    private final Map<Part, Tensor> parts = new EnumMap<>(Part.class);
    private final Arena arena = Arena.ofShared();

    /**
     * Describes and, with {@link #quantize}, makes the tensors.
     *
     * @param name the weight's name, {@code <module>.weight}
     * @param original the type that the weight had, which bitsandbytes gives back
     */
    BitsAndBytesTensors(BitsAndBytes how, String name, List<Long> shape, DType original) {
        this.how = how;
        this.name = name;
        this.shape = shape;
        this.original = original;
    }

    private long blocks() {
        return Math.ceilDiv(shape.getFirst() * shape.getLast(), how.blockSize());
    }

    /** Returns the tensors in the order in which they are written. */
    Map<TensorSpec, Part> specs() {
        Map<TensorSpec, Part> specs = new LinkedHashMap<>();
        if (!how.type().is4Bit()) {
            String module = name.substring(0, name.length() - "weight".length());
            specs.put(new TensorSpec(name, DType.I8, shape), Part.VALUES);
            specs.put(new TensorSpec(module + "SCB", DType.F32, List.of(shape.getFirst())), Part.SCALES);
            // 0 is the only format of rows: "row".
            specs.put(new TensorSpec(module + "weight_format", DType.U8, List.of()), Part.BLOCK_SIZE);
            return specs;
        }
        long values = shape.getFirst() * shape.getLast();
        boolean nested = how.doubleQuant();
        specs.put(new TensorSpec(name, DType.U8, List.of(Math.ceilDiv(values, 2L), 1L)), Part.VALUES);
        specs.put(new TensorSpec(name + ".absmax", nested ? DType.U8 : DType.F32, List.of(blocks())), Part.SCALES);
        specs.put(new TensorSpec(name + ".quant_map", DType.F32, List.of(16L)), Part.QUANT_MAP);
        if (nested) {
            specs.put(
                    new TensorSpec(name + ".nested_absmax", DType.F32, List.of(Math.ceilDiv(blocks(), NESTED_BLOCK))),
                    Part.NESTED_SCALES);
            specs.put(new TensorSpec(name + ".nested_quant_map", DType.F32, List.of(256L)), Part.NESTED_QUANT_MAP);
        }
        long state = nested ? NESTED_STATE : state(0).length;
        specs.put(
                new TensorSpec(name + ".quant_state.bitsandbytes__" + quantType(), DType.U8, List.of(state)),
                Part.BLOCK_SIZE);
        return specs;
    }

    /** Quantizes the weight and returns what it changed by. */
    TensorReport quantize(ModelValues values, Queue queue) throws IOException {
        specs().forEach((spec, part) -> {
            if (part != Part.BLOCK_SIZE) {
                long[] sizes = part == Part.VALUES && how.type().is4Bit()
                        ? new long[] {spec.elements()}
                        : spec.shape().stream().mapToLong(Long::longValue).toArray();
                parts.put(part, Tensor.allocate(arena, spec.dtype(), sizes));
            }
        });
        if (how.type().is4Bit()) {
            parts.put(Part.BLOCK_SIZE, Tensor.ofLongs(arena, how.blockSize()));
            if (how.doubleQuant()) {
                parts.put(Part.NESTED_OFFSET, Tensor.allocate(arena, DType.F32, 1));
                parts.put(Part.NESTED_BLOCK_SIZE, Tensor.ofLongs(arena, NESTED_BLOCK));
            }
        }
        TensorReport.Meter meter = new TensorReport.Meter();
        try (Arena scratch = Arena.ofShared()) {
            Tensor x = Tensor.allocate(scratch, DType.F32, shape.getFirst(), shape.getLast());
            values.read(name, 0, x);
            values.release(name);
            Quantize.Builder quantize =
                    Quantize.builder(scratch).scheme(scheme()).x(x);
            parts.forEach(quantize::part);
            try {
                QuantizeOps.forward(queue, quantize.build());
            } catch (NumericException e) {
                throw new FormatException(
                        "tensor " + name + " cannot be stored as " + how.type() + ": " + e.getMessage(), e);
            }
            measure(x, meter, queue);
        }
        long bytes = specs().keySet().stream().mapToLong(TensorSpec::bytes).sum();
        return meter.report(name, how.type().name(), shape, bytes);
    }

    /** LLM.int8 takes float16: bitsandbytes rounds to it whatever the weight is. */
    private Tensor half(Tensor x, Arena scratch) throws FormatException {
        return Tensor.of(GgufQuantization.dense(DType.F16, x, scratch, name), DType.F16, x.shape());
    }

    private void measure(Tensor x, TensorReport.Meter meter, Queue queue) {
        Weight.Builder builder = Weight.builder(scheme(), x.size(0), x.size(1));
        parts.forEach(builder::part);
        try (Weight weight = builder.borrow(queue.device());
                Arena scratch = Arena.ofShared()) {
            long step = Math.max(1, (1L << 20) / x.size(1));
            for (long from = 0; from < x.size(0); from += step) {
                long to = Math.min(x.size(0), from + step);
                Tensor out = Tensor.allocate(scratch, DType.F32, to - from, x.size(1));
                DequantizeOps.forward(
                        queue,
                        Dequantize.builder(scratch)
                                .weight(weight)
                                .rowBegin(from)
                                .out(out)
                                .build());
                meter.add(x.rows(from, to).data(), out.data());
            }
        }
    }

    /** Returns the bytes of one of the tensors, once the weight is quantized. */
    MemorySegment data(TensorSpec spec, Part part) {
        if (part == Part.BLOCK_SIZE) {
            return MemorySegment.ofArray(how.type().is4Bit() ? paddedState((int) spec.bytes()) : new byte[1]);
        }
        Tensor tensor = parts.get(part);
        if (tensor == null) {
            throw new IllegalStateException(spec.name() + " is written before its weight is quantized");
        }
        return tensor.data();
    }

    private Scheme scheme() {
        return switch (how.type()) {
            case NF4 -> Scheme.NF4;
            case FP4 -> Scheme.FP4;
            case INT8 -> Scheme.LLM_INT8;
        };
    }

    private String quantType() {
        return how.type() == BitsAndBytes.Type.NF4 ? "nf4" : "fp4";
    }

    private byte[] paddedState(int size) {
        Tensor offset = parts.get(Part.NESTED_OFFSET);
        byte[] state = state(offset == null ? 0 : offset.getFloat(0));
        if (state.length > size) {
            throw new IllegalStateException("the quant_state of " + name + " takes " + state.length + " bytes");
        }
        byte[] padded = Arrays.copyOf(state, size);
        Arrays.fill(padded, state.length, size, (byte) ' ');
        return padded;
    }

    private byte[] state(float offset) {
        Map<String, Object> state = new LinkedHashMap<>();
        state.put("quant_type", quantType());
        state.put("blocksize", how.blockSize());
        state.put(
                "dtype",
                switch (original) {
                    case BF16 -> "bfloat16";
                    case F16 -> "float16";
                    default -> "float32";
                });
        state.put("shape", shape);
        if (how.doubleQuant()) {
            state.put("nested_blocksize", NESTED_BLOCK);
            state.put("nested_dtype", "float32");
            state.put("nested_offset", (double) offset);
        }
        return new PythonJson(true, null, ", ", ": ", false).write(state).getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public void close() {
        arena.close();
    }
}
