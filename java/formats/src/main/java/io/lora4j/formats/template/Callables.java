package io.lora4j.formats.template;

import java.util.List;
import java.util.Map;

/** What can be called, besides macros. */
final class Callables {
    private Callables() {}

    /** The arguments of a call, evaluated. */
    record Args(List<Object> positional, Map<String, Object> named) {
        static final Args NONE = new Args(List.of(), Map.of());

        int size() {
            return positional.size() + named.size();
        }

        /** Returns an argument by place or name, or {@code otherwise}. */
        Object get(int index, String name, Object otherwise) {
            return index < positional.size() ? positional.get(index) : named.getOrDefault(name, otherwise);
        }

        Object require(int index, String name, String function) {
            Object value = get(index, name, None.NONE);
            if (index >= positional.size() && !named.containsKey(name)) {
                throw new TemplateError("'" + function + "' needs an argument '" + name + "'");
            }
            return value;
        }

        /** Refuses arguments beyond those that a function knows. */
        void atMost(String function, String... names) {
            if (positional.size() > names.length) {
                throw new TemplateError(
                        "'" + function + "' takes at most " + names.length + " arguments, not " + positional.size());
            }
            for (String name : named.keySet()) {
                if (!List.of(names).contains(name)) {
                    throw new TemplateError("'" + function + "' has no argument '" + name + "' that is supported");
                }
            }
        }
    }

    /** A function of the environment. */
    @FunctionalInterface
    interface Function {
        Object call(Args args);
    }

    /** A method taken from a value: {@code x.strip}. */
    record BoundMethod(Object self, String name) {}
}
