package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes a PEFT adapter as llama.cpp reads one: {@code <base tensor>.lora_a} [r, in] and {@code .lora_b} [out, r] in F32, and one
 * {@code adapter.lora.alpha}, from which llama.cpp scales each module by alpha / rank of its own B.
 *
 * <p>What a module's scale differs by from that is multiplied into its B, in double precision and rounded once: with
 * {@code alpha_pattern}, and with rsLoRA together with {@code rank_pattern}. Otherwise every value keeps its bits; only the rows of
 * B of Llama's query and key projections change places. Source: llama.cpp's {@code src/llama-adapter.cpp}.
 */
public final class GgufAdapter {
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED;

    private GgufAdapter() {}

    /** What the factors of a module become. */
    private record Module(String name, LoraWeights weights, double factor, int headDim) {}

    /**
     * Writes a file.
     *
     * @param file the file to create or replace
     * @param adapter fits the model; see {@link PeftAdapter#requireFits}
     * @param where begins the messages, for example the adapter's path
     * @return the modules whose B is multiplied, with the factor; empty if every value keeps its bits
     * @throws FormatException if the adapter cannot be expressed
     */
    public static Map<String, Double> write(Path file, PeftAdapter adapter, ModelConfig model, String where)
            throws IOException {
        float alpha = alpha(adapter, where);
        Map<String, Double> folded = new LinkedHashMap<>();
        Map<String, Module> byTensor = new LinkedHashMap<>();
        List<GgufTensor> tensors = new ArrayList<>();
        for (Map.Entry<String, LoraWeights> entry : adapter.modules().entrySet()) {
            String name = entry.getKey();
            if (name.equals("lm_head") && model.tieWordEmbeddings()) {
                throw new FormatException(
                        where + ": adapts lm_head, which the model ties to its embedding: a GGUF file has no"
                                + " output tensor for it; train without lm_head, or merge the adapter");
            }
            LoraWeights w = entry.getValue();
            double factor = factor(adapter.config(), name, w.rank(), alpha);
            if (factor != 1) {
                folded.put(name, factor);
            }
            Module module = new Module(name, w, factor, GgufNames.interleaved(model, name));
            String base = GgufNames.module(name) + ".weight";
            long rank = w.rank();
            byTensor.put(base + ".lora_a", module);
            tensors.add(new GgufTensor(base + ".lora_a", GgmlType.F32, List.of(rank, w.inFeatures())));
            byTensor.put(base + ".lora_b", module);
            tensors.add(new GgufTensor(base + ".lora_b", GgmlType.F32, List.of(w.outFeatures(), rank)));
        }
        GgufMetadata metadata = new GgufMetadata();
        metadata.string("general.type", "adapter");
        metadata.string("general.architecture", GgufNames.architecture(model));
        metadata.string("adapter.type", "lora");
        metadata.f32("adapter.lora.alpha", alpha);
        GgufWriter.write(file, metadata, tensors, (tensor, sink) -> {
            Module module = byTensor.get(tensor.name());
            if (module == null) {
                throw new IllegalStateException("no module for " + tensor.name());
            }
            if (tensor.name().endsWith(".lora_a")) {
                sink.accept(module.weights.a());
            } else {
                writeB(module, where, sink);
            }
        });
        return folded;
    }

    /** Returns alpha for modules that no pattern names: alpha·√r with rsLoRA, as llama.cpp divides by r. */
    private static float alpha(PeftAdapter adapter, String where) throws FormatException {
        AdapterConfig config = adapter.config();
        double alpha = config.loraAlpha() * (config.useRslora() ? Math.sqrt(config.rank()) : 1);
        boolean none = adapter.modules().keySet().stream().allMatch(module -> config.alpha(module) == 0);
        if (none) {
            throw new FormatException(
                    where + ": lora_alpha is 0, with which the adapter changes nothing; llama.cpp would take"
                            + " 0 for \"not scaled\": train it with another lora_alpha");
        }
        // Modules of another alpha are what it is for, then; a scale of 1 is as good as any.
        float written = (float) (alpha == 0 ? config.rank() : alpha);
        if (!Float.isFinite(written) || written == 0) {
            throw new FormatException(where + ": lora_alpha " + alpha + " does not fit into the float of a GGUF file");
        }
        return written;
    }

    /** Returns the module's scale over llama.cpp's. */
    private static double factor(AdapterConfig config, String module, int rank, float alpha) {
        boolean asWritten = config.loraAlpha() != 0
                && config.alpha(module) == config.loraAlpha()
                && (!config.useRslora() || rank == config.rank());
        return asWritten ? 1 : config.scaling(module) * rank / alpha;
    }

    private static void writeB(Module module, String where, TensorSink sink) throws IOException {
        MemorySegment b = module.weights.b();
        if (module.factor == 1 && module.headDim == 0) {
            sink.accept(b);
            return;
        }
        long rank = module.weights.rank();
        long rows = module.weights.outFeatures();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment copy = arena.allocate(b.byteSize(), 64);
            for (long row = 0; row < rows; row++) {
                long from = GgufNames.row(row, module.headDim) * rank * DType.F32.bytes();
                long to = row * rank * DType.F32.bytes();
                for (long at = 0; at < rank * DType.F32.bytes(); at += DType.F32.bytes()) {
                    float value = b.get(F32, from + at);
                    // Times 1 would be exact too, but the bits of a value are none of arithmetic's business here.
                    float folded = module.factor == 1 ? value : (float) (value * module.factor);
                    if (!Float.isFinite(folded)) {
                        throw new FormatException(where + ": module " + module.name + ": a value of lora_B, " + value
                                + ", times " + module.factor + " (its alpha against the others') is beyond float;"
                                + " the adapter cannot be written as GGUF");
                    }
                    copy.set(F32, to + at, folded);
                }
            }
            sink.accept(copy);
        }
    }
}
