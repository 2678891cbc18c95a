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
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The tensors that bitsandbytes stores of one quantized weight, made some rows at a time: the memory is a few times {@link #VALUES} whatever
 * the weight's size. As the codes of all of it come before its scales, it is read and quantized twice, and with double quantization
 * the first time gives the scales' mean.
 *
 * <p>Source: bitsandbytes' {@code QuantState.as_dict} and {@code Linear8bitLt._save_to_state_dict}.
 */
final class BitsAndBytesTensors {
    /** Values of a piece: 16 MiB of float32. */
    private static final long VALUES = 1L << 22;

    private static final int NESTED_BLOCK = 256;
    /** Room for the text of a quant_state with an offset; bitsandbytes, as any JSON reader, ignores the spaces behind it. */
    private static final int NESTED_STATE = 256;

    private final BitsAndBytes how;
    private final String name;
    private final List<Long> shape;
    private final DType original;
    /** Double quantization: the sum of the scales in their order, and what follows from it. */
    private double sum;

    private float offset;
    private final ByteArrayOutputStream nestedScales = new ByteArrayOutputStream();
    private byte[] map = {};
    private byte[] nestedMap = {};

    /**
     * Describes the tensors.
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
        long state = nested ? NESTED_STATE : state().length;
        specs.put(
                new TensorSpec(name + ".quant_state.bitsandbytes__" + quantType(), DType.U8, List.of(state)),
                Part.BLOCK_SIZE);
        return specs;
    }

    /**
     * Writes one of the tensors; all are written in the order of {@link #specs}.
     *
     * @return what the weight changed by, once it is known; null before and after that
     */
    @Nullable
    TensorReport write(TensorSpec spec, Part part, ModelValues values, Queue queue, TensorSink sink)
            throws IOException {
        switch (part) {
            case VALUES -> {
                forEachPiece(values, x -> {
                    try (Arena scratch = Arena.ofShared()) {
                        Map<Part, Tensor> parts = quantize(x, false, queue, scratch);
                        sink.accept(data(parts, Part.VALUES));
                        if (nested()) {
                            addScales(data(parts, Part.SCALES));
                        }
                    }
                });
                offset = nested() ? (float) (sum / blocks()) : 0;
            }
            case SCALES -> {
                TensorReport.Meter meter = new TensorReport.Meter();
                forEachPiece(values, x -> {
                    try (Arena scratch = Arena.ofShared()) {
                        Map<Part, Tensor> parts = quantize(x, nested(), queue, scratch);
                        sink.accept(data(parts, Part.SCALES));
                        keep(parts);
                        measure(x, parts, meter, queue, scratch);
                    }
                });
                long bytes =
                        specs().keySet().stream().mapToLong(TensorSpec::bytes).sum();
                return meter.report(name, how.type().name(), shape, bytes);
            }
            case QUANT_MAP -> sink.accept(MemorySegment.ofArray(map));
            case NESTED_SCALES -> sink.accept(MemorySegment.ofArray(nestedScales.toByteArray()));
            case NESTED_QUANT_MAP -> sink.accept(MemorySegment.ofArray(nestedMap));
            default -> {
                byte[] state = how.type().is4Bit() ? paddedState((int) spec.bytes()) : new byte[1];
                sink.accept(MemorySegment.ofArray(state));
            }
        }
        return null;
    }

    private boolean nested() {
        return how.type().is4Bit() && how.doubleQuant();
    }

    /** Does something with values that follow one another. */
    @FunctionalInterface
    private interface Piece {
        /** Takes a matrix whose blocks are whole but for the last of the weight, valid until it returns. */
        void accept(Tensor x) throws IOException;
    }

    private void forEachPiece(ModelValues values, Piece action) throws IOException {
        long rows = shape.getFirst();
        long columns = shape.getLast();
        long unit = !how.type().is4Bit() ? columns : (long) how.blockSize() * (nested() ? NESTED_BLOCK : 1);
        long step = Math.max(1, VALUES / columns);
        try (Arena arena = Arena.ofShared()) {
            Tensor buffer = Tensor.allocate(arena, DType.F32, unit + Math.min(step, rows) * columns);
            long held = 0;
            for (long from = 0; from < rows; from += step) {
                long read = Math.min(step, rows - from);
                Tensor room = buffer.rows(held, held + read * columns).reshape(read, columns);
                values.read(name, from, room);
                held += read * columns;
                long whole = from + read == rows ? held : held - held % unit;
                if (whole > 0) {
                    long width = how.type().is4Bit() ? whole : columns;
                    action.accept(buffer.rows(0, whole).reshape(whole / width, width));
                }
                held -= whole;
                MemorySegment.copy(buffer.data(), whole * Float.BYTES, buffer.data(), 0, held * Float.BYTES);
            }
        }
        values.release(name);
    }

    /** Quantizes a piece with plain scales, or with double quantization about the offset that is known by then. */
    private Map<Part, Tensor> quantize(Tensor x, boolean doubly, Queue queue, Arena scratch) throws FormatException {
        Map<Part, Tensor> parts = new EnumMap<>(Part.class);
        Quantize.Builder quantize = Quantize.builder(scratch).scheme(scheme()).x(x);
        if (how.type().is4Bit()) {
            long blocks = Math.ceilDiv(x.elements(), how.blockSize());
            parts.put(Part.VALUES, Tensor.allocate(scratch, DType.U8, Math.ceilDiv(x.elements(), 2L)));
            parts.put(Part.SCALES, Tensor.allocate(scratch, doubly ? DType.U8 : DType.F32, blocks));
            parts.put(Part.QUANT_MAP, Tensor.allocate(scratch, DType.F32, 16));
            parts.put(Part.BLOCK_SIZE, Tensor.ofLongs(scratch, how.blockSize()));
            if (doubly) {
                parts.put(Part.NESTED_SCALES, Tensor.allocate(scratch, DType.F32, Math.ceilDiv(blocks, (long)
                        NESTED_BLOCK)));
                parts.put(Part.NESTED_QUANT_MAP, Tensor.allocate(scratch, DType.F32, 256));
                parts.put(Part.NESTED_OFFSET, Tensor.ofFloats(scratch, offset));
                parts.put(Part.NESTED_BLOCK_SIZE, Tensor.ofLongs(scratch, NESTED_BLOCK));
                quantize.givenOffset();
            }
        } else {
            parts.put(Part.VALUES, Tensor.allocate(scratch, DType.I8, x.shape()));
            parts.put(Part.SCALES, Tensor.allocate(scratch, DType.F32, x.size(0)));
        }
        parts.forEach(quantize::part);
        try {
            QuantizeOps.forward(queue, quantize.build());
        } catch (NumericException e) {
            throw new FormatException(
                    "tensor " + name + " cannot be stored as " + how.type() + ": " + e.getMessage(), e);
        }
        return parts;
    }

    private static MemorySegment data(Map<Part, Tensor> parts, Part part) {
        Tensor tensor = parts.get(part);
        if (tensor == null) {
            throw new IllegalStateException("no " + part);
        }
        return tensor.data();
    }

    /** Adds in the order and precision of the kernel that quantizes a whole weight, so that the mean has the same bits. */
    private void addScales(MemorySegment scales) {
        for (long i = 0; i < scales.byteSize() / Float.BYTES; i++) {
            sum += Widening.get(scales, i);
        }
    }

    private void keep(Map<Part, Tensor> parts) {
        if (!how.type().is4Bit()) {
            return;
        }
        map = data(parts, Part.QUANT_MAP).toArray(ValueLayout.JAVA_BYTE);
        if (nested()) {
            nestedMap = data(parts, Part.NESTED_QUANT_MAP).toArray(ValueLayout.JAVA_BYTE);
            nestedScales.writeBytes(data(parts, Part.NESTED_SCALES).toArray(ValueLayout.JAVA_BYTE));
        }
    }

    private void measure(Tensor x, Map<Part, Tensor> parts, TensorReport.Meter meter, Queue queue, Arena scratch) {
        Weight.Builder builder = Weight.builder(scheme(), x.size(0), x.size(1));
        parts.forEach(builder::part);
        Tensor out = Tensor.allocate(scratch, DType.F32, x.shape());
        try (Weight weight = builder.borrow(queue.device())) {
            DequantizeOps.forward(
                    queue, Dequantize.builder(scratch).weight(weight).out(out).build());
        }
        meter.add(x.data(), out.data());
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
        byte[] state = state();
        if (state.length > size) {
            throw new IllegalStateException("the quant_state of " + name + " takes " + state.length + " bytes");
        }
        byte[] padded = Arrays.copyOf(state, size);
        Arrays.fill(padded, state.length, size, (byte) ' ');
        return padded;
    }

    private byte[] state() {
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
}
