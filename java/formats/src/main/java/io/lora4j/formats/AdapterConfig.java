package io.lora4j.formats;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A LoRA adapter's {@code adapter_config.json}, as PEFT writes and reads it. Module names are those of the base model, as in
 * {@link ModelConfig#modules}. Immutable.
 *
 * @param rank r, the rank of modules that no pattern names
 * @param loraAlpha lora_alpha of modules that no pattern names; the update is scaled by alpha/r, or alpha/√r with rsLoRA
 * @param loraDropout dropout of the adapter's input in training, 0 ≤ p &lt; 1
 * @param targetModules the modules that get an adapter
 * @param excludeModules modules that get none although {@code targetModules} names them; null if there are none
 * @param rankPattern rank by name ending or regular expression; the first key that matches wins
 * @param alphaPattern lora_alpha by name ending or regular expression; the first key that matches wins
 * @param useRslora whether the update is scaled by alpha/√r
 * @param layersToTransform indices of the only layers that get an adapter, with a list of target names; null for all
 * @param layersPattern names of the layer list, for models where it cannot be guessed; null to guess
 * @param baseModel {@code base_model_name_or_path}, for the reader's information
 * @param revision {@code revision} of the base model on the Hugging Face Hub, likewise; null if nobody named one
 * @param taskType {@code task_type}: CAUSAL_LM, or null in minimal configs
 */
public record AdapterConfig(
        int rank,
        double loraAlpha,
        double loraDropout,
        ModuleFilter targetModules,
        @Nullable ModuleFilter excludeModules,
        Map<String, Integer> rankPattern,
        Map<String, Double> alphaPattern,
        boolean useRslora,
        @Nullable List<Integer> layersToTransform,
        @Nullable List<String> layersPattern,
        @Nullable String baseModel,
        @Nullable String revision,
        @Nullable String taskType) {

    /** The name of the file. */
    public static final String FILE_NAME = "adapter_config.json";

    /** Checks the numbers and copies the collections, keeping their order. */
    public AdapterConfig {
        if (rank <= 0 || rankPattern.values().stream().anyMatch(r -> r <= 0)) {
            throw new IllegalArgumentException("ranks must be positive: r " + rank + ", rank_pattern " + rankPattern);
        }
        if (!(loraDropout >= 0 && loraDropout < 1)) {
            throw new IllegalArgumentException("lora_dropout " + loraDropout + " must be at least 0 and below 1");
        }
        rankPattern = Collections.unmodifiableMap(new LinkedHashMap<>(rankPattern));
        alphaPattern = Collections.unmodifiableMap(new LinkedHashMap<>(alphaPattern));
        layersToTransform = layersToTransform == null ? null : List.copyOf(layersToTransform);
        layersPattern = layersPattern == null ? null : List.copyOf(layersPattern);
    }

    /** Returns a config with the given essentials, no patterns and no dropout. */
    public static AdapterConfig of(int rank, double loraAlpha, ModuleFilter targetModules) {
        return new AdapterConfig(
                rank,
                loraAlpha,
                0,
                targetModules,
                null,
                Map.of(),
                Map.of(),
                false,
                null,
                null,
                null,
                null,
                "CAUSAL_LM");
    }

    /**
     * Reads a config.
     *
     * @param fileOrDir {@code adapter_config.json} or the adapter's directory
     * @throws FormatException if it is missing, invalid, or asks for a feature that is not supported
     */
    public static AdapterConfig read(Path fileOrDir) throws IOException {
        Path file = Files.isDirectory(fileOrDir) ? fileOrDir.resolve(FILE_NAME) : fileOrDir;
        return AdapterConfigJson.read(file, Json.readObject(file));
    }

    /** Returns the file's bytes: keys sorted, two spaces, only the fields that every PEFT of the last years knows. */
    public byte[] toJson() {
        return AdapterConfigJson.write(this).getBytes(StandardCharsets.UTF_8);
    }

    /** Returns a copy with another target filter, for example the list that {@code all-linear} came to. */
    public AdapterConfig withTargetModules(ModuleFilter targets) {
        return new AdapterConfig(
                rank,
                loraAlpha,
                loraDropout,
                targets,
                excludeModules,
                rankPattern,
                alphaPattern,
                useRslora,
                layersToTransform,
                layersPattern,
                baseModel,
                revision,
                taskType);
    }

    /** Returns a copy with another dropout. */
    public AdapterConfig withLoraDropout(double dropout) {
        return new AdapterConfig(
                rank,
                loraAlpha,
                dropout,
                targetModules,
                excludeModules,
                rankPattern,
                alphaPattern,
                useRslora,
                layersToTransform,
                layersPattern,
                baseModel,
                revision,
                taskType);
    }

    /** Returns a copy with another {@code base_model_name_or_path} and {@code revision}. */
    public AdapterConfig withBaseModel(@Nullable String name, @Nullable String revisionOfIt) {
        return new AdapterConfig(
                rank,
                loraAlpha,
                loraDropout,
                targetModules,
                excludeModules,
                rankPattern,
                alphaPattern,
                useRslora,
                layersToTransform,
                layersPattern,
                name,
                revisionOfIt,
                taskType);
    }

    /**
     * Returns a copy of twice every rank, with lora_alphas at which every module keeps its scaling: what an adapter needs that says
     * the difference of two of this config.
     */
    AdapterConfig withTwiceTheRank() {
        double factor = useRslora ? Math.sqrt(2) : 2;
        Map<String, Integer> ranks = new LinkedHashMap<>();
        rankPattern.forEach((key, r) -> ranks.put(key, 2 * r));
        Map<String, Double> alphas = new LinkedHashMap<>();
        alphaPattern.forEach((key, alpha) -> alphas.put(key, factor * alpha));
        return new AdapterConfig(
                2 * rank,
                factor * loraAlpha,
                loraDropout,
                targetModules,
                excludeModules,
                ranks,
                alphas,
                useRslora,
                layersToTransform,
                layersPattern,
                baseModel,
                revision,
                taskType);
    }

    /** Returns whether the adapter covers a module. */
    public boolean matches(ModelModule module) {
        return TargetModules.matches(this, module);
    }

    /** Returns the rank of a module's adapter. */
    public int rank(String module) {
        String key = TargetModules.patternKey(rankPattern.keySet(), module);
        return key == null ? rank : rankPattern.getOrDefault(key, rank);
    }

    /** Returns lora_alpha of a module's adapter. */
    public double alpha(String module) {
        String key = TargetModules.patternKey(alphaPattern.keySet(), module);
        return key == null ? loraAlpha : alphaPattern.getOrDefault(key, loraAlpha);
    }

    /** Returns the factor of a module's update: alpha/r, or alpha/√r with rsLoRA. */
    public double scaling(String module) {
        int r = rank(module);
        return alpha(module) / (useRslora ? Math.sqrt(r) : r);
    }

    /**
     * Returns the linear layers of a model that get an adapter, in the order of the forward pass.
     *
     * @param modules the model's modules, as {@link ModelConfig#modules} gives them
     * @throws FormatException if nothing matches, an entry or pattern matches nothing, or something matches that is not a
     *     linear layer; the message lists what there is
     */
    public List<ModelModule> targets(Map<String, ModelModule> modules) throws FormatException {
        try {
            return TargetModules.resolve(this, modules.values());
        } catch (IllegalArgumentException e) {
            // A pattern that is invalid, or that takes too long to match.
            throw new FormatException(String.valueOf(e.getMessage()), e);
        }
    }
}
