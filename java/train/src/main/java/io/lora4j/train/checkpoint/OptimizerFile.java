package io.lora4j.train.checkpoint;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.NamedTensor;
import io.lora4j.formats.SafetensorsWriter;
import io.lora4j.formats.TensorInfo;
import io.lora4j.kernels.AdamwMoment;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.LoraLinear;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * AdamW's state of an adapter on disk: {@code optimizer.safetensors} with {@code <parameter>.exp_avg} and
 * {@code <parameter>.exp_avg_sq} for every parameter, float32; or, where they are held in 8 bits, their codes under these names, uint8,
 * with {@code <parameter>.exp_avg_scale} and {@code <parameter>.exp_avg_sq_scale}, float32.
 */
public final class OptimizerFile {
    /** The name of the file. */
    public static final String FILE_NAME = "optimizer.safetensors";

    private OptimizerFile() {}

    /** Writes the moments of a trainable adapter. */
    public static void write(Path dir, Adapter adapter) throws IOException {
        List<NamedTensor> tensors = new ArrayList<>();
        for (LoraLinear.Parameter parameter : adapter.parameterList()) {
            moments(parameter)
                    .forEach((name, tensor) -> tensors.add(new NamedTensor(
                            name,
                            fileType(tensor),
                            Arrays.stream(tensor.shape()).boxed().toList(),
                            tensor.data())));
        }
        SafetensorsWriter.write(dir.resolve(FILE_NAME), tensors, Map.of());
    }

    /**
     * Reads the moments into a trainable adapter.
     *
     * @throws FormatException if a tensor is missing or has another type or shape
     */
    public static void read(Path dir, Adapter adapter) throws IOException {
        try (Checkpoint file = Checkpoint.open(dir.resolve(FILE_NAME))) {
            for (LoraLinear.Parameter parameter : adapter.parameterList()) {
                for (Map.Entry<String, Tensor> moment : moments(parameter).entrySet()) {
                    TensorInfo info = file.tensor(moment.getKey());
                    List<Long> shape =
                            Arrays.stream(moment.getValue().shape()).boxed().toList();
                    DType type = fileType(moment.getValue());
                    if (!info.typeName().equals(type.name()) || !info.shape().equals(shape)) {
                        throw new FormatException(file.path() + ": tensor " + info.name() + " is " + info.typeName()
                                + " " + info.shape() + "; expected " + type + " " + shape);
                    }
                    MemorySegment.copy(
                            file.data(info.name()), 0, moment.getValue().data(), 0, info.bytes());
                }
            }
        }
    }

    /** Returns the moments of a trainable adapter by the names that the file has for them. */
    public static Map<String, Tensor> moments(Adapter adapter) {
        Map<String, Tensor> moments = new LinkedHashMap<>();
        adapter.parameterList().forEach(parameter -> moments.putAll(moments(parameter)));
        return moments;
    }

    /**
     * Returns what is written down of an adapter by the names that PEFT's file has.
     *
     * @param copies owns it
     */
    public static Map<String, Tensor> parameters(Adapter adapter, Arena copies) {
        Map<String, Tensor> parameters = new LinkedHashMap<>();
        for (NamedTensor tensor : adapter.toPeft(copies).tensors()) {
            long[] shape = tensor.shape().stream().mapToLong(Long::longValue).toArray();
            parameters.put(tensor.name(), Tensor.of(tensor.data(), DType.F32, shape));
        }
        return parameters;
    }

    /**
     * Compares tensors with a file, bit for bit.
     *
     * @return a text for each tensor that is missing or different
     */
    public static List<String> differences(Path path, Map<String, Tensor> tensors) throws IOException {
        List<String> differences = new ArrayList<>();
        try (Checkpoint file = Checkpoint.open(path);
                Arena copies = Arena.ofConfined()) {
            for (Map.Entry<String, Tensor> entry : tensors.entrySet()) {
                String where = path + ": tensor " + entry.getKey();
                if (!file.tensors().containsKey(entry.getKey())) {
                    differences.add(where + " is missing");
                    continue;
                }
                Tensor value = entry.getValue();
                if (value.dtype() != fileType(value)) {
                    value = Tensor.allocate(copies, fileType(value), value.shape());
                    value.copyFrom(entry.getValue());
                }
                long at = value.data().mismatch(file.data(entry.getKey()));
                if (at >= 0) {
                    long element = at / value.dtype().bytes();
                    differences.add(where + " is not what the steps come to, from element " + element + " on");
                }
            }
        }
        return differences;
    }

    private static Map<String, Tensor> moments(LoraLinear.Parameter parameter) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        put(tensors, parameter.name() + ".exp_avg", parameter.expAvg());
        put(tensors, parameter.name() + ".exp_avg_sq", parameter.expAvgSq());
        return tensors;
    }

    private static void put(Map<String, Tensor> tensors, String name, AdamwMoment moment) {
        tensors.put(name, moment.values());
        if (moment.scales() != null) {
            tensors.put(name + "_scale", moment.scales());
        }
    }

    /** The REF64 tier computes in float64; files are float32. */
    private static DType fileType(Tensor tensor) {
        return tensor.dtype() == DType.U8 ? DType.U8 : DType.F32;
    }
}
