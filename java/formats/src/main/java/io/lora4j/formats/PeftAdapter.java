package io.lora4j.formats;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A LoRA adapter in PEFT's layout: a directory with {@code adapter_config.json} and {@code adapter_model.safetensors}, whose
 * tensors are {@code base_model.model.<module>.lora_A.weight} [r, in] and {@code ….lora_B.weight} [out, r].
 *
 * @param config the adapter's settings
 * @param modules the factors by module name, as {@link ModelConfig#modules} names modules
 */
public record PeftAdapter(AdapterConfig config, Map<String, LoraWeights> modules) {

    /** The name of the tensor file. */
    public static final String FILE_NAME = "adapter_model.safetensors";

    private static final String PREFIX = "base_model.model.";
    private static final String A = ".lora_A.weight";
    private static final String B = ".lora_B.weight";

    /** Copies the map, keeping its order. */
    public PeftAdapter {
        modules = Collections.unmodifiableMap(new LinkedHashMap<>(modules));
    }

    /**
     * Reads an adapter. F16 and BF16 tensors are widened to float32, which is exact. Every tensor of the file must be
     * understood, and every A have its B; ranks must be those that the config gives.
     *
     * @param dir the adapter's directory
     * @param arena owns the factors
     * @throws FormatException if a file is missing, damaged, or holds what is not supported
     */
    public static PeftAdapter read(Path dir, Arena arena) throws IOException {
        AdapterConfig config = AdapterConfig.read(dir.resolve(AdapterConfig.FILE_NAME));
        Path file = dir.resolve(FILE_NAME);
        if (!Files.exists(file) && Files.exists(dir.resolve("adapter_model.bin"))) {
            throw new FormatException(
                    dir.resolve("adapter_model.bin") + ": is a pickled PyTorch file, which can run code when"
                            + " it is read and is refused; convert it with PEFT: PeftModel.from_pretrained(base, dir)"
                            + ".save_pretrained(dir, safe_serialization=True)");
        }
        try (SafetensorsFile tensors = SafetensorsFile.open(file)) {
            Map<String, LoraWeights> modules = new LinkedHashMap<>();
            for (String module : moduleNames(tensors)) {
                modules.put(module, readModule(tensors, config, module, arena));
            }
            return new PeftAdapter(config, modules);
        }
    }

    private static List<String> moduleNames(Checkpoint tensors) throws FormatException {
        List<String> names = new ArrayList<>();
        for (String key : tensors.tensors().keySet()) {
            boolean a = key.endsWith(A);
            if (!key.startsWith(PREFIX) || (!a && !key.endsWith(B))) {
                throw new FormatException(tensors.path() + ": tensor " + key + " " + describe(key)
                        + "; expected are only " + PREFIX + "<module>" + A + " and …" + B);
            }
            String module = key.substring(PREFIX.length(), key.length() - A.length());
            String other = PREFIX + module + (a ? B : A);
            if (!tensors.tensors().containsKey(other)) {
                throw new FormatException(
                        tensors.path() + ": tensor " + key + " has no partner " + other + "; the file is incomplete");
            }
            if (a) {
                names.add(module);
            }
        }
        if (names.isEmpty()) {
            throw new FormatException(tensors.path() + ": holds no LoRA tensors; expected " + PREFIX + "<module>" + A);
        }
        Collections.sort(names);
        return names;
    }

    private static String describe(String key) {
        if (key.endsWith(".lora_B.bias")) {
            return "is a LoRA bias (lora_bias), which is not supported";
        }
        if (key.contains(".lora_embedding_")) {
            return "is LoRA on an embedding, which is not supported";
        }
        if (key.contains(".lora_magnitude_vector")) {
            return "belongs to DoRA (use_dora), which is not supported";
        }
        if (key.contains(".trainable_tokens_delta")) {
            return "belongs to trainable tokens (trainable_token_indices), which are not supported";
        }
        if (key.endsWith(".base_layer.weight")) {
            return "is a copy of the base model's weight, which is not read: save the adapter with save_embedding_layers=False";
        }
        return "is not part of a LoRA adapter (a full module, as modules_to_save stores it?)";
    }

    private static LoraWeights readModule(Checkpoint tensors, AdapterConfig config, String module, Arena arena)
            throws FormatException {
        TensorInfo a = matrix(tensors, PREFIX + module + A);
        TensorInfo b = matrix(tensors, PREFIX + module + B);
        int rank;
        try {
            rank = config.rank(module);
        } catch (IllegalArgumentException e) {
            // An expression that takes too long to match.
            throw new FormatException(
                    tensors.path() + ": rank_pattern of " + AdapterConfig.FILE_NAME + ": " + e.getMessage(), e);
        }
        if (a.shape().get(0) != rank || b.shape().get(1) != rank) {
            throw new FormatException(
                    tensors.path() + ": module " + module + " has lora_A " + a.shape() + " and lora_B "
                            + b.shape() + ", but " + AdapterConfig.FILE_NAME + " gives it rank " + rank
                            + "; the two files are of different adapters");
        }
        return new LoraWeights(
                rank, a.shape().get(1), b.shape().get(0), widen(tensors, a, arena), widen(tensors, b, arena));
    }

    private static TensorInfo matrix(Checkpoint tensors, String name) throws FormatException {
        TensorInfo info = tensors.tensor(name);
        if (info.shape().size() != 2 || info.elements() == 0) {
            throw new FormatException(tensors.path() + ": tensor " + name + " has shape " + info.shape()
                    + "; expected a matrix that is not empty");
        }
        return info;
    }

    private static MemorySegment widen(Checkpoint tensors, TensorInfo info, Arena arena) throws FormatException {
        DType dtype = info.readableType().orElse(null);
        if (dtype != DType.F32 && dtype != DType.F16 && dtype != DType.BF16) {
            throw new FormatException(tensors.path() + ": tensor " + info.name() + " has dtype " + info.typeName()
                    + "; supported for adapters are F32, F16 and BF16");
        }
        MemorySegment data = tensors.data(info.name());
        MemorySegment wide = arena.allocate(info.elements() * DType.F32.bytes(), 64);
        long bad = Widening.toFloat32(data, dtype, wide);
        if (bad >= 0) {
            throw new FormatException(tensors.path() + ": tensor " + info.name() + " holds "
                    + Widening.get(wide, bad) + " at element " + bad
                    + "; expected finite numbers: the adapter diverged in"
                    + " training or the file is damaged");
        }
        return wide;
    }

    /**
     * Checks that this adapter belongs to a model: it covers exactly the modules that its config names there, with the
     * model's shapes.
     *
     * @param where begins the message, for example the adapter's path
     * @param modules the model's modules, as {@link ModelConfig#modules} gives them
     * @throws FormatException naming the module that does not fit
     */
    public void requireFits(String where, Map<String, ModelModule> modules) throws FormatException {
        for (Map.Entry<String, LoraWeights> entry : this.modules.entrySet()) {
            ModelModule module = modules.get(entry.getKey());
            if (module == null) {
                throw new FormatException(where + ": adapts module " + entry.getKey()
                        + ", which the model does not have; the adapter is of another base model" + base());
            }
            LoraWeights w = entry.getValue();
            if (module.inFeatures() != w.inFeatures() || module.outFeatures() != w.outFeatures()) {
                throw new FormatException(where + ": adapts " + entry.getKey() + " as a layer of [out "
                        + w.outFeatures()
                        + ", in " + w.inFeatures() + "], but the model's has [out " + module.outFeatures() + ", in "
                        + module.inFeatures() + "]; the adapter is of another base model" + base());
            }
        }
        List<ModelModule> targets = config.targets(modules);
        for (String name : this.modules.keySet()) {
            if (targets.stream().noneMatch(target -> target.name().equals(name))) {
                throw new FormatException(where + ": " + FILE_NAME + " has tensors for " + name + ", but "
                        + AdapterConfig.FILE_NAME + " does not target it, so PEFT would leave it out;"
                        + " the two files are of different adapters");
            }
        }
        for (ModelModule target : targets) {
            if (!this.modules.containsKey(target.name())) {
                throw new FormatException(where + ": " + AdapterConfig.FILE_NAME + " targets " + target.name()
                        + ", but " + FILE_NAME
                        + " has no tensors for it; the adapter is incomplete or of another base model" + base());
            }
        }
    }

    private String base() {
        return config.baseModel() == null ? "" : " (its config names " + config.baseModel() + ")";
    }

    /**
     * Writes the adapter. A directory that does not exist yet appears whole or not at all; in one that exists, each file is
     * replaced whole. Equal adapters give equal bytes.
     *
     * @throws FormatException if the disk is full
     */
    public void write(Path dir) throws IOException {
        Path target = dir.toAbsolutePath().normalize();
        if (Files.isDirectory(target)) {
            writeFiles(target);
            return;
        }
        AtomicDirectory.write(target, this::writeFiles);
    }

    private void writeFiles(Path dir) throws IOException {
        SafetensorsWriter.write(dir.resolve(FILE_NAME), tensors(), Map.of());
        AtomicFile.write(dir.resolve(AdapterConfig.FILE_NAME), config.toJson());
    }

    /** Returns the factors under the names that they have in the file: A, then B, of each module. */
    public List<NamedTensor> tensors() {
        List<NamedTensor> tensors = new ArrayList<>();
        modules.forEach((name, w) -> {
            long rank = w.rank();
            tensors.add(new NamedTensor(PREFIX + name + A, DType.F32, List.of(rank, w.inFeatures()), w.a()));
            tensors.add(new NamedTensor(PREFIX + name + B, DType.F32, List.of(w.outFeatures(), rank), w.b()));
        });
        return tensors;
    }

    /**
     * Returns the adapter whose update is this one's less another's, of twice the rank: A is [A; A₀] and B is [B, −B₀]. An adapter that
     * was trained on a base less another's update says so what it makes of the base itself, bit for bit the same factors. PEFT does the
     * same with {@code path_initial_model_for_weight_conversion}.
     *
     * @param other has the same config and modules
     * @param arena owns the factors
     */
    public PeftAdapter minus(PeftAdapter other, Arena arena) {
        Map<String, LoraWeights> differences = new LinkedHashMap<>();
        modules.forEach((name, w) -> {
            LoraWeights w0 = other.modules.get(name);
            if (w0 == null || w0.rank() != w.rank()) {
                throw new IllegalArgumentException("the other adapter has another " + name);
            }
            differences.put(name, w.minus(w0, arena));
        });
        return new PeftAdapter(config.withTwiceTheRank(), differences);
    }

    /**
     * Returns what {@link #minus} was made of: the adapter, and the one that was taken from it.
     *
     * @param of the config of both
     * @param arena owns the factors
     * @throws IllegalArgumentException if the ranks are not twice those of the config
     */
    public List<PeftAdapter> split(AdapterConfig of, Arena arena) {
        Map<String, LoraWeights> first = new LinkedHashMap<>();
        Map<String, LoraWeights> second = new LinkedHashMap<>();
        modules.forEach((name, w) -> {
            if (w.rank() != 2 * of.rank(name)) {
                throw new IllegalArgumentException(
                        "the rank of " + name + " is " + w.rank() + ", not twice " + of.rank(name));
            }
            first.put(name, w.half(false, arena));
            second.put(name, w.half(true, arena));
        });
        return List.of(new PeftAdapter(of, first), new PeftAdapter(of, second));
    }
}
