package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.util.Map;

/**
 * The weights of a model with an adapter merged into them, or taken out of them: W ± s·(B·A), in float32, made when rows are read. Nothing of the merged
 * model is kept.
 */
public final class MergedValues implements ModelValues {
    private final ModelValues base;
    private final PeftAdapter adapter;
    private final int sign;
    private final Queue queue;

    private MergedValues(ModelValues base, PeftAdapter adapter, int sign, Queue queue) {
        this.base = base;
        this.adapter = adapter;
        this.sign = sign;
        this.queue = queue;
    }

    /**
     * Merges.
     *
     * @param base closed with this
     * @param adapter fits the base; see {@link PeftAdapter#requireFits}
     */
    public MergedValues(ModelValues base, PeftAdapter adapter, Queue queue) {
        this(base, adapter, 1, queue);
    }

    /**
     * Takes an adapter out of a base, W − s·(B·A): what PiSSA and LoftQ train against.
     *
     * @param base closed with this
     * @param adapter its modules are the base's, maybe not all of those that its config names
     */
    public static MergedValues less(ModelValues base, PeftAdapter adapter, Queue queue) {
        return new MergedValues(base, adapter, -1, queue);
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
        String module = module(name);
        LoraWeights w = adapter.modules().get(module);
        if (w != null) {
            LowRankUpdate.add(queue, w, sign * adapter.config().scaling(module), from, out);
        }
    }

    /** Returns the module whose weight a tensor is, or a name that no module has. */
    private static String module(String name) {
        return name.endsWith(".weight") ? name.substring(0, name.length() - ".weight".length()) : "";
    }

    @Override
    public StoredWeight stored(String name) throws FormatException {
        return base.stored(name);
    }

    @Override
    public boolean isChanged(String name) {
        return adapter.modules().containsKey(module(name)) || base.isChanged(name);
    }

    @Override
    public Map<TensorInfo, MemorySegment> tensors(String name) throws FormatException {
        return base.tensors(name);
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
