package io.lora4j.formats;

import java.util.List;
import java.util.Locale;

/**
 * How an adapter config names modules: a list of names or name endings, or one regular expression over whole names; the
 * words {@code all-linear} for every linear layer but the output head. Immutable.
 */
public sealed interface ModuleFilter {

    /** Returns whether the filter names a module. */
    boolean matches(ModelModule module);

    /**
     * Module names, each matching the module of that name and those whose name ends in {@code .name}.
     *
     * @param names the names or endings
     */
    record Names(List<String> names) implements ModuleFilter {
        /** Copies the list. */
        public Names {
            names = List.copyOf(names);
        }

        @Override
        public boolean matches(ModelModule module) {
            return names.stream().anyMatch(name -> matches(name, module.name()));
        }

        static boolean matches(String entry, String module) {
            return module.equals(entry) || module.endsWith("." + entry);
        }
    }

    /**
     * A regular expression of Python that must match the whole name.
     *
     * @param source the expression as it stands in the config
     */
    record Regex(String source) implements ModuleFilter {
        @Override
        public boolean matches(ModelModule module) {
            return compiled().fullMatch(module.name());
        }

        private PythonRegex compiled() {
            try {
                return PythonRegex.compile(source, "target_modules");
            } catch (FormatException e) {
                throw new IllegalArgumentException(e.getMessage(), e);
            }
        }
    }

    /** Every linear layer but the output head. */
    record AllLinear() implements ModuleFilter {
        @Override
        public boolean matches(ModelModule module) {
            return module.kind() == ModelModule.Kind.LINEAR;
        }
    }

    /**
     * Reads the text form of a filter, checked: {@code all-linear} or a regular expression.
     *
     * @param where begins the message of an error
     * @throws FormatException if the expression is invalid or has no equivalent in Java
     */
    static ModuleFilter ofText(String text, String where) throws FormatException {
        if (text.toLowerCase(Locale.ROOT).equals("all-linear")) {
            return new AllLinear();
        }
        PythonRegex.compile(text, where);
        return new Regex(text);
    }
}
