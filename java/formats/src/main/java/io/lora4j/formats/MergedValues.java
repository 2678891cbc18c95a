package io.lora4j.formats;

import io.lora4j.kernels.Axpby;
import io.lora4j.kernels.AxpbyOps;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.io.IOException;
import java.lang.foreign.Arena;

/**
 * The weights of a model with an adapter merged into them: W + s·(B·A), in float32, made when rows are read. Nothing of the merged
 * model is kept.
 */
public final class MergedValues implements ModelValues {
    private final ModelValues base;
    private final PeftAdapter adapter;
    private final Queue queue;

    /**
     * Merges.
     *
     * @param base closed with this
     * @param adapter fits the base; see {@link PeftAdapter#requireFits}
     */
    public MergedValues(ModelValues base, PeftAdapter adapter, Queue queue) {
        this.base = base;
        this.adapter = adapter;
        this.queue = queue;
    }

    @Override
    public ModelConfig config() {
        return base.config();
    }

    @Override
    public DType dtype(String name) throws FormatException {
        return base.dtype(name);
    }

    @Override
    public void read(String name, long from, Tensor out) throws IOException {
        base.read(name, from, out);
        LoraWeights w = name.endsWith(".weight")
                ? adapter.modules().get(name.substring(0, name.length() - ".weight".length()))
                : null;
        if (w == null) {
            return;
        }
        String module = name.substring(0, name.length() - ".weight".length());
        try (Arena arena = Arena.ofShared()) {
            Tensor a = Tensor.of(w.a(), DType.F32, w.rank(), w.inFeatures());
            Tensor b = Tensor.of(w.b(), DType.F32, w.outFeatures(), w.rank());
            Tensor update = Tensor.allocate(arena, DType.F32, out.shape());
            try (Weight weight = Weight.borrow(queue.device(), a)) {
                // The backward product dY·W of a layer is B·A.
                LoraOps.backward(
                        queue,
                        Lora.builder(arena)
                                .x(out) // Only its shape matters without an adapter.
                                .projection(weight)
                                .dy(b.rows(from, from + out.size(0)))
                                .dx(update)
                                .build());
            }
            Axpby add = Axpby.builder(arena)
                    .alpha(Tensor.ofFloats(arena, (float) adapter.config().scaling(module)))
                    .beta(Tensor.ofFloats(arena, 1))
                    .x(update)
                    .y(out)
                    .build();
            AxpbyOps.forward(queue, add);
        }
    }

    @Override
    public void release(String name) throws IOException {
        base.release(name);
    }

    @Override
    public void close() {
        base.close();
    }
}
