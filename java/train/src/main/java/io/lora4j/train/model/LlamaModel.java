package io.lora4j.train.model;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModelWeights;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.model.Activations.Purpose;
import io.lora4j.train.model.Projection.Group;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * A decoder of the Llama family (Llama 2 and 3, SmolLM2; by their configs also Mistral, Qwen2, Qwen2.5 and Qwen3): pre-norm blocks of
 * rotary grouped-query attention, in a sliding window where the config says so, and a SwiGLU MLP. Its weights are frozen; an {@link Adapter} is what changes.
 *
 * <p>A pass calls the operations in order. M tokens of all sequences of a batch lie one after another; the residual stream is
 * [M, hidden size]. Whatever is computed for a sequence has the same bits in every batch, on every ISA tier and with any number of
 * threads; gradients add up over the tokens in order, so that a batch may be split into several passes anywhere between sequences.
 *
 * <p>All activations lie in one block of memory that is kept from pass to pass and replaced by a larger one when a pass needs more.
 *
 * <p>Threads: any one at a time, like the queue that it computes on.
 */
public final class LlamaModel implements AutoCloseable {
    private final ModelConfig config;
    private final Queue queue;
    private final DType real;
    private final @Nullable ModelWeights mapped;
    private final LlamaWeights weights;
    private final RotaryTable rotary;
    private final Slab.Block memory = new Slab.Block();
    private final Operations ops;

    private LlamaModel(ModelWeights files, Queue queue, ModelForm form) throws FormatException {
        this.config = files.config();
        this.queue = queue;
        this.real = queue.device().info().isa() == Isa.REF64 ? DType.F64 : DType.F32;
        this.weights = new LlamaWeights(files, queue, form);
        this.mapped = form.mode() == WeightMode.BORROW ? files : null;
        this.rotary = new RotaryTable(config, real);
        this.ops = new Operations(queue, config, form.compute());
    }

    /**
     * Opens a model: in Hugging Face's layout, {@code config.json} and safetensors, or a GGUF file. Quantized weights stay quantized.
     *
     * @param dir the model's directory, or the GGUF file
     * @param queue what the model computes on; stays the caller's and outlives the model
     * @throws FormatException if a file is missing or damaged, or config and weights do not belong together
     */
    public static LlamaModel open(Path dir, Queue queue, WeightMode mode) throws IOException {
        return open(dir, queue, ModelForm.of(mode));
    }

    /**
     * Opens a model as {@link #open(Path, Queue, WeightMode)}, in another form.
     *
     * @throws FormatException also if the form needs a dense model and it is quantized
     */
    public static LlamaModel open(Path dir, Queue queue, ModelForm form) throws IOException {
        ModelWeights files = ModelWeights.open(dir);
        boolean kept = false;
        try {
            LlamaModel model = new LlamaModel(files, queue, form);
            kept = form.mode() == WeightMode.BORROW;
            return model;
        } finally {
            if (!kept) {
                files.close();
            }
        }
    }

    /** Returns the config. */
    public ModelConfig config() {
        return config;
    }

    /** Returns the queue that the model computes on. */
    public Queue queue() {
        return queue;
    }

    /** Returns the type of activations, adapters and gradients: F32, or F64 on {@link Isa#REF64}. */
    public DType computeType() {
        return real;
    }

    /** Returns the bytes of native memory that the weights own, beside a mapped file. */
    public long weightBytesHeld() {
        return weights.bytesHeld();
    }

    /** Returns the bytes of the block that activations lie in, at its largest so far. */
    public long activationBytesHeld() {
        return memory.bytes();
    }

    // ------------------------------------------------------------------------------------------------ what can be
    // asked

    /**
     * Returns the cross-entropy of a batch's targets. Dropout is off.
     *
     * @param adapter null for the base model
     * @throws NumericException if a loss is not finite
     */
    public BatchLoss loss(Batch batch, @Nullable Adapter adapter) {
        Pass p = begin(batch, Purpose.INFERENCE, adapter);
        forward(p);
        return crossEntropy(p, batch, null);
    }

    /**
     * Returns the cross-entropy of a batch's targets, and adds its gradient to the adapter's gradients.
     *
     * @param adapter a trainable one
     * @throws NumericException if a loss is not finite; the gradients are as they were
     */
    public BatchLoss lossAndGradients(Batch batch, Adapter adapter, GradientOptions options) {
        Purpose purpose = options.gradientCheckpointing() ? Purpose.CHECKPOINTED_TRAINING : Purpose.TRAINING;
        ops.set(options);
        Pass p = begin(batch, purpose, adapter);
        forward(p);
        BatchLoss loss = crossEntropy(p, batch, p.activations.gradients().stream);
        backward(p, adapter.firstPlace());
        return loss;
    }

    /**
     * Returns the logits of some tokens of a batch.
     *
     * @param adapter null for the base model
     * @param rows which tokens, by their rows in the batch; {@link Batch#lastRows} for the last one of each sequence
     * @param owner owns the result
     * @return [rows, V]
     */
    public Tensor logits(Batch batch, @Nullable Adapter adapter, int[] rows, Arena owner) {
        Pass p = begin(batch, Purpose.INFERENCE, adapter);
        forward(p);
        Tensor logits = Tensor.allocate(owner, real, rows.length, config.vocabSize());
        for (int i = 0; i < rows.length; i++) {
            logits(p, rows[i], logits.rows(i, i + 1));
        }
        return logits;
    }

    /**
     * Appends tokens to a cached sequence.
     *
     * @param logits those of the last token: [1, V], written; null if they are not needed
     */
    void extend(KvCache cache, int[] ids, @Nullable Adapter adapter, @Nullable Tensor logits) {
        requireContext(cache.length() + ids.length);
        Slab counted = Slab.counting();
        Pass.after(counted, config, real, cache, ids, adapter);
        Pass p = Pass.after(memory.restart(counted.used()), config, real, cache, ids, adapter);
        forward(p);
        if (logits != null) {
            logits(p, ids.length - 1, logits);
        }
        cache.advance(ids.length);
    }

    /**
     * Returns the bytes of activations and gradients of a pass, without allocating anything. The queue's workspace, the weights and
     * the adapter's buffers come on top.
     *
     * @param tokens M, of all sequences of a batch
     * @param sequences how many sequences
     * @param adapter null for the base model, forward only
     * @param training whether a backward pass follows
     * @throws FormatException if the adapter config does not fit the model
     */
    public static long activationBytes(
            ModelConfig config,
            int tokens,
            int sequences,
            @Nullable AdapterConfig adapter,
            boolean training,
            boolean gradientCheckpointing)
            throws FormatException {
        Purpose purpose = !training || adapter == null
                ? Purpose.INFERENCE
                : gradientCheckpointing ? Purpose.CHECKPOINTED_TRAINING : Purpose.TRAINING;
        int[] ranks = adapter == null ? Adapter.noRanks(config) : Adapter.ranks(config, adapter);
        Slab counted = Slab.counting();
        new Activations(counted, config, DType.F32, tokens, purpose, ranks);
        Pass.countInputs(counted, DType.F32, tokens, sequences);
        return counted.used();
    }

    // --------------------------------------------------------------------------------------------------------- forward

    private Pass begin(Batch batch, Purpose purpose, @Nullable Adapter adapter) {
        requireContext(batch.maxLength());
        Slab counted = Slab.counting();
        Pass.over(counted, config, real, batch, purpose, adapter);
        return Pass.over(memory.restart(counted.used()), config, real, batch, purpose, adapter);
    }

    private void requireContext(int length) {
        if (length > config.maxPositionEmbeddings()) {
            throw new IllegalArgumentException(
                    "a sequence of " + length + " tokens is longer than the model's context of "
                            + config.maxPositionEmbeddings() + " (max_position_embeddings)");
        }
        rotary.reserve(length);
    }

    /** Leaves the last block's two parts of the residual stream in {@code middle} and {@code delta}. */
    private void forward(Pass p) {
        Activations a = p.activations;
        ops.embedding(weights.embedding, p.ids, a.layer(0).input());
        for (int l = 0; l < config.numHiddenLayers(); l++) {
            Activations.Layer layer = a.layer(l);
            Tensor norm = weights.layers.get(l).inputNorm;
            if (l == 0) {
                ops.norm(layer.input(), norm, a.normed, layer.inputRstd());
            } else {
                ops.addAndNorm(a.delta, a.layer(l - 1).middle(), norm, layer.input(), a.normed, layer.inputRstd());
            }
            forwardAttention(p, l);
            forwardGateUp(p, l);
            forwardDown(p, l);
        }
    }

    /** From the norm of the block's input to the residual stream between attention and MLP, and its norm. */
    private void forwardAttention(Pass p, int l) {
        Activations a = p.activations;
        Activations.Layer layer = a.layer(l);
        LlamaWeights.Layer w = weights.layers.get(l);
        Tensor rawKey = p.rawKeys(l);
        Tensor key = p.newKeys(l);
        ops.lora(p, w, l, Group.QKV, a.normed, flat(layer.rawQuery()), flat(rawKey), flat(p.newValues(l)));
        if (w.queryNorm != null && w.keyNorm != null) {
            ops.norm(heads(layer.rawQuery()), w.queryNorm, heads(layer.query()), layer.rawQueryRstd());
            ops.norm(heads(rawKey), w.keyNorm, heads(key), layer.rawKeyRstd());
        }
        ops.rope(rotary, p.positions, layer.query());
        ops.rope(rotary, p.positions, key);
        ops.attention(p, l);
        ops.lora(p, w, l, Group.OUT, flat(layer.attention()), a.delta);
        ops.addAndNorm(a.delta, layer.input(), w.postAttentionNorm, layer.middle(), a.normed, layer.middleRstd());
    }

    private void forwardGateUp(Pass p, int l) {
        Activations.Layer layer = p.activations.layer(l);
        ops.lora(p, weights.layers.get(l), l, Group.GATE_UP, p.activations.normed, layer.gate(), layer.up());
    }

    private void forwardDown(Pass p, int l) {
        Activations a = p.activations;
        ops.swiglu(a.layer(l).gate(), a.layer(l).up(), a.inner);
        ops.lora(p, weights.layers.get(l), l, Group.DOWN, a.inner, a.delta);
    }

    /** Norms one token after the last block and multiplies it with the head. */
    private void logits(Pass p, int row, Tensor logits) {
        Activations a = p.activations;
        Tensor delta = a.delta.rows(row, row + 1);
        Tensor middle = a.layer(config.numHiddenLayers() - 1).middle().rows(row, row + 1);
        Tensor normed = a.normed.rows(0, 1);
        ops.addAndNorm(delta, middle, weights.finalNorm, a.output.rows(0, 1), normed, a.outputRstd.rows(0, 1));
        ops.matmul(normed, weights.head, logits);
    }

    /** @param dx where the gradient of the final norm's output goes; null for the losses alone */
    private BatchLoss crossEntropy(Pass p, Batch batch, @Nullable Tensor dx) {
        Activations a = p.activations;
        Tensor middle = a.layer(config.numHiddenLayers() - 1).middle();
        ops.addAndNorm(a.delta, middle, weights.finalNorm, a.output, a.normed, a.outputRstd);
        int failed = ops.crossEntropy(a.normed, weights.head, p.losses, dx);
        if (failed >= 0) {
            throw new NumericException("the loss of " + batch.describe(failed) + " is "
                    + p.losses.loss.getDouble(failed) + ": training diverged, or the weights are damaged");
        }
        return p.losses.sum(batch);
    }

    // -------------------------------------------------------------------------------------------------------- backward

    /** Takes the gradient of the final norm's output, in {@code stream}, down to the lowest adapter. */
    private void backward(Pass p, int lowest) {
        Activations a = p.activations;
        Tensor stream = a.gradients().stream;
        ops.normBackward(stream, a.output, weights.finalNorm, a.outputRstd, null, stream);
        int last = config.numHiddenLayers() - 1;
        boolean more = true;
        for (int l = last; more; l--) {
            // The last block's activations are still in the memory that checkpointed blocks share.
            if (a.purpose == Purpose.CHECKPOINTED_TRAINING && l != last) {
                Activations.Layer layer = a.layer(l);
                ops.norm(layer.input(), weights.layers.get(l).inputNorm, a.normed, layer.inputRstd());
                forwardAttention(p, l);
                forwardGateUp(p, l);
            }
            more = backwardMlp(p, l, lowest) && backwardAttention(p, l, lowest);
        }
    }

    /** Takes {@code stream} from the block's output to between attention and MLP; returns whether there is an adapter below. */
    private boolean backwardMlp(Pass p, int l, int lowest) {
        Activations a = p.activations;
        Activations.Layer layer = a.layer(l);
        Activations.Gradients g = a.gradients();
        LlamaWeights.Layer w = weights.layers.get(l);
        ops.swiglu(layer.gate(), layer.up(), a.inner);
        boolean more = Group.DOWN.place(l) > lowest;
        ops.loraBackward(p, w, l, Group.DOWN, a.inner, more ? g.inner : null, g.stream);
        if (!more) {
            return false;
        }
        ops.swigluBackward(layer.gate(), layer.up(), g.inner);
        ops.norm(layer.middle(), w.postAttentionNorm, a.normed, layer.middleRstd());
        more = Group.GATE_UP.place(l) > lowest;
        ops.loraBackward(p, w, l, Group.GATE_UP, a.normed, more ? g.normed : null, layer.gate(), layer.up());
        if (more) {
            ops.normBackward(g.normed, layer.middle(), w.postAttentionNorm, layer.middleRstd(), g.stream, g.stream);
        }
        return more;
    }

    /** Takes {@code stream} from between attention and MLP to the block's input; returns whether there is an adapter below. */
    private boolean backwardAttention(Pass p, int l, int lowest) {
        Activations a = p.activations;
        Activations.Layer layer = a.layer(l);
        Activations.Gradients g = a.gradients();
        LlamaWeights.Layer w = weights.layers.get(l);
        boolean more = Group.OUT.place(l) > lowest;
        ops.loraBackward(p, w, l, Group.OUT, flat(layer.attention()), more ? flat(g.attention) : null, g.stream);
        if (!more) {
            return false;
        }
        ops.attentionBackward(p, l);
        ops.ropeBackward(rotary, p.positions, g.query);
        ops.ropeBackward(rotary, p.positions, g.key);
        if (w.queryNorm != null && w.keyNorm != null) {
            Tensor dq = heads(g.query);
            Tensor dk = heads(g.key);
            ops.normBackward(dq, heads(layer.rawQuery()), w.queryNorm, layer.rawQueryRstd(), null, dq);
            ops.normBackward(dk, heads(layer.rawKey()), w.keyNorm, layer.rawKeyRstd(), null, dk);
        }
        ops.norm(layer.input(), w.inputNorm, a.normed, layer.inputRstd());
        more = Group.QKV.place(l) > lowest;
        ops.loraBackward(
                p, w, l, Group.QKV, a.normed, more ? g.normed : null, flat(g.query), flat(g.key), flat(g.value));
        if (more) {
            ops.normBackward(g.normed, layer.input(), w.inputNorm, layer.inputRstd(), g.stream, g.stream);
        }
        return more;
    }

    /** [M, H, D] as [M, H · D]. */
    private static Tensor flat(Tensor heads) {
        return heads.reshape(heads.size(0), heads.size(1) * heads.size(2));
    }

    /** [M, H, D] as [M · H, D]. */
    private static Tensor heads(Tensor heads) {
        return heads.reshape(heads.size(0) * heads.size(1), heads.size(2));
    }

    /** Frees everything but the queue. */
    @Override
    public void close() {
        weights.close();
        rotary.close();
        memory.close();
        ops.close();
        if (mapped != null) {
            mapped.close();
        }
    }
}
