package io.lora4j.train.model;

import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.Rope;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;

/**
 * The cosines and sines of rotary position embeddings, rounded where transformers rounds them ({@code modeling_rope_utils.py}):
 * frequencies and angles are fp32 numbers, and the angle of position p is fl32(p · frequency). Sine and cosine are
 * {@link StrictMath}'s, so that every machine has the same table. It grows with the positions that are asked for.
 */
final class RotaryTable implements AutoCloseable {
    private static final int FIRST_POSITIONS = 1024;

    private final float[] frequencies;
    private final int limit;
    private final DType dtype;
    private Arena arena = Arena.ofShared();
    private Tensor cosine;
    private Tensor sine;

    RotaryTable(ModelConfig config, DType dtype) {
        this.frequencies = frequencies(config.rope(), config.headDim());
        this.limit = config.maxPositionEmbeddings();
        this.dtype = dtype;
        this.cosine = table(0, StrictMath::cos);
        this.sine = table(0, StrictMath::sin);
    }

    /** Makes sure that positions 0 to {@code positions} − 1 are there. */
    void reserve(int positions) {
        if (positions <= cosine.size(0)) {
            return;
        }
        long doubled = Math.max(Math.max(2 * cosine.size(0), positions), FIRST_POSITIONS);
        int size = (int) Math.max(positions, Math.min(doubled, limit));
        arena.close();
        arena = Arena.ofShared();
        cosine = table(size, StrictMath::cos);
        sine = table(size, StrictMath::sin);
    }

    /** Returns the bytes that the table takes once these positions are there. */
    static long bytes(ModelConfig config, int positions) {
        long doubled = Math.max(2L * positions, FIRST_POSITIONS);
        return Math.max(positions, Math.min(doubled, config.maxPositionEmbeddings()))
                * config.headDim()
                * DType.F32.bytes();
    }

    /** Returns the cosines: [positions, headDim / 2]. */
    Tensor cosine() {
        return cosine;
    }

    /** Returns the sines: [positions, headDim / 2]. */
    Tensor sine() {
        return sine;
    }

    private Tensor table(int positions, java.util.function.DoubleUnaryOperator function) {
        Tensor table = Tensor.allocate(arena, dtype, positions, frequencies.length);
        for (int p = 0; p < positions; p++) {
            for (int i = 0; i < frequencies.length; i++) {
                float angle = p * frequencies[i];
                table.setFloat(function.applyAsDouble(angle), p, i);
            }
        }
        return table;
    }

    /** Returns the frequency of each pair of a head: [headDim / 2]. */
    static float[] frequencies(Rope rope, int headDim) {
        float[] frequencies = new float[headDim / 2];
        for (int i = 0; i < frequencies.length; i++) {
            float exponent = (float) (2 * i) / headDim;
            float plain = 1f / (float) StrictMath.pow(rope.theta(), exponent);
            frequencies[i] = switch (rope) {
                case Rope.Default _ -> plain;
                case Rope.Linear linear -> plain / (float) linear.factor();
                case Rope.Llama3 llama3 -> scale(plain, llama3);
                case Rope.Divided divided -> plain / divided.divisors().get(i);
            };
        }
        return frequencies;
    }

    private static float scale(float frequency, Rope.Llama3 rope) {
        float wavelength = (float) (2 * Math.PI) / frequency;
        if (wavelength < rope.originalContext() / rope.highFreqFactor()) {
            return frequency;
        }
        float divided = frequency / (float) rope.factor();
        if (wavelength > rope.originalContext() / rope.lowFreqFactor()) {
            return divided;
        }
        float smooth = (rope.originalContext() / wavelength - (float) rope.lowFreqFactor())
                / (float) (rope.highFreqFactor() - rope.lowFreqFactor());
        return (1f - smooth) * frequency / (float) rope.factor() + smooth * frequency;
    }

    @Override
    public void close() {
        arena.close();
    }
}
