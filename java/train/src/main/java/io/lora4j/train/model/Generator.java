package io.lora4j.train.model;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Sample;
import io.lora4j.kernels.SampleHyper;
import io.lora4j.kernels.SampleOps;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.model.Generation.Finish;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Continues a prompt, token by token, with a cache of keys and values. Every logit has the bits that a pass over the whole text would
 * give it, so equal prompts, settings and seeds give equal tokens everywhere.
 *
 * <p>Threads: any one at a time, like the model.
 */
public final class Generator {
    /** The prompt goes through the model in pieces of this many tokens, which bounds the memory for activations. */
    private static final int PREFILL_TOKENS = 512;

    /** Is told of each new token as soon as it is known. */
    @FunctionalInterface
    public interface Listener {
        /** Takes a token that is not a stop token; returns whether to go on. */
        boolean token(int id);
    }

    private final LlamaModel model;
    private final @Nullable Adapter adapter;

    /**
     * Makes a generator.
     *
     * @param adapter null for the base model
     */
    public Generator(LlamaModel model, @Nullable Adapter adapter) {
        this.model = model;
        this.adapter = adapter;
    }

    /**
     * Continues a prompt.
     *
     * @param prompt at least one token, and fewer than the model's context
     * @param stopIds tokens that end it
     * @param maxNewTokens at most this many new tokens
     * @param listener is told of every token but a stop token
     */
    public Generation generate(
            int[] prompt, Sampling sampling, Set<Integer> stopIds, int maxNewTokens, Listener listener) {
        int context = model.config().maxPositionEmbeddings();
        if (prompt.length == 0) {
            throw new IllegalArgumentException(
                    "the prompt is empty; generation needs at least one token to start from");
        }
        if (prompt.length >= context) {
            throw new IllegalArgumentException(
                    "the prompt has " + prompt.length + " tokens, but the model's context is " + context
                            + " (max_position_embeddings) and generation needs room for one more");
        }
        if (maxNewTokens < 1) {
            throw new IllegalArgumentException("max_new_tokens is " + maxNewTokens + "; expected at least 1");
        }
        int end = (int) Math.min((long) prompt.length + maxNewTokens, context);
        try (KvCache cache = new KvCache(model, end);
                Arena arena = Arena.ofConfined()) {
            Tensor logits = Tensor.allocate(
                    arena, model.computeType(), 1, model.config().vocabSize());
            Tensor drawn = Tensor.allocate(arena, DType.I32, 1);
            SampleHyper hyper = SampleHyper.allocate(arena)
                    .temperature(sampling.temperature())
                    .topK(sampling.topK())
                    .topP(sampling.topP())
                    .seed(sampling.seed());
            Sample sample =
                    Sample.builder(arena).logits(logits).hyper(hyper).ids(drawn).build();
            prefill(cache, prompt, logits);
            List<Integer> ids = new ArrayList<>();
            while (true) {
                hyper.step(prompt.length + ids.size());
                SampleOps.forward(model.queue(), sample);
                int id = drawn.getInt(0);
                ids.add(id);
                if (stopIds.contains(id)) {
                    return new Generation(ids, Finish.STOP_TOKEN);
                }
                if (!listener.token(id)) {
                    return new Generation(ids, Finish.LISTENER);
                }
                if (prompt.length + ids.size() >= end) {
                    return new Generation(ids, ids.size() == maxNewTokens ? Finish.MAX_NEW_TOKENS : Finish.CONTEXT);
                }
                model.extend(cache, new int[] {id}, adapter, logits);
            }
        }
    }

    private void prefill(KvCache cache, int[] prompt, Tensor logits) {
        for (int from = 0; from < prompt.length; from += PREFILL_TOKENS) {
            int to = Math.min(from + PREFILL_TOKENS, prompt.length);
            model.extend(cache, Arrays.copyOfRange(prompt, from, to), adapter, to == prompt.length ? logits : null);
        }
    }
}
