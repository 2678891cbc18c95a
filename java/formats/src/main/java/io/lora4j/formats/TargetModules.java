package io.lora4j.formats;

import io.lora4j.formats.ModelModule.Kind;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Matcher;
import org.jspecify.annotations.Nullable;

/**
 * PEFT's rules of which module gets an adapter, and a report of what matched nothing: PEFT lets a misspelt entry pass as long
 * as another matches, and the run trains less than was asked for. {@code all-linear} with {@code layers_to_transform} is not in
 * PEFT, which wants a list there; it stands for the list of the linear layers' names, and is written as that.
 *
 * <p>Source: PEFT's {@code check_target_module_exists} and {@code get_pattern_key}.
 */
final class TargetModules {
    private static final String FIELD = "adapter config";

    private TargetModules() {}

    static boolean matches(AdapterConfig config, ModelModule module) {
        ModuleFilter exclude = config.excludeModules();
        if (exclude != null && exclude.matches(module)) {
            return false;
        }
        ModuleFilter target = config.targetModules();
        if (!target.matches(module)) {
            return false;
        }
        List<Integer> layers = config.layersToTransform();
        if (layers == null || layers.isEmpty() || target instanceof ModuleFilter.Regex) {
            return true;
        }
        return layers.contains(layerIndex(config, module.name()));
    }

    /** Returns the index of the block that a module lies in, or -1. */
    private static int layerIndex(AdapterConfig config, String module) {
        List<String> patterns = config.layersPattern();
        if (patterns == null || patterns.isEmpty()) {
            return index("(?:.*?)\\.[^.]*\\.(?P<idx>\\d+)\\.", module);
        }
        for (String pattern : patterns) {
            int index = index("(?:^|.*?\\.)" + pattern + "\\.(?P<idx>\\d+)\\.", module);
            if (index >= 0) {
                return index;
            }
        }
        return -1;
    }

    private static int index(String pattern, String module) {
        Matcher matcher = compile(pattern).matcher(module);
        return matcher.lookingAt() ? Integer.parseInt(matcher.group("idx")) : -1;
    }

    /** Returns the first key that names the module's end, or null. */
    static @Nullable String patternKey(Collection<String> keys, String module) {
        for (String key : keys) {
            if (compile("(?:.*\\.)?(?:" + key + ")$").matcher(module).lookingAt()) {
                return key;
            }
        }
        return null;
    }

    /** Refuses a key that is no regular expression, as the user wrote it: what is compiled has more around it. */
    private static void requireRegex(String field, Set<String> keys) throws FormatException {
        for (String key : keys) {
            PythonRegex.compile(key, field + " key");
        }
    }

    private static PythonRegex compile(String pattern) {
        try {
            return PythonRegex.compile(pattern, FIELD);
        } catch (FormatException e) {
            throw new IllegalArgumentException(e.getMessage(), e);
        }
    }

    static List<ModelModule> resolve(AdapterConfig config, Collection<ModelModule> modules) throws FormatException {
        requireRegex("rank_pattern", config.rankPattern().keySet());
        requireRegex("alpha_pattern", config.alphaPattern().keySet());
        List<ModelModule> targets =
                modules.stream().filter(module -> matches(config, module)).toList();
        for (ModelModule target : targets) {
            if (target.kind() != Kind.LINEAR && target.kind() != Kind.HEAD) {
                throw new FormatException("target_modules " + show(config.targetModules()) + " matches " + target.name()
                        + ", which is " + describe(target.kind()) + "; LoRA is for linear layers: " + endings(modules));
            }
        }
        if (targets.isEmpty()) {
            throw new FormatException(
                    "target_modules " + show(config.targetModules()) + " matches no module of the model"
                            + (config.excludeModules() != null || config.layersToTransform() != null
                                    ? " once exclude_modules and layers_to_transform are applied"
                                    : "")
                            + "; its linear layers are " + endings(modules) + " (or \"all-linear\")");
        }
        requireExcluded(config, modules);
        List<String> idle = new ArrayList<>();
        if (config.targetModules() instanceof ModuleFilter.Names(List<String> names)) {
            names.stream()
                    .filter(name -> targets.stream().noneMatch(t -> ModuleFilter.Names.matches(name, t.name())))
                    .forEach(name -> idle.add("target_modules entry \"" + name + "\""));
        }
        addIdle(idle, "rank_pattern", config.rankPattern().keySet(), targets);
        addIdle(idle, "alpha_pattern", config.alphaPattern().keySet(), targets);
        addIdleLayers(idle, config, targets);
        if (!idle.isEmpty()) {
            throw new FormatException(String.join(", ", idle) + (idle.size() == 1 ? " matches" : " match")
                    + " none of the modules that get an adapter; the model's linear layers are " + endings(modules)
                    + "; correct or remove " + (idle.size() == 1 ? "it" : "them"));
        }
        return targets;
    }

    /** An entry that names a module without an adapter may be there to be sure; one that names nothing is misspelt. */
    private static void requireExcluded(AdapterConfig config, Collection<ModelModule> modules) throws FormatException {
        if (config.excludeModules() instanceof ModuleFilter.Names(List<String> names)) {
            for (String name : names) {
                if (modules.stream().noneMatch(m -> ModuleFilter.Names.matches(name, m.name()))) {
                    throw new FormatException("exclude_modules entry \"" + name
                            + "\" matches no module of the model; its linear layers are " + endings(modules)
                            + "; correct or remove it");
                }
            }
        }
    }

    private static void addIdle(List<String> idle, String field, Set<String> keys, List<ModelModule> targets) {
        Set<String> used = new LinkedHashSet<>();
        for (ModelModule target : targets) {
            String key = patternKey(keys, target.name());
            if (key != null) {
                used.add(key);
            }
        }
        keys.stream().filter(key -> !used.contains(key)).forEach(key -> idle.add(field + " key \"" + key + "\""));
    }

    private static void addIdleLayers(List<String> idle, AdapterConfig config, List<ModelModule> targets) {
        List<Integer> layers = config.layersToTransform();
        if (layers != null && !(config.targetModules() instanceof ModuleFilter.Regex)) {
            for (int layer : layers) {
                if (targets.stream().noneMatch(target -> layerIndex(config, target.name()) == layer)) {
                    idle.add("layers_to_transform entry " + layer);
                }
            }
        }
    }

    private static String describe(Kind kind) {
        return switch (kind) {
            case EMBEDDING -> "the embedding (LoRA on embeddings is not supported)";
            case NORM -> "a normalization";
            default -> "not a layer with weights";
        };
    }

    private static String show(ModuleFilter filter) {
        return switch (filter) {
            case ModuleFilter.Names(List<String> names) -> names.toString();
            case ModuleFilter.Regex(String source) -> "\"" + source + "\"";
            case ModuleFilter.AllLinear() -> "\"all-linear\"";
        };
    }

    /** Lists what can be targeted: the last parts of the linear layers' names, and one whole name as an example. */
    private static String endings(Collection<ModelModule> modules) {
        Set<String> endings = new LinkedHashSet<>();
        String example = "";
        for (ModelModule module : modules) {
            if (module.kind() == Kind.LINEAR || module.kind() == Kind.HEAD) {
                example = example.isEmpty() ? module.name() : example;
                endings.add(module.name().substring(module.name().lastIndexOf('.') + 1));
            }
        }
        return String.join(", ", endings) + " (as in " + example + ")";
    }
}
