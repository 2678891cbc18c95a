package io.lora4j.formats;

import io.lora4j.kernels.Part;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.util.EnumMap;
import java.util.Map;

/**
 * A matrix [rows, cols] as a checkpoint stores it: the scheme, and the tensors that {@code lora4j.h} lists for it, dtypes and shapes as
 * listed there. The tensors are views of the mapped file wherever its bytes can be used as they lie.
 *
 * <p>Immutable; the tensors live as long as the checkpoint and the arena of the copies.
 *
 * @param scheme how the values are stored
 * @param rows N, out-features
 * @param cols K, in-features
 * @param parts values or codes, scales and so on
 */
public record StoredWeight(Scheme scheme, long rows, long cols, Map<Part, Tensor> parts) {

    /** Copies the map. */
    public StoredWeight {
        parts = new EnumMap<>(parts);
    }

    /** Returns the values of a dense matrix, or the codes of a quantized one. */
    public Tensor values() {
        Tensor values = parts.get(Part.VALUES);
        if (values == null) {
            throw new IllegalStateException("a " + scheme + " matrix without VALUES");
        }
        return values;
    }

    /** Starts a weight of the kernels with these parts. */
    public Weight.Builder weight() {
        Weight.Builder builder = Weight.builder(scheme, rows, cols);
        parts.forEach(builder::part);
        return builder;
    }
}
