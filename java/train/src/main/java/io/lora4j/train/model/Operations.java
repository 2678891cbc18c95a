package io.lora4j.train.model;

import io.lora4j.formats.ModelConfig;
import io.lora4j.kernels.Attention;
import io.lora4j.kernels.AttentionOps;
import io.lora4j.kernels.Compute;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Embedding;
import io.lora4j.kernels.EmbeddingOps;
import io.lora4j.kernels.LinearCrossEntropy;
import io.lora4j.kernels.LinearCrossEntropyOps;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.NumericStatus;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.RmsNorm;
import io.lora4j.kernels.RmsNormOps;
import io.lora4j.kernels.Rope;
import io.lora4j.kernels.RopeOps;
import io.lora4j.kernels.Swiglu;
import io.lora4j.kernels.SwigluOps;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;
import java.lang.foreign.SegmentAllocator;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The operations as a decoder calls them. Each runs before the next one is described, so that all argument structs lie in one place
 * and a step allocates no native memory.
 */
final class Operations implements AutoCloseable {
    /** Holds the largest argument struct, that of three projections with everything. */
    private static final long ARGUMENT_BYTES = 1 << 14;

    private final Queue queue;
    private final ModelConfig config;
    private final Compute compute;
    private final Arena arena = Arena.ofShared();
    private final SegmentAllocator arguments =
            SegmentAllocator.prefixAllocator(arena.allocate(ARGUMENT_BYTES, Tensor.ALIGNMENT));

    // What operations read through pointers when they run.
    private final Tensor scaling = Tensor.allocate(arena, DType.F32, Projection.values().length);
    private final Tensor gradScale = Tensor.allocate(arena, DType.F32, 1);
    private final Tensor dropoutSeed = Tensor.allocate(arena, DType.I64, 1);
    private final Tensor step = Tensor.allocate(arena, DType.I64, 1);
    private final NumericStatus numeric = NumericStatus.allocate(arena);

    /** @param compute the precision of the products */
    Operations(Queue queue, ModelConfig config, Compute compute) {
        this.queue = queue;
        this.config = config;
        this.compute = compute;
    }

    void set(GradientOptions options) {
        gradScale.setFloat(options.gradScale(), 0);
        dropoutSeed.setLong(options.dropoutSeed(), 0);
        step.setLong(options.step(), 0);
    }

    // -----------------------------------------------------------------------------------------------------------
    // linear

    /** y = x · Wᵀ + bias + update of each projection's adapter, for the projections of a group. */
    void lora(Pass p, LlamaWeights.Layer w, int layer, Projection.Group group, Tensor x, Tensor... y) {
        Lora.Builder builder = group(p, layer, group).x(x);
        for (int i = 0; i < y.length; i++) {
            projection(builder, p, w, layer, group.members()[i]).y(y[i]);
        }
        LoraOps.forward(queue, builder.build());
    }

    /**
     * Adds to the gradients of a group's adapters.
     *
     * @param dx where the gradient of x goes; null if nobody wants it
     */
    void loraBackward(
            Pass p,
            LlamaWeights.Layer w,
            int layer,
            Projection.Group group,
            Tensor x,
            @Nullable Tensor dx,
            Tensor... dy) {
        Lora.Builder builder = group(p, layer, group).x(x).accumulateGrads(true).dx(dx);
        for (int i = 0; i < dy.length; i++) {
            Projection projection = group.members()[i];
            projection(builder, p, w, layer, projection).dy(dy[i]);
            LoraLinear linear = p.adapterOf(layer, projection);
            if (linear != null) {
                builder.gradients(linear.a().gradient(), linear.b().gradient());
            }
        }
        LoraOps.backward(queue, builder.build());
    }

    private Lora.Builder group(Pass p, int layer, Projection.Group group) {
        Projection[] members = group.members();
        for (int i = 0; i < members.length; i++) {
            LoraLinear linear = p.adapterOf(layer, members[i]);
            scaling.setFloat(linear == null ? 0 : linear.scaling(), i);
        }
        Lora.Builder builder = Lora.builder(arguments).compute(compute).scaling(scaling.rows(0, members.length));
        return p.dropout == 0 ? builder : builder.dropout(p.dropout, dropoutSeed, step, p.tokenIndex, 0);
    }

    private static Lora.Builder projection(
            Lora.Builder builder, Pass p, LlamaWeights.Layer w, int layer, Projection projection) {
        builder.projection(w.weight(projection)).bias(w.bias(projection));
        LoraLinear linear = p.adapterOf(layer, projection);
        if (linear != null) {
            Tensor s = p.activations.layer(layer).narrow().get(projection.ordinal());
            builder.adapter(linear.a().value(), linear.b().value(), linear.moduleId())
                    .s(Objects.requireNonNull(s));
        }
        return builder;
    }

    /** y = x · Wᵀ. */
    void matmul(Tensor x, Weight weight, Tensor y) {
        LoraOps.forward(
                queue,
                Lora.builder(arguments)
                        .compute(compute)
                        .x(x)
                        .projection(weight)
                        .y(y)
                        .build());
    }

    // ------------------------------------------------------------------------------------------------------------
    // norms

    /** y = norm(x). */
    void norm(Tensor x, Tensor weight, Tensor y, Tensor rstd) {
        RmsNormOps.forward(queue, rmsNorm(weight, rstd).x(x).y(y).build());
    }

    /** h = x + residual; y = norm(h). */
    void addAndNorm(Tensor x, Tensor residual, Tensor weight, Tensor h, Tensor y, Tensor rstd) {
        RmsNormOps.forward(
                queue, rmsNorm(weight, rstd).x(x).residual(residual).h(h).y(y).build());
    }

    /** dx = residual + gradient of norm(h) for dy. */
    void normBackward(Tensor dy, Tensor h, Tensor weight, Tensor rstd, @Nullable Tensor residual, Tensor dx) {
        RmsNormOps.backward(
                queue,
                rmsNorm(weight, rstd).h(h).dy(dy).dresidual(residual).dx(dx).build());
    }

    private RmsNorm.Builder rmsNorm(Tensor weight, Tensor rstd) {
        return RmsNorm.builder(arguments)
                .eps(config.rmsNormEps())
                .weight(weight)
                .rstd(rstd);
    }

    // --------------------------------------------------------------------------------------------------------
    // attention

    void rope(RotaryTable table, Tensor positions, Tensor heads) {
        RopeOps.forward(queue, rope(heads, table, positions));
    }

    void ropeBackward(RotaryTable table, Tensor positions, Tensor heads) {
        RopeOps.backward(queue, rope(heads, table, positions));
    }

    private Rope rope(Tensor heads, RotaryTable table, Tensor positions) {
        return Rope.builder(arguments)
                .src(heads)
                .dst(heads)
                .cosine(table.cosine())
                .sine(table.sine())
                .positions(positions)
                .build();
    }

    void attention(Pass p, int layer) {
        AttentionOps.forward(queue, attentionOf(p, layer).build());
    }

    void attentionBackward(Pass p, int layer) {
        Activations.Gradients g = p.activations.gradients();
        AttentionOps.backward(
                queue,
                attentionOf(p, layer)
                        .dO(g.attention)
                        .dq(g.query)
                        .dk(g.key)
                        .dv(g.value)
                        .build());
    }

    private Attention.Builder attentionOf(Pass p, int l) {
        Activations.Layer layer = p.activations.layer(l);
        return Attention.builder(arguments)
                .causal(true)
                .window(config.slidingWindow(l))
                .scale(1 / Math.sqrt(config.headDim()))
                .maxQLength(p.maxQueries)
                .maxKvLength(p.maxKeys)
                .qOffsets(p.queryOffsets)
                .kvStarts(p.keyStarts)
                .kvLengths(p.keyLengths)
                .q(layer.query())
                .k(p.keys(l))
                .v(p.values(l))
                .o(layer.attention())
                .lse(layer.lse());
    }

    // -------------------------------------------------------------------------------------------------- everything
    // else

    void embedding(Weight weight, Tensor ids, Tensor out) {
        EmbeddingOps.forward(
                queue,
                Embedding.builder(arguments).weight(weight).ids(ids).out(out).build());
    }

    void swiglu(Tensor gate, Tensor up, Tensor out) {
        SwigluOps.forward(
                queue, Swiglu.builder(arguments).gate(gate).up(up).out(out).build());
    }

    /** The gradients of gate and up take their places. */
    void swigluBackward(Tensor gate, Tensor up, Tensor dout) {
        SwigluOps.backward(
                queue,
                Swiglu.builder(arguments)
                        .gate(gate)
                        .up(up)
                        .dout(dout)
                        .dgate(gate)
                        .dup(up)
                        .build());
    }

    /**
     * Fills in the losses of a pass.
     *
     * @param dx where the gradient of x goes; null for the losses alone
     * @return the first row whose loss is not finite, or −1
     */
    int crossEntropy(Tensor x, Weight head, Losses losses, @Nullable Tensor dx) {
        numeric.clear();
        LinearCrossEntropyOps.forward(
                queue,
                LinearCrossEntropy.builder(arguments)
                        .compute(compute)
                        .ignoreIndex(Batch.IGNORE)
                        .x(x)
                        .weight(head)
                        .targets(losses.targets)
                        .rowWeight(losses.rowWeight)
                        .gradScale(dx == null ? null : gradScale)
                        .step(step)
                        .loss(losses.loss)
                        .lse(losses.lse)
                        .predicted(losses.predicted)
                        .dx(dx)
                        .numeric(numeric)
                        .build());
        return numeric.isSet() ? numeric.tensor() : -1;
    }

    @Override
    public void close() {
        arena.close();
    }
}
