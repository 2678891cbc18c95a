package io.lora4j.train.model;

import io.lora4j.formats.PeftAdapter;
import io.lora4j.kernels.Compute;
import org.jspecify.annotations.Nullable;

/**
 * In which form a model's weights are held. Immutable.
 *
 * @param mode where they lie
 * @param fourBit how dense linear layers are quantized; null if they stay as they are stored
 * @param compute the precision of products; with {@link Compute#BF16} matrices that are packed are rounded to bf16
 * @param less the adapter whose update is taken out of the layers that it has, which are then held in float32; null if none is. They
 *     must be dense, and it stays the caller's
 */
public record ModelForm(
        WeightMode mode,
        @Nullable FourBit fourBit,
        Compute compute,
        @Nullable PeftAdapter less) {

    /** Returns the form in which a model is stored, with products in float32. */
    public static ModelForm of(WeightMode mode) {
        return new ModelForm(mode, null, Compute.F32, null);
    }

    /** Returns a copy that quantizes. */
    public ModelForm withFourBit(@Nullable FourBit how) {
        return new ModelForm(mode, how, compute, less);
    }

    /** Returns a copy with another precision. */
    public ModelForm withCompute(Compute precision) {
        return new ModelForm(mode, fourBit, precision, less);
    }

    /** Returns a copy less an adapter's update. */
    public ModelForm withLess(@Nullable PeftAdapter adapter) {
        return new ModelForm(mode, fourBit, compute, adapter);
    }
}
