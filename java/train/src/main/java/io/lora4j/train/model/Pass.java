package io.lora4j.train.model;

import io.lora4j.formats.ModelConfig;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** One run through a model: its tokens, where their keys and values are, the adapter, and the tensors to work in. */
final class Pass {
    final Activations activations;
    final @Nullable Adapter adapter;
    /** Probability to drop an adapter's input; 0 in inference. */
    final double dropout;

    /** Token ids, [M]. */
    final Tensor ids;
    /** Place of each token in its sequence, [M]. */
    final Tensor positions;
    /** Place of each token in the epoch, for dropout, [M]. */
    final Tensor tokenIndex;
    /** Where each sequence's queries begin, [B + 1]. */
    final Tensor queryOffsets;
    /** Where each sequence's keys begin, [B]. */
    final Tensor keyStarts;
    /** Number of each sequence's keys, [B]. */
    final Tensor keyLengths;
    /** The most queries of a sequence. */
    final int maxQueries;
    /** The most keys of a sequence. */
    final int maxKeys;

    final Losses losses;

    private final @Nullable KvCache cache;
    private final int cached;

    private Pass(
            Slab slab,
            DType real,
            Activations activations,
            Batch batch,
            @Nullable Adapter adapter,
            double dropout,
            @Nullable KvCache cache) {
        this.activations = activations;
        this.adapter = adapter;
        this.dropout = dropout;
        this.cache = cache;
        this.cached = cache == null ? 0 : cache.length();
        ids = slab.ints(batch.ids());
        positions = slab.ints(batch.positions());
        tokenIndex = slab.ints(batch.tokenIndex());
        queryOffsets = slab.ints(batch.offsets());
        int sequences = batch.sequences();
        int[] lengths = new int[sequences];
        Arrays.setAll(lengths, b -> cached + batch.offsets()[b + 1] - batch.offsets()[b]);
        keyStarts = slab.ints(Arrays.copyOf(batch.offsets(), sequences));
        keyLengths = slab.ints(lengths);
        losses = new Losses(slab, real, batch);
        maxQueries = batch.maxLength();
        maxKeys = cached + maxQueries;
    }

    /** Takes what the constructor takes for a batch of this shape, beside the activations. */
    static void countInputs(Slab counting, DType real, int tokens, int sequences) {
        for (int perToken = 0; perToken < 3; perToken++) {
            counting.take(DType.I32, tokens);
        }
        counting.take(DType.I32, sequences + 1);
        counting.take(DType.I32, sequences);
        counting.take(DType.I32, sequences);
        Losses.count(counting, real, tokens);
    }

    /** A pass over whole sequences. */
    static Pass over(
            Slab slab,
            ModelConfig config,
            DType real,
            Batch batch,
            Activations.Purpose purpose,
            @Nullable Adapter adapter) {
        int[] ranks = adapter == null ? Adapter.noRanks(config) : adapter.ranks();
        Activations activations = new Activations(slab, config, real, batch.tokens(), purpose, ranks);
        double dropout = adapter == null || purpose == Activations.Purpose.INFERENCE
                ? 0
                : adapter.config().loraDropout();
        return new Pass(slab, real, activations, batch, adapter, dropout, null);
    }

    /** A pass over the next tokens of the one sequence in a cache. */
    static Pass after(Slab slab, ModelConfig config, DType real, KvCache cache, int[] ids, @Nullable Adapter adapter) {
        int[] ranks = adapter == null ? Adapter.noRanks(config) : adapter.ranks();
        Activations activations = new Activations(slab, config, real, ids.length, Activations.Purpose.INFERENCE, ranks);
        int[] positions = new int[ids.length];
        Arrays.setAll(positions, i -> cache.length() + i);
        int[] targets = new int[ids.length];
        Arrays.fill(targets, Batch.IGNORE);
        Batch batch = new Batch(ids, targets, positions, positions, new int[] {0, ids.length}, null);
        return new Pass(slab, real, activations, batch, adapter, 0, cache);
    }

    /** Returns the adapter of a linear layer, or null. */
    @Nullable
    LoraLinear adapterOf(int layer, Projection projection) {
        return adapter == null ? null : adapter.find(layer, projection);
    }

    /** Returns where the keys before their norm, if there is one, go: [M, Hkv, D]. */
    Tensor rawKeys(int layer) {
        Activations.Layer a = activations.layer(layer);
        return a.rawKey() == a.key() ? newKeys(layer) : a.rawKey();
    }

    /** Returns where the keys of this pass's tokens go: [M, Hkv, D]. */
    Tensor newKeys(int layer) {
        return cache == null ? activations.layer(layer).key() : appended(cache.keys(layer));
    }

    /** Returns where the values of this pass's tokens go: [M, Hkv, D]. */
    Tensor newValues(int layer) {
        return cache == null ? activations.layer(layer).value() : appended(cache.values(layer));
    }

    private Tensor appended(Tensor all) {
        return all.rows(cached, cached + activations.tokens);
    }

    /** Returns the keys to attend to. */
    Tensor keys(int layer) {
        return cache == null ? activations.layer(layer).key() : cache.keys(layer);
    }

    /** Returns the values to attend to. */
    Tensor values(int layer) {
        return cache == null ? activations.layer(layer).value() : cache.values(layer);
    }
}
