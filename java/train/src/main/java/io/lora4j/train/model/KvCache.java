package io.lora4j.train.model;

import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** The rotated keys and the values of one sequence so far, for every layer: [capacity, Hkv, D] each. */
final class KvCache implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
    private final List<Tensor> keys = new ArrayList<>();
    private final List<Tensor> values = new ArrayList<>();
    private final int capacity;
    private int length;

    KvCache(LlamaModel model, int capacity) {
        this.capacity = capacity;
        long heads = model.config().numKeyValueHeads();
        long width = model.config().headDim();
        for (int layer = 0; layer < model.config().numHiddenLayers(); layer++) {
            keys.add(Tensor.allocate(arena, model.computeType(), capacity, heads, width));
            values.add(Tensor.allocate(arena, model.computeType(), capacity, heads, width));
        }
    }

    int capacity() {
        return capacity;
    }

    /** Returns the number of tokens in the cache. */
    int length() {
        return length;
    }

    void advance(int tokens) {
        length += tokens;
    }

    Tensor keys(int layer) {
        return keys.get(layer);
    }

    Tensor values(int layer) {
        return values.get(layer);
    }

    @Override
    public void close() {
        arena.close();
    }
}
