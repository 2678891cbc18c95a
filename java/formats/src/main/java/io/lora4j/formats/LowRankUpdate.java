package io.lora4j.formats;

import io.lora4j.kernels.Axpby;
import io.lora4j.kernels.AxpbyOps;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Lora;
import io.lora4j.kernels.LoraOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.lang.foreign.Arena;

/**
 * The update s·B·A of a weight, added to rows of it in float32. The bits do not depend on how many rows are taken at a time.
 */
public final class LowRankUpdate {
    private LowRankUpdate() {}

    /**
     * Adds the update.
     *
     * @param scaling s, rounded to float32
     * @param from the first row
     * @param out [rows, K], F32: rows {@code [from, from + rows)} of the weight, changed
     */
    public static void add(Queue queue, LoraWeights w, double scaling, long from, Tensor out) {
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
                    .alpha(Tensor.ofFloats(arena, (float) scaling))
                    .beta(Tensor.ofFloats(arena, 1))
                    .x(update)
                    .y(out)
                    .build();
            AxpbyOps.forward(queue, add);
        }
    }
}
