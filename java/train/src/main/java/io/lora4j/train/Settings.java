package io.lora4j.train;

import io.lora4j.formats.ModuleFilter;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The values that a user gave for the options of a command, over their defaults. Immutable. */
public final class Settings {
    private final OptionTable table;
    private final Map<String, Object> values;

    private Settings(OptionTable table, Map<String, Object> values) {
        this.table = table;
        this.values = values;
    }

    /** Returns a builder without any value. */
    public static Builder builder(OptionTable table) {
        return new Builder(table);
    }

    /** Returns the options. */
    public OptionTable table() {
        return table;
    }

    /**
     * Returns the value given, or the default.
     *
     * @throws OptionException if there is neither
     */
    public <T> T get(Option<T> option) {
        return find(option)
                .orElseThrow(() -> new OptionException("option " + option.name() + " is missing: " + option.help()));
    }

    /** Returns the value given, or the default, or nothing. */
    public <T> Optional<T> find(Option<T> option) {
        Object value = values.get(option.name());
        // The builder put it there through the same option, so it has the option's type.
        @SuppressWarnings("unchecked")
        T given = (T) value;
        return given != null ? Optional.of(given) : Optional.ofNullable(option.defaultValue());
    }

    /** Returns whether the user gave a value. */
    public boolean isSet(Option<?> option) {
        return values.containsKey(option.name());
    }

    /** Returns the names of the options that the user gave, in the order of the table. */
    public List<String> given() {
        return table.options().stream().filter(this::isSet).map(Option::name).toList();
    }

    /** Returns every option that has a value, as users write it, in the order of the table. */
    public Map<String, String> toMap() {
        Map<String, String> map = new LinkedHashMap<>();
        for (Option<?> option : table.options()) {
            find(option).ifPresent(value -> map.put(option.name(), Option.show(value)));
        }
        return map;
    }

    /** Returns a builder that starts with these values. */
    public Builder toBuilder() {
        Builder builder = new Builder(table);
        builder.values.putAll(values);
        return builder;
    }

    /** Collects values; a later one replaces an earlier one. */
    public static final class Builder {
        private final OptionTable table;
        private final Map<String, Object> values = new LinkedHashMap<>();

        private Builder(OptionTable table) {
            this.table = table;
        }

        /** Sets a value. */
        public <T> Builder set(Option<T> option, T value) {
            if (!table.find(option.name()).equals(option)) {
                throw new IllegalArgumentException(option.name() + " is not an option of " + table.command());
            }
            // Read again what it shows, so that a value set in Java is checked like one that was typed.
            Object checked = switch (value) {
                case ModuleFilter filter -> filter;
                case Map<?, ?> map -> option.read(map);
                case Collection<?> list -> option.read(list);
                default -> option.read(Option.show(value));
            };
            values.put(option.name(), checked);
            return this;
        }

        /**
         * Sets a value by any spelling of its option's name. An option of another tool is only checked: see {@link ForeignOption}.
         *
         * @throws OptionException if there is no such option or the value is not one of it
         */
        public Builder put(String key, Object value) {
            Optional<ForeignOption> foreign = table.findForeign(key);
            if (foreign.isPresent()) {
                foreign.get().requireHarmless(value);
                return this;
            }
            Option<?> option = table.find(key);
            values.put(option.name(), option.read(value));
            return this;
        }

        /**
         * Does what {@code null} in a YAML file asks for, which for most options is nothing.
         *
         * @throws OptionException if there is no such option
         */
        public Builder putNull(String key) {
            if (table.findForeign(key).isEmpty()) {
                Option<?> option = table.find(key);
                if (option.whenNull() != null) {
                    values.put(option.name(), option.whenNull());
                }
            }
            return this;
        }

        /** Returns the settings. */
        public Settings build() {
            return new Settings(table, Map.copyOf(values));
        }
    }
}
