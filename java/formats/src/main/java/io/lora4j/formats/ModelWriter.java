package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Writes a model in Hugging Face's layout, dense or quantized by bitsandbytes, tensor by tensor. With bitsandbytes, the linear layers
 * inside the blocks are quantized but for the modules that are to be skipped; embedding, output head, norms and biases keep the type
 * that they have.
 */
public final class ModelWriter {
    private static final String QUANTIZATION = "quantization_config";

    private final ModelValues values;
    private final Queue queue;
    private final @Nullable BitsAndBytes how;
    private final @Nullable DType dense;
    private final boolean like;
    private final List<TensorSpec> specs = new ArrayList<>();
    private final Map<TensorSpec, Writer> writers = new HashMap<>();
    private final List<TensorReport> reports = new ArrayList<>();

    private ModelWriter(
            ModelValues values, Queue queue, @Nullable BitsAndBytes how, @Nullable DType dense, boolean like) {
        this.values = values;
        this.queue = queue;
        this.how = how;
        this.dense = dense;
        this.like = like;
    }

    /** Makes one tensor. */
    @FunctionalInterface
    private interface Writer {
        /** Returns what the weight changed by, if that is known now. */
        @Nullable
        TensorReport write(TensorSpec tensor, TensorSink sink) throws IOException;
    }

    /** Looks at a model that is complete but does not have its name yet; throws to keep it from appearing. */
    @FunctionalInterface
    public interface Check {
        /** Takes the folder or GGUF file, and what became of each tensor. */
        void accept(Path model, List<TensorReport> reports) throws IOException;
    }

    /**
     * Writes a dense model.
     *
     * @param target the folder to make or replace
     * @param source the folder with the config and the tokenizer's files
     * @param dtype F32, F16 or BF16; null: each tensor the type that it has
     * @throws FormatException if a value is not finite or beyond the type
     */
    public static List<TensorReport> dense(
            Path target, ModelValues values, Path source, @Nullable DType dtype, Queue queue, Check check)
            throws IOException {
        return new ModelWriter(values, queue, null, dtype, false).write(target, source, check);
    }

    /**
     * Writes a model with bitsandbytes' quantization. A weight that is stored just so already, and is not changed, is copied byte for byte.
     *
     * @param target the folder to make or replace
     * @param source the folder with the config and the tokenizer's files
     * @throws FormatException if a value is not finite
     */
    public static List<TensorReport> bitsAndBytes(
            Path target, ModelValues values, Path source, BitsAndBytes how, Queue queue, Check check)
            throws IOException {
        return new ModelWriter(values, queue, how, null, false).write(target, source, check);
    }

    /**
     * Writes a model that bitsandbytes has quantized as it was: what was dense stays dense, what is not changed is copied byte for byte.
     *
     * @param how how it was quantized; the modules to skip are those that were
     * @throws FormatException if a value is not finite
     */
    public static List<TensorReport> likeSource(
            Path target, ModelValues values, Path source, BitsAndBytes how, Queue queue, Check check)
            throws IOException {
        return new ModelWriter(values, queue, how, null, true).write(target, source, check);
    }

    private List<TensorReport> write(Path target, Path source, Check check) throws IOException {
        Map<String, Object> config = ModelFolder.config(source);
        if (dense != null) {
            config.put(config.containsKey("dtype") ? "dtype" : "torch_dtype", torchName(dense));
        }
        if (how == null) {
            config.remove(QUANTIZATION);
        } else if (!like) {
            config.put(QUANTIZATION, how.toConfig());
        }
        ModelFolder.write(target, source, config, plan(), this::write, dir -> check.accept(dir, reports));
        return List.copyOf(reports);
    }

    /** Returns what transformers calls a type. */
    public static String torchName(DType dtype) {
        return switch (dtype) {
            case F32 -> "float32";
            case F16 -> "float16";
            case BF16 -> "bfloat16";
            default -> throw new IllegalArgumentException("models are not dense in " + dtype);
        };
    }

    private List<TensorSpec> plan() throws FormatException {
        Map<String, ModelModule> modules = values.config().modules();
        for (Map.Entry<String, List<Long>> tensor :
                values.config().expectedTensors().entrySet()) {
            String name = tensor.getKey();
            ModelModule module = modules.get(name.substring(0, name.lastIndexOf('.')));
            if (how != null && module != null && name.endsWith(".weight") && isQuantized(how, module, name)) {
                planQuantized(how, name, tensor.getValue());
            } else {
                TensorSpec spec = new TensorSpec(name, dense != null ? dense : values.dtype(name), tensor.getValue());
                plan(spec, (which, sink) -> DenseTensor.write(values, which, sink));
            }
        }
        return specs;
    }

    private void plan(TensorSpec spec, Writer writer) {
        specs.add(spec);
        writers.put(spec, writer);
    }

    private boolean isQuantized(BitsAndBytes quantization, ModelModule module, String name) throws FormatException {
        return like ? values.stored(name).scheme() != Scheme.DENSE : quantization.covers(module);
    }

    private void planQuantized(BitsAndBytes quantization, String name, List<Long> shape) throws FormatException {
        if (!values.isChanged(name) && quantization.describes(values.stored(name))) {
            List<TensorInfo> tensors = new ArrayList<>(values.tensors(name).keySet());
            long bytes = tensors.stream().mapToLong(TensorInfo::bytes).sum();
            String last = tensors.getLast().name();
            TensorReport report = new TensorReport(name, quantization.type().name(), shape, bytes, 0, 0);
            for (TensorInfo tensor : tensors) {
                plan(new TensorSpec(tensor.name(), tensor.dtype(), tensor.shape()), (spec, sink) -> {
                    sink.accept(copied(name, spec));
                    if (!spec.name().equals(last)) {
                        return null;
                    }
                    values.release(name);
                    return report;
                });
            }
            return;
        }
        BitsAndBytesTensors tensors = new BitsAndBytesTensors(quantization, name, shape, values.dtype(name));
        tensors.specs()
                .forEach((spec, part) -> plan(spec, (which, sink) -> tensors.write(which, part, values, queue, sink)));
    }

    private MemorySegment copied(String name, TensorSpec spec) throws FormatException {
        for (Map.Entry<TensorInfo, MemorySegment> tensor : values.tensors(name).entrySet()) {
            if (tensor.getKey().name().equals(spec.name())) {
                return tensor.getValue();
            }
        }
        throw new IllegalStateException(spec.name() + " was there when the model was planned");
    }

    private void write(TensorSpec tensor, TensorSink sink) throws IOException {
        Writer writer = writers.get(tensor);
        if (writer == null) {
            throw new IllegalStateException(tensor.name() + " was not planned");
        }
        TensorReport report = writer.write(tensor, sink);
        if (report != null) {
            reports.add(report);
        }
    }
}
