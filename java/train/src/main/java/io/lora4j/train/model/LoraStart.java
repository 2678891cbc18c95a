package io.lora4j.train.model;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.LoraWeights;
import io.lora4j.formats.LowRankUpdate;
import io.lora4j.formats.ModelModule;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.StoredValues;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Dequantize;
import io.lora4j.kernels.DequantizeOps;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.kernels.Weight;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ForkJoinPool;
import org.jspecify.annotations.Nullable;

/**
 * Where training begins with PiSSA or LoftQ: an adapter that says something already, on a base that does not say it any more.
 *
 * <p>With the singular values σᵢ and vectors uᵢ, vᵢ of a matrix, largest first, row i of A is √(σᵢ/s)·vᵢ and column i of B √(σᵢ/s)·uᵢ, so
 * that s·B·A is the best approximation of rank r. Of PiSSA that matrix is the weight W, and the base becomes W − s·B·A. Of LoftQ it is
 * W − Q, what the quantized weight Q lacks; Q is that of W, and with more iterations that of W less the update so far. PEFT's own LoftQ
 * leaves s out, and is the same where lora_alpha makes it 1.
 *
 * <p>A function of base, config and method: the bits do not depend on machine or threads.
 *
 * @param adapter what the adapter begins with
 * @param subtracted what the base is less of, before it is quantized if it is: {@code adapter} itself with PiSSA; without modules with
 *     LoftQ that quantizes once
 */
public record LoraStart(PeftAdapter adapter, PeftAdapter subtracted) {
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED;

    /**
     * Computes both, a matrix after the other.
     *
     * @param model the base model, whose linear layers are dense
     * @param init not the default
     * @param fourBit how the base is quantized, if it is; must be with LoftQ
     * @param queue quantizes; its number of threads decomposes
     * @param arena owns the factors
     * @throws FormatException if the model's file is damaged, a layer is quantized already or smaller than its rank
     */
    public static LoraStart compute(
            Path model, AdapterConfig config, LoraInit init, @Nullable FourBit fourBit, Queue queue, Arena arena)
            throws IOException {
        Map<String, LoraWeights> adapter = new LinkedHashMap<>();
        Map<String, LoraWeights> subtracted = new LinkedHashMap<>();
        try (StoredValues values = StoredValues.open(model, queue);
                ForkJoinPool threads = new ForkJoinPool(queue.threads())) {
            for (ModelModule module : config.targets(values.config().modules())) {
                requireFits(model, values, module, config.rank(module.name()));
                Layer layer = new Layer(module, config, init, fourBit, queue, threads, arena);
                try (Arena scratch = Arena.ofShared()) {
                    Tensor w = Tensor.allocate(scratch, DType.F32, module.outFeatures(), module.inFeatures());
                    values.read(module.name() + ".weight", 0, w);
                    values.release(module.name() + ".weight");
                    LoraWeights less = layer.start(w, scratch);
                    if (less != null) {
                        subtracted.put(module.name(), less);
                    }
                    adapter.put(module.name(), layer.factors());
                }
            }
        }
        return new LoraStart(new PeftAdapter(config, adapter), new PeftAdapter(config, subtracted));
    }

    private static void requireFits(Path model, StoredValues values, ModelModule module, int rank)
            throws FormatException {
        Scheme scheme = values.stored(module.name() + ".weight").scheme();
        if (scheme != Scheme.DENSE) {
            throw new FormatException(model + ": tensor " + module.name() + ".weight is quantized (" + scheme
                    + "); init_lora_weights pissa and loftq decompose the weight itself: use the dense model, with"
                    + " load_in_4bit if it is to be quantized");
        }
        long most = Math.min(module.inFeatures(), module.outFeatures());
        if (rank > most) {
            throw new FormatException(model + ": tensor " + module.name() + ".weight is [" + module.outFeatures() + ", "
                    + module.inFeatures() + "] and has " + most + " singular values, but the adapter's rank there is "
                    + rank + "; lower lora_r or its rank_pattern");
        }
    }

    /** The computation of one module. */
    private static final class Layer {
        private final ModelModule module;
        private final int rank;
        private final double scaling;
        private final LoraInit init;
        private final @Nullable FourBit fourBit;
        private final Queue queue;
        private final ForkJoinPool threads;
        private final Arena owner;
        private @Nullable LoraWeights factors;

        Layer(
                ModelModule module,
                AdapterConfig config,
                LoraInit init,
                @Nullable FourBit fourBit,
                Queue queue,
                ForkJoinPool threads,
                Arena owner) {
            this.module = module;
            this.rank = config.rank(module.name());
            this.scaling = config.scaling(module.name());
            this.init = init;
            this.fourBit = fourBit;
            this.queue = queue;
            this.threads = threads;
            this.owner = owner;
        }

        LoraWeights factors() {
            if (factors == null) {
                throw new IllegalStateException("factors before start");
            }
            return factors;
        }

        /** Computes the factors and returns what is taken out of the base. */
        @Nullable
        LoraWeights start(Tensor w, Arena scratch) {
            if (init.kind() == LoraInit.Kind.PISSA) {
                factors = decompose(w);
                return factors;
            }
            if (fourBit == null) {
                throw new IllegalArgumentException("LoftQ needs a quantized base");
            }
            LoraWeights less = null;
            Tensor rest = Tensor.allocate(scratch, DType.F32, w.shape());
            for (int iteration = 0; iteration < init.iterations(); iteration++) {
                less = factors;
                rest.copyFrom(w);
                if (less != null) {
                    LowRankUpdate.add(queue, less, -scaling, 0, rest);
                }
                quantize(fourBit, rest);
                subtractFrom(w, rest);
                factors = decompose(rest);
            }
            return less;
        }

        private void quantize(FourBit how, Tensor x) {
            try (Arena copies = Arena.ofShared();
                    Weight quantized = how.quantize(queue, x, copies).weight().borrow(queue.device())) {
                DequantizeOps.forward(
                        queue,
                        Dequantize.builder(copies).weight(quantized).out(x).build());
            }
        }

        /** Makes rest w − rest. */
        private static void subtractFrom(Tensor w, Tensor rest) {
            long count = w.elements();
            for (long i = 0; i < count; i++) {
                rest.data()
                        .setAtIndex(
                                F32,
                                i,
                                w.data().getAtIndex(F32, i) - rest.data().getAtIndex(F32, i));
            }
        }

        private LoraWeights decompose(Tensor matrix) {
            DenseMatrix w = new DenseMatrix(matrix);
            String name = module.name();
            boolean rough = init.kind() == LoraInit.Kind.PISSA && init.iterations() > 0;
            SingularValues values = threads.submit(() -> rough
                            ? SingularValues.roughly(w, rank, init.iterations(), name)
                            : SingularValues.of(w, rank, name))
                    .join();
            Tensor a = Tensor.allocate(owner, DType.F32, rank, w.columns());
            Tensor b = Tensor.allocate(owner, DType.F32, w.rows(), rank);
            for (int i = 0; i < rank; i++) {
                double root = Math.sqrt(values.values()[i] / scaling);
                for (int k = 0; k < w.columns(); k++) {
                    a.data().setAtIndex(F32, (long) i * w.columns() + k, (float) (root * values.right()[i][k]));
                }
                for (int n = 0; n < w.rows(); n++) {
                    b.data().setAtIndex(F32, (long) n * rank + i, (float) (root * values.left()[i][n]));
                }
            }
            return new LoraWeights(rank, w.columns(), w.rows(), a.data(), b.data());
        }
    }
}
