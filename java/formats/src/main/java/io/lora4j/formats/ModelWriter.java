package io.lora4j.formats;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Queue;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Writes a model in Hugging Face's layout, dense or quantized by bitsandbytes, tensor by tensor. With bitsandbytes, the linear layers
 * inside the blocks are quantized but for the modules that are to be skipped; embedding, output head, norms and biases keep the type
 * that they have.
 */
public final class ModelWriter {
    private final ModelValues values;
    private final Queue queue;
    private final @Nullable BitsAndBytes how;
    private final @Nullable DType dense;
    private final Map<TensorSpec, Part> parts = new LinkedHashMap<>();
    private final Map<TensorSpec, String> weights = new LinkedHashMap<>();
    private final List<TensorReport> reports = new ArrayList<>();
    private @Nullable BitsAndBytesTensors current;

    private ModelWriter(ModelValues values, Queue queue, @Nullable BitsAndBytes how, @Nullable DType dense) {
        this.values = values;
        this.queue = queue;
        this.how = how;
        this.dense = dense;
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
        return new ModelWriter(values, queue, null, dtype).write(target, source, check);
    }

    /**
     * Writes a model with bitsandbytes' quantization.
     *
     * @param target the folder to make or replace
     * @param source the folder with the config and the tokenizer's files
     * @throws FormatException if a value is not finite
     */
    public static List<TensorReport> bitsAndBytes(
            Path target, ModelValues values, Path source, BitsAndBytes how, Queue queue, Check check)
            throws IOException {
        return new ModelWriter(values, queue, how, null).write(target, source, check);
    }

    private List<TensorReport> write(Path target, Path source, Check check) throws IOException {
        Map<String, Object> config = ModelFolder.config(source);
        config.remove("quantization_config");
        if (dense != null) {
            config.put(config.containsKey("dtype") ? "dtype" : "torch_dtype", torchName(dense));
        }
        if (how != null) {
            config.put("quantization_config", how.toConfig());
        }
        try {
            ModelFolder.write(target, source, config, plan(), this::write, dir -> check.accept(dir, reports));
        } finally {
            close();
        }
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
        List<TensorSpec> specs = new ArrayList<>();
        Map<String, ModelModule> modules = values.config().modules();
        for (Map.Entry<String, List<Long>> tensor :
                values.config().expectedTensors().entrySet()) {
            String name = tensor.getKey();
            ModelModule module = modules.get(name.substring(0, name.lastIndexOf('.')));
            if (how != null && module != null && name.endsWith(".weight") && how.covers(module)) {
                tensors(how, name).specs().forEach((spec, part) -> {
                    specs.add(spec);
                    parts.put(spec, part);
                    weights.put(spec, name);
                });
            } else {
                specs.add(new TensorSpec(name, dense != null ? dense : values.dtype(name), tensor.getValue()));
            }
        }
        return specs;
    }

    private BitsAndBytesTensors tensors(BitsAndBytes quantization, String name) throws FormatException {
        List<Long> shape = values.config().expectedTensors().getOrDefault(name, List.of());
        return new BitsAndBytesTensors(quantization, name, shape, values.dtype(name));
    }

    private void write(TensorSpec tensor, TensorSink sink) throws IOException {
        Part part = parts.get(tensor);
        if (part == null || how == null) {
            reports.add(DenseTensor.write(values, tensor, sink));
            return;
        }
        if (part == Part.VALUES) {
            close();
            current = tensors(how, weights.getOrDefault(tensor, tensor.name()));
            reports.add(current.quantize(values, queue));
        }
        if (current == null) {
            throw new IllegalStateException(tensor.name() + " is written before its weight");
        }
        sink.accept(current.data(tensor, part));
    }

    private void close() {
        if (current != null) {
            current.close();
            current = null;
        }
    }
}
