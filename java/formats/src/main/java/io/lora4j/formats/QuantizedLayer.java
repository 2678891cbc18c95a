package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The tensors of one quantized linear layer, found in a checkpoint and checked against the layer's size. Sources: bitsandbytes'
 * {@code QuantState.as_dict} and {@code Linear8bitLt}, AutoGPTQ's and AutoAWQ's linear layers, transformers' {@code FP8Linear}.
 */
final class QuantizedLayer {
    private static final String STATE = ".weight.quant_state.bitsandbytes__";
    /** Real ones have some 200 bytes. */
    private static final long MAX_STATE = 1 << 16;

    private static final String OTHERWISE = ": the file is damaged, or config.json is of another model";

    private static final String[] FLOATS = {"F32", "F16", "BF16"};
    private static final int FP8_BLOCK = 128;

    private final Checkpoint checkpoint;
    private final ModelModule module;
    private final long rows;
    private final long cols;
    private final Map<Part, TensorInfo> parts = new EnumMap<>(Part.class);
    private final Map<Part, Number> constants = new EnumMap<>(Part.class);
    private final Set<String> names = new HashSet<>();
    private final Scheme scheme;

    private QuantizedLayer(Quantization quantization, Checkpoint checkpoint, ModelModule module)
            throws FormatException {
        this.checkpoint = checkpoint;
        this.module = module;
        this.rows = module.outFeatures();
        this.cols = module.inFeatures();
        this.scheme = switch (quantization.method()) {
            case BITSANDBYTES_4BIT -> bitsandbytes();
            case LLM_INT8 -> int8();
            case GPTQ -> gptq(Scheme.GPTQ, quantization.groupSize());
            case GPTQ_V2 -> gptq(Scheme.GPTQ_V2, quantization.groupSize());
            case AWQ -> awq(quantization.groupSize());
            case FP8 -> fp8();
        };
    }

    /**
     * Finds the tensors of a layer that a config covers.
     *
     * @throws FormatException if one is missing, or of another type or shape than the layer's
     */
    static QuantizedLayer find(Quantization quantization, Checkpoint checkpoint, ModelModule module)
            throws FormatException {
        return new QuantizedLayer(quantization, checkpoint, module);
    }

    /** Returns the names of all tensors that the layer explains. */
    Set<String> names() {
        return names;
    }

    /** @param copies owns what has to be copied, and the parts that the checkpoint has in its JSON */
    StoredWeight open(Arena copies) throws FormatException {
        Map<Part, Tensor> tensors = new EnumMap<>(Part.class);
        for (Map.Entry<Part, TensorInfo> entry : parts.entrySet()) {
            TensorInfo info = entry.getValue();
            // Types that are no numbers to the kernels, FP8 and numbers that hold codes, go as bytes.
            boolean bytes = info.readableType().isEmpty() || (isBitsandbytes() && entry.getKey() == Part.VALUES);
            DType dtype = bytes ? DType.U8 : info.dtype();
            long[] shape = isBitsandbytes() || info.shape().isEmpty()
                    ? new long[] {info.bytes() / dtype.bytes()}
                    : info.dims();
            tensors.put(
                    entry.getKey(), ModelWeights.aligned(checkpoint.data(info.name(), copies), dtype, shape, copies));
        }
        for (Map.Entry<Part, Number> constant : constants.entrySet()) {
            tensors.put(
                    constant.getKey(),
                    constant.getKey() == Part.NESTED_OFFSET
                            ? Tensor.ofFloats(copies, constant.getValue().floatValue())
                            : Tensor.ofLongs(copies, constant.getValue().longValue()));
        }
        return new StoredWeight(scheme, rows, cols, tensors);
    }

    private boolean isBitsandbytes() {
        return scheme == Scheme.NF4 || scheme == Scheme.FP4;
    }

    // ---------------------------------------------------------------------------------------------------- the methods

    private Scheme bitsandbytes() throws FormatException {
        List<String> states = Stream.of("nf4", "fp4")
                .map(type -> module.name() + STATE + type)
                .filter(checkpoint.tensors()::containsKey)
                .toList();
        if (states.size() != 1) {
            throw error(
                    "weight",
                    (states.isEmpty() ? "has no" : "has more than one") + " quant_state ("
                            + module.name() + STATE + "nf4 or …fp4)"
                            + "; config.json says that the layer is quantized to 4 bits: add it to llm_int8_skip_modules if"
                            + " it is not");
        }
        Fields state = state(states.getFirst());
        String type = states.getFirst().endsWith("nf4") ? "nf4" : "fp4";
        if (!type.equals(state.text("quant_type"))) {
            throw state.error("\"quant_type\" is " + state.text("quant_type") + "; expected " + type);
        }
        if (!List.of(rows, cols).equals(state.sizes("shape"))) {
            throw state.error("\"shape\" is " + state.sizes("shape") + "; config.json implies " + List.of(rows, cols));
        }
        state.ignore("dtype", "nested_dtype"); // What PyTorch decodes to; here it is float32.
        long block = blockSize(state, "blocksize");
        constants.put(Part.BLOCK_SIZE, block);
        long values = Math.multiplyExact(rows, cols);
        long blocks = Math.ceilDiv(values, block);
        codes((values + 1) / 2);
        one(Part.QUANT_MAP, ".weight.quant_map", List.of(16L), "F32");
        if (state.has("nested_blocksize")) {
            long nestedBlock = blockSize(state, "nested_blocksize");
            constants.put(Part.NESTED_BLOCK_SIZE, nestedBlock);
            double offset = state.number("nested_offset");
            if (!Float.isFinite((float) offset)) {
                throw state.error("\"nested_offset\" is " + offset + "; expected a float32 number");
            }
            constants.put(Part.NESTED_OFFSET, offset);
            one(Part.SCALES, ".weight.absmax", List.of(blocks), "U8");
            one(Part.NESTED_SCALES, ".weight.nested_absmax", List.of(Math.ceilDiv(blocks, nestedBlock)), "F32");
            one(Part.NESTED_QUANT_MAP, ".weight.nested_quant_map", List.of(256L), "F32");
        } else {
            one(Part.SCALES, ".weight.absmax", List.of(blocks), "F32");
        }
        state.refuseTheRest();
        return type.equals("nf4") ? Scheme.NF4 : Scheme.FP4;
    }

    private Fields state(String name) throws FormatException {
        TensorInfo info = checkpoint.tensor(name);
        names.add(name);
        if (!info.typeName().equals("U8") || info.bytes() > MAX_STATE) {
            throw new FormatException(checkpoint.path() + ": tensor " + name + " is " + info.typeName() + " of "
                    + info.bytes() + " bytes; expected U8, JSON of at most " + MAX_STATE + " bytes");
        }
        String where = checkpoint.path() + ": tensor " + name;
        byte[] json = checkpoint.data(name).toArray(ValueLayout.JAVA_BYTE);
        return new Fields(where, Json.parseObject(json, where));
    }

    private static long blockSize(Fields state, String name) throws FormatException {
        int size = state.count(name);
        if (size < 32 || size > 4096 || Integer.bitCount(size) != 1) {
            throw state.error("\"" + name + "\" is " + size + "; expected a power of two from 32 to 4096");
        }
        return size;
    }

    /** The codes of 4 bits, in whatever type they were stored ({@code bnb_4bit_quant_storage}). */
    private void codes(long bytes) throws FormatException {
        TensorInfo info = required(".weight");
        if (info.bytes() != bytes) {
            throw error(
                    "weight",
                    "has " + info.bytes() + " bytes (" + info.typeName() + " " + info.shape() + "); the 4-bit codes of "
                            + List.of(rows, cols) + " take " + bytes + OTHERWISE);
        }
        parts.put(Part.VALUES, info);
    }

    private Scheme int8() throws FormatException {
        one(Part.VALUES, ".weight", List.of(rows, cols), "I8");
        one(Part.SCALES, ".SCB", List.of(rows), "F32");
        TensorInfo layout = optional(".weight_format");
        if (layout != null) {
            byte code = layout.bytes() == 1 ? checkpoint.data(layout.name()).get(ValueLayout.JAVA_BYTE, 0) : -1;
            if (code != 0) {
                throw error("weight_format", "is " + code + "; supported is 0, rows: save the model again");
            }
        }
        return Scheme.LLM_INT8;
    }

    private Scheme gptq(Scheme gptq, int groupSize) throws FormatException {
        requireWords("in-features", cols);
        long groups = groups(groupSize, optional(".g_idx") != null);
        one(Part.VALUES, ".qweight", List.of(cols / 8, rows), "I32");
        one(Part.ZEROS, ".qzeros", List.of(groups, Math.ceilDiv(rows, 8L)), "I32");
        one(Part.SCALES, ".scales", List.of(groups, rows), FLOATS);
        if (optional(".g_idx") != null) {
            one(Part.GROUP_INDEX, ".g_idx", List.of(cols), "I32");
            checkGroupIndex(groups);
        }
        emptyBias();
        return gptq;
    }

    /** Eight codes make a word. */
    private void requireWords(String what, long size) throws FormatException {
        if (size % 8 != 0) {
            throw error(
                    "qweight",
                    "is of a layer with " + size + " " + what + "; expected a multiple of 8, the codes of a word");
        }
    }

    /** Returns how many groups a row has. Without an index, which may say otherwise, they are of one size. */
    private long groups(int groupSize, boolean indexed) throws FormatException {
        if (groupSize == 0 || groupSize >= cols) {
            return 1;
        }
        if (!indexed && cols % groupSize != 0) {
            throw error(
                    "scales",
                    "are of groups of " + groupSize + " (group_size in config.json), which do not divide the " + cols
                            + " columns; quantize the model again with a group_size that does, or with -1");
        }
        return Math.ceilDiv(cols, groupSize);
    }

    private void checkGroupIndex(long groups) throws FormatException {
        MemorySegment index = checkpoint.data(module.name() + ".g_idx");
        for (long k = 0; k < cols; k++) {
            int group = index.get(ValueLayout.JAVA_INT_UNALIGNED, 4 * k);
            if (group < 0 || group >= groups) {
                throw error(
                        "g_idx",
                        "holds " + group + " at element " + k + "; expected 0 to " + (groups - 1)
                                + ", the groups of group_size in config.json" + OTHERWISE);
            }
        }
    }

    private Scheme awq(int groupSize) throws FormatException {
        requireWords("out-features", rows);
        long groups = groups(groupSize, false);
        one(Part.VALUES, ".qweight", List.of(cols, rows / 8), "I32");
        one(Part.ZEROS, ".qzeros", List.of(groups, rows / 8), "I32");
        one(Part.SCALES, ".scales", List.of(groups, rows), FLOATS);
        emptyBias();
        return Scheme.AWQ;
    }

    /** Packers of GPTQ and AWQ write a bias of zeros where the model has none. */
    private void emptyBias() throws FormatException {
        TensorInfo bias = module.bias() ? null : checkpoint.tensors().get(module.name() + ".bias");
        if (bias != null && bias.bytes() <= 8 * rows && isZero(checkpoint.data(bias.name()))) {
            names.add(bias.name());
        }
    }

    private static boolean isZero(MemorySegment data) {
        for (long i = 0; i < data.byteSize(); i++) {
            if (data.get(ValueLayout.JAVA_BYTE, i) != 0) {
                return false;
            }
        }
        return true;
    }

    private Scheme fp8() throws FormatException {
        one(Part.VALUES, ".weight", List.of(rows, cols), "F8_E4M3");
        String name = checkpoint.tensors().containsKey(module.name() + ".weight_scale")
                ? ".weight_scale"
                : ".weight_scale_inv";
        TensorInfo scale = required(name);
        List<List<Long>> shapes = List.of(
                List.of(),
                List.of(1L),
                List.of(rows),
                List.of(rows, 1L),
                List.of(Math.ceilDiv(rows, (long) FP8_BLOCK), Math.ceilDiv(cols, (long) FP8_BLOCK)));
        if (!shapes.contains(scale.shape())) {
            throw error(name.substring(1), "has shape " + scale.shape() + "; expected one of " + shapes);
        }
        one(Part.SCALES, name, scale.shape(), FLOATS);
        optional(".input_scale"); // The scales of activations: products take these as they are.
        optional(".activation_scale");
        return Scheme.FP8_E4M3;
    }

    // --------------------------------------------------------------------------------------------------------- tensors

    private TensorInfo required(String suffix) throws FormatException {
        TensorInfo info = optional(suffix);
        if (info == null) {
            throw error(suffix.substring(1), "is missing; config.json says that the layer is quantized" + OTHERWISE);
        }
        return info;
    }

    private @Nullable TensorInfo optional(String suffix) {
        TensorInfo info = checkpoint.tensors().get(module.name() + suffix);
        if (info != null) {
            names.add(info.name());
        }
        return info;
    }

    private void one(Part part, String suffix, List<Long> shape, String... types) throws FormatException {
        TensorInfo info = required(suffix);
        if (!info.shape().equals(shape) || !Arrays.asList(types).contains(info.typeName())) {
            throw error(
                    suffix.substring(1),
                    "is " + info.typeName() + " " + info.shape() + "; expected " + String.join(" or ", types) + " "
                            + shape + OTHERWISE);
        }
        parts.put(part, info);
    }

    private FormatException error(String tensor, String message) {
        return new FormatException(checkpoint.path() + ": tensor " + module.name() + "." + tensor + " " + message);
    }
}
