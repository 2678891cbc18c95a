package io.lora4j.formats;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/** The JSON of {@link AdapterConfig}. Reading refuses what would change the result; writing uses PEFT's oldest fields. */
final class AdapterConfigJson {
    /**
     * Fields that do not change what a stored adapter computes: how the file came about, what PEFT does at run time, and the
     * settings of variants that are off. {@code megatron_core} has a value even where Megatron is not used.
     */
    static final List<String> WITHOUT_EFFECT = List.of(
            "auto_mapping",
            "inference_mode",
            "peft_version",
            "runtime_config",
            "megatron_core",
            "qalora_group_size",
            "loftq_config",
            "eva_config",
            "corda_config",
            "lora_ga_config");

    /** Fields that change what the adapter computes or which tensors it has: fine as long as they are off. */
    static final List<String> NOT_SUPPORTED = List.of(
            "use_dora",
            "modules_to_save",
            "lora_bias",
            "layer_replication",
            "trainable_token_indices",
            "target_parameters",
            "alora_invocation_tokens",
            "use_qalora",
            "use_bdlora",
            "arrow_config",
            "kasa_config",
            "velora_config",
            "monteclora_config",
            "megatron_config",
            "fan_in_fan_out",
            "ensure_weight_tying");

    private AdapterConfigJson() {}

    static AdapterConfig read(Path file, ObjectNode json) throws FormatException {
        Fields f = Fields.of(file, json);
        String type = f.text("peft_type");
        if (!"LORA".equals(type)) {
            throw f.error(
                    "\"peft_type\" is " + (type == null ? "missing" : "\"" + type + "\"") + "; supported is \"LORA\"");
        }
        String task = f.text("task_type");
        if (task != null && !task.equals("CAUSAL_LM")) {
            throw f.error("\"task_type\" is \"" + task + "\"; supported is \"CAUSAL_LM\"");
        }
        String bias = f.text("bias");
        if (bias != null && !bias.equals("none")) {
            throw f.error("\"bias\" is \"" + bias + "\"; supported is \"none\"");
        }
        f.refuseUnlessOff(NOT_SUPPORTED.toArray(String[]::new));
        readInitialization(f);
        ModuleFilter targets = filter(f, file, "target_modules");
        if (targets == null) {
            throw f.error(
                    "\"target_modules\" is missing; expected a list of module names, a regular expression or \"all-linear\"");
        }
        ModuleFilter exclude = filter(f, file, "exclude_modules");
        if (exclude instanceof ModuleFilter.AllLinear) {
            throw f.error(
                    "\"exclude_modules\" is \"all-linear\", which PEFT takes for an expression that matches nothing;"
                            + " expected a list of module names or a regular expression");
        }
        List<Integer> layers = f.get("layers_to_transform") == null ? null : f.ids("layers_to_transform");
        List<String> layersPattern = layersPattern(f);
        requireList(f, targets, "layers_to_transform", layers);
        requireList(f, targets, "layers_pattern", layersPattern);
        if (layers == null && layersPattern != null && !layersPattern.isEmpty()) {
            throw f.error("\"layers_pattern\" is " + layersPattern + " without \"layers_to_transform\"; remove it");
        }
        AdapterConfig config;
        try {
            config = new AdapterConfig(
                    f.count("r", 8),
                    f.number("lora_alpha", 8),
                    f.number("lora_dropout", 0),
                    targets,
                    exclude,
                    ranks(f, file),
                    alphas(f, file),
                    f.flag("use_rslora", false),
                    layers,
                    layersPattern,
                    f.text("base_model_name_or_path"),
                    f.text("revision"),
                    task);
        } catch (IllegalArgumentException e) {
            throw new FormatException(file + ": " + e.getMessage(), e);
        }
        f.ignore(WITHOUT_EFFECT.toArray(String[]::new));
        f.refuseTheRest();
        return config;
    }

    /**
     * How the adapter began does not matter once its tensors are stored, except where the base was changed as well: PiSSA,
     * OLoRA, CorDA and LoftQ train against a base that is no longer the model on disk.
     */
    private static void readInitialization(Fields f) throws FormatException {
        JsonNode init = f.get("init_lora_weights");
        if (init == null || init.isBoolean()) {
            return;
        }
        String kind = init.isString() ? init.stringValue() : "";
        if (kind.equals("loftq")) {
            throw f.error("\"init_lora_weights\" is " + init
                    + ", whose adapter belongs to the base that LoftQ quantized and not"
                    + " to the one that it was made from; give that quantized base, and set \"init_lora_weights\" to true"
                    + " here, as PEFT needs it too");
        }
        if (kind.equals("olora") || kind.equals("corda") || kind.equals("lora_ga") || kind.startsWith("pissa")) {
            throw f.error(
                    "\"init_lora_weights\" is " + init + ", whose adapter belongs to a modified base model;"
                            + " convert it to plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion)");
        }
        if (!List.of("gaussian", "eva", "orthogonal").contains(kind)) {
            throw f.error(
                    "\"init_lora_weights\" is " + init
                            + ", which lora4j does not support; supported are true, false, \"gaussian\", \"eva\" and \"orthogonal\"");
        }
    }

    /** PEFT refuses these fields beside a {@code target_modules} that is not a list. */
    private static void requireList(Fields f, ModuleFilter targets, String name, @Nullable List<?> value)
            throws FormatException {
        if (value != null && !value.isEmpty() && !(targets instanceof ModuleFilter.Names)) {
            throw f.error("\"" + name + "\" is " + value
                    + ", which needs \"target_modules\" to be a list of names; list them, or remove it");
        }
    }

    private static @Nullable ModuleFilter filter(Fields f, Path file, String name) throws FormatException {
        JsonNode node = f.get(name);
        if (node != null && node.isString()) {
            return ModuleFilter.ofText(node.stringValue(), file + ": " + name);
        }
        List<String> names = f.texts(name);
        if (names == null || names.isEmpty()) {
            return null;
        }
        return new ModuleFilter.Names(names);
    }

    private static Map<String, Integer> ranks(Fields f, Path file) throws FormatException {
        Fields pattern = f.object("rank_pattern");
        Map<String, Integer> ranks = new LinkedHashMap<>();
        if (pattern != null) {
            for (String key : pattern.names()) {
                PythonRegex.compile(key, file + ": rank_pattern");
                ranks.put(key, pattern.count(key));
            }
        }
        return ranks;
    }

    private static Map<String, Double> alphas(Fields f, Path file) throws FormatException {
        Fields pattern = f.object("alpha_pattern");
        Map<String, Double> alphas = new LinkedHashMap<>();
        if (pattern != null) {
            for (String key : pattern.names()) {
                PythonRegex.compile(key, file + ": alpha_pattern");
                alphas.put(key, pattern.number(key));
            }
        }
        return alphas;
    }

    private static @Nullable List<String> layersPattern(Fields f) throws FormatException {
        JsonNode node = f.get("layers_pattern");
        return node != null && node.isString() ? List.of(node.stringValue()) : f.texts("layers_pattern");
    }

    static String write(AdapterConfig config) {
        Map<String, @Nullable Object> json = new TreeMap<>();
        // Patterns keep their order, because the first key that matches wins; everything else is sorted, as PEFT does.
        json.put("alpha_pattern", numbers(config.alphaPattern()));
        json.put("auto_mapping", null);
        json.put("base_model_name_or_path", config.baseModel());
        json.put("bias", "none");
        json.put("fan_in_fan_out", false);
        json.put("inference_mode", true);
        json.put("init_lora_weights", true);
        json.put("layer_replication", null);
        json.put("layers_pattern", config.layersPattern());
        json.put("layers_to_transform", config.layersToTransform());
        json.put("loftq_config", Map.of());
        json.put("lora_alpha", number(config.loraAlpha()));
        json.put("lora_dropout", config.loraDropout());
        json.put("megatron_config", null);
        json.put("megatron_core", "megatron.core");
        json.put("modules_to_save", null);
        json.put("peft_type", "LORA");
        json.put("r", config.rank());
        json.put("rank_pattern", config.rankPattern());
        json.put("revision", config.revision());
        json.put("target_modules", value(config.targetModules()));
        json.put("task_type", config.taskType());
        json.put("use_dora", false);
        json.put("use_rslora", config.useRslora());
        ModuleFilter exclude = config.excludeModules();
        if (exclude != null) {
            json.put("exclude_modules", value(exclude));
        }
        return new PythonJson(true, "  ", ",", ": ", false).write(json);
    }

    /** Returns a whole number without a fraction, as PEFT writes {@code lora_alpha}. */
    private static Number number(double value) {
        boolean whole = value == Math.rint(value) && Math.abs(value) < 1L << 53;
        return whole ? (Number) (long) value : (Number) value;
    }

    private static Map<String, Number> numbers(Map<String, Double> values) {
        Map<String, Number> numbers = new LinkedHashMap<>();
        values.forEach((key, value) -> numbers.put(key, number(value)));
        return numbers;
    }

    private static Object value(ModuleFilter filter) {
        return switch (filter) {
            case ModuleFilter.Names(List<String> names) -> {
                List<String> sorted = new ArrayList<>(names);
                Collections.sort(sorted);
                yield sorted;
            }
            case ModuleFilter.Regex(String source) -> source;
            case ModuleFilter.AllLinear() -> "all-linear";
        };
    }
}
