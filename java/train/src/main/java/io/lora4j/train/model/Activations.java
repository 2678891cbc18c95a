package io.lora4j.train.model;

import io.lora4j.formats.ModelConfig;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The tensors of one pass over M tokens: what every layer works in, what a layer keeps for the backward pass, and gradients.
 *
 * <p>A layer below the lowest adapter keeps nothing: no gradient goes there. Under gradient checkpointing the others keep the
 * residual stream at their input and the adapters' narrow s; the rest is worked out again in memory that all layers share.
 */
final class Activations {

    /** What a pass is for, and so what it keeps. */
    enum Purpose {
        /** Forward only. */
        INFERENCE,
        /** Forward and backward. */
        TRAINING,
        /** Forward and backward with gradient checkpointing. */
        CHECKPOINTED_TRAINING
    }

    /**
     * What one decoder block computes, in the order of the forward pass. H is the hidden size, D a head's.
     *
     * @param input residual stream at the block's input, [M, H]
     * @param inputRstd statistics of the input norm, [M]
     * @param rawQuery queries before their norm, [M, Hq, D]; the same as query in a model without query and key norms
     * @param rawQueryRstd statistics of the query norm, [M · Hq]; empty without one
     * @param rawKey keys before their norm, [M, Hkv, D]; the same as key in a model without query and key norms
     * @param rawKeyRstd statistics of the key norm, [M · Hkv]; empty without one
     * @param query rotated queries, [M, Hq, D]
     * @param key rotated keys, [M, Hkv, D]
     * @param value values, [M, Hkv, D]
     * @param attention output of the attention, [M, Hq, D]
     * @param lse log-sum-exp of the attention's scores, [M, Hq]
     * @param middle residual stream between attention and MLP, [M, H]
     * @param middleRstd statistics of the norm after the attention, [M]
     * @param gate [M, I]
     * @param up [M, I]
     * @param narrow s of each projection's adapter, [M, R], by {@link Projection#ordinal}; null where there is none
     */
    record Layer(
            Tensor input,
            Tensor inputRstd,
            Tensor rawQuery,
            Tensor rawQueryRstd,
            Tensor rawKey,
            Tensor rawKeyRstd,
            Tensor query,
            Tensor key,
            Tensor value,
            Tensor attention,
            Tensor lse,
            Tensor middle,
            Tensor middleRstd,
            Tensor gate,
            Tensor up,
            List<@Nullable Tensor> narrow) {

        /** The same memory, but its own input and s: what a checkpointed layer keeps. */
        Layer withOwn(Tensor ownInput, List<@Nullable Tensor> ownNarrow) {
            return new Layer(
                    ownInput,
                    inputRstd,
                    rawQuery,
                    rawQueryRstd,
                    rawKey,
                    rawKeyRstd,
                    query,
                    key,
                    value,
                    attention,
                    lse,
                    middle,
                    middleRstd,
                    gate,
                    up,
                    ownNarrow);
        }
    }

    /** The gradients that exist at a time. Each is consumed by the operation that comes next. */
    static final class Gradients {
        /** Of the residual stream, [M, H]. */
        final Tensor stream;
        /** Of a norm's output, [M, H]. */
        final Tensor normed;
        /** Of the SwiGLU's output, [M, I]; those of gate and up replace gate and up. */
        final Tensor inner;
        /** Of the attention's output, [M, Hq, D]. */
        final Tensor attention;
        /** Of the queries, [M, Hq, D]. */
        final Tensor query;
        /** Of the keys, [M, Hkv, D]. */
        final Tensor key;
        /** Of the values, [M, Hkv, D]. */
        final Tensor value;

        private Gradients(Activations a) {
            ModelConfig c = a.config;
            stream = a.real(a.tokens, c.hiddenSize());
            normed = a.delta; // Neither outlives the operation after the one that writes it.
            // The MLP's is consumed before the attention's begin.
            long mark = a.slab.mark();
            inner = a.real(a.tokens, c.intermediateSize());
            a.slab.again(mark);
            attention = a.real(a.tokens, c.numAttentionHeads(), c.headDim());
            query = a.real(a.tokens, c.numAttentionHeads(), c.headDim());
            key = a.real(a.tokens, c.numKeyValueHeads(), c.headDim());
            value = a.real(a.tokens, c.numKeyValueHeads(), c.headDim());
            a.slab.further();
        }
    }

    private static final int MODULES = Projection.values().length;

    final int tokens;
    final Purpose purpose;
    /** Output of the last half block, not yet added to the residual stream, [M, H]; backward, {@link Gradients#normed}. */
    final Tensor delta;
    /** Output of the last norm, [M, H]. */
    final Tensor normed;
    /** Output of the SwiGLU, [M, I]. */
    final Tensor inner;
    /** The residual stream after the last block, [M, H]. */
    final Tensor output;
    /** Statistics of the final norm, [M]. */
    final Tensor outputRstd;

    private final ModelConfig config;
    private final DType real;
    private final Slab slab;
    private final List<Layer> layers = new ArrayList<>();
    private final @Nullable Gradients gradients;

    /**
     * Takes the tensors of a pass from a slab.
     *
     * @param ranks rank of each projection's adapter by module id, 0 for none
     */
    Activations(Slab slab, ModelConfig config, DType real, int tokens, Purpose purpose, int[] ranks) {
        this.slab = slab;
        this.config = config;
        this.real = real;
        this.tokens = tokens;
        this.purpose = purpose;
        delta = real(tokens, config.hiddenSize());
        normed = real(tokens, config.hiddenSize());
        inner = real(tokens, config.intermediateSize());
        output = real(tokens, config.hiddenSize());
        outputRstd = real(tokens);
        int lowest = purpose == Purpose.INFERENCE ? config.numHiddenLayers() : lowestAdapted(ranks);
        Layer shared = null;
        Map<String, List<@Nullable Tensor>> sharedNarrow = new HashMap<>();
        for (int layer = 0; layer < config.numHiddenLayers(); layer++) {
            boolean keepsAll = layer >= lowest && purpose == Purpose.TRAINING;
            if (!keepsAll && shared == null) {
                shared = layer(List.of());
            }
            if (keepsAll || shared == null) {
                layers.add(layer(narrow(ranks, layer)));
            } else if (layer >= lowest) {
                layers.add(shared.withOwn(real(tokens, config.hiddenSize()), narrow(ranks, layer)));
            } else {
                // Only layers of equal ranks can share s.
                int[] own = Arrays.copyOfRange(ranks, layer * MODULES, (layer + 1) * MODULES);
                int index = layer;
                List<@Nullable Tensor> narrow =
                        sharedNarrow.computeIfAbsent(Arrays.toString(own), _ -> narrow(ranks, index));
                layers.add(shared.withOwn(shared.input, narrow));
            }
        }
        gradients = purpose == Purpose.INFERENCE ? null : new Gradients(this);
    }

    private static int lowestAdapted(int[] ranks) {
        int module = 0;
        while (module < ranks.length && ranks[module] == 0) {
            module++;
        }
        return module / MODULES;
    }

    private Tensor real(long... shape) {
        return slab.take(real, shape);
    }

    private Layer layer(List<@Nullable Tensor> narrow) {
        long heads = config.numAttentionHeads();
        long keyHeads = config.numKeyValueHeads();
        long width = config.headDim();
        boolean normed = config.qkNorm();
        Tensor query = real(tokens, heads, width);
        Tensor key = real(tokens, keyHeads, width);
        return new Layer(
                real(tokens, config.hiddenSize()),
                real(tokens),
                normed ? real(tokens, heads, width) : query,
                real(normed ? tokens * heads : 0),
                normed ? real(tokens, keyHeads, width) : key,
                real(normed ? tokens * keyHeads : 0),
                query,
                key,
                real(tokens, keyHeads, width),
                real(tokens, heads, width),
                real(tokens, heads),
                real(tokens, config.hiddenSize()),
                real(tokens),
                real(tokens, config.intermediateSize()),
                real(tokens, config.intermediateSize()),
                narrow);
    }

    private List<@Nullable Tensor> narrow(int[] ranks, int layer) {
        List<@Nullable Tensor> narrow = new ArrayList<>();
        for (Projection projection : Projection.values()) {
            int rank = ranks[projection.moduleId(layer)];
            narrow.add(rank == 0 ? null : real(tokens, rank));
        }
        return narrow;
    }

    Layer layer(int index) {
        return layers.get(index);
    }

    Gradients gradients() {
        if (gradients == null) {
            throw new IllegalStateException("a pass for inference has no gradients");
        }
        return gradients;
    }
}
