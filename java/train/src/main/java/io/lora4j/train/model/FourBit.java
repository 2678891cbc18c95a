package io.lora4j.train.model;

import io.lora4j.formats.BitsAndBytes;
import io.lora4j.formats.StoredWeight;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Quantize;
import io.lora4j.kernels.QuantizeOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/**
 * Quantization of a dense model's linear layers to 4 bits while it is loaded, as transformers does it with bitsandbytes: blocks of 64
 * values; embedding and output head stay as they are. Codes and scales have the bits of bitsandbytes, and are the same on every ISA
 * tier and with any number of threads. Immutable.
 *
 * @param type the code book
 * @param doubleQuant whether the scales are quantized too, to 8 bits in blocks of 256
 */
public record FourBit(Type type, boolean doubleQuant) {
    private static final int BLOCK = 64;
    private static final int NESTED_BLOCK = 256;

    /** Code books. */
    public enum Type {
        /** Quantiles of the normal distribution (Dettmers et al. 2023). */
        NF4(Scheme.NF4),
        /** Floats of one sign, two exponent bits and one of mantissa. */
        FP4(Scheme.FP4);

        private final Scheme scheme;

        Type(Scheme scheme) {
            this.scheme = scheme;
        }
    }

    /** Returns the bytes that a matrix takes. */
    public long bytes(long values) {
        long blocks = Math.ceilDiv(values, BLOCK);
        long scales = doubleQuant ? blocks + Math.ceilDiv(blocks, NESTED_BLOCK) * Float.BYTES : blocks * Float.BYTES;
        return Math.ceilDiv(values, 2) + scales;
    }

    /** Returns how bitsandbytes writes such layers down. */
    public BitsAndBytes toBitsAndBytes(String computeType) {
        BitsAndBytes.Type written = type == Type.NF4 ? BitsAndBytes.Type.NF4 : BitsAndBytes.Type.FP4;
        return new BitsAndBytes(written, BLOCK, doubleQuant, computeType, List.of());
    }

    /**
     * Quantizes a matrix.
     *
     * @param dense [N, K], F32, F16 or BF16
     * @param owner owns the parts
     */
    StoredWeight quantize(Queue queue, Tensor dense, Arena owner) {
        long values = dense.elements();
        long blocks = Math.ceilDiv(values, BLOCK);
        Map<Part, Tensor> parts = new EnumMap<>(Part.class);
        parts.put(Part.VALUES, Tensor.allocate(owner, DType.U8, Math.ceilDiv(values, 2)));
        parts.put(Part.SCALES, Tensor.allocate(owner, doubleQuant ? DType.U8 : DType.F32, blocks));
        parts.put(Part.BLOCK_SIZE, Tensor.ofLongs(owner, BLOCK));
        if (doubleQuant) {
            parts.put(Part.NESTED_SCALES, Tensor.allocate(owner, DType.F32, Math.ceilDiv(blocks, NESTED_BLOCK)));
            parts.put(Part.NESTED_QUANT_MAP, Tensor.allocate(owner, DType.F32, 256));
            parts.put(Part.NESTED_OFFSET, Tensor.allocate(owner, DType.F32, 1));
            parts.put(Part.NESTED_BLOCK_SIZE, Tensor.ofLongs(owner, NESTED_BLOCK));
        }
        Quantize.Builder quantize = Quantize.builder(owner).scheme(type.scheme).x(dense);
        parts.forEach(quantize::part);
        QuantizeOps.forward(queue, quantize.build());
        return new StoredWeight(type.scheme, dense.size(0), dense.size(1), parts);
    }
}
