package io.lora4j.cli;

import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;
import picocli.CommandLine.ParseResult;
import tools.jackson.core.JacksonException;
import tools.jackson.core.type.TypeReference;
import tools.jackson.dataformat.yaml.YAMLMapper;

/**
 * A command whose options come from an {@link OptionTable}: as flags, {@code -} and {@code _} alike, and as the keys of the
 * YAML file that {@code --config} names. A flag wins over the file. Every command has {@code --json}.
 */
abstract class TableCommand {
    private static final String CONFIG = "--config";
    private static final String JSON = "--json";

    private final OptionTable table;
    private final String summary;
    private final @Nullable Option<?> positional;

    /** A command without positional parameters. */
    TableCommand(OptionTable table, String summary) {
        this(table, summary, null);
    }

    /**
     * A command.
     *
     * @param positional the option that a parameter without a name stands for; null = there is none
     */
    TableCommand(OptionTable table, String summary, @Nullable Option<?> positional) {
        this.table = table;
        this.summary = summary;
        this.positional = positional;
    }

    final String name() {
        return table.command();
    }

    final OptionTable table() {
        return table;
    }

    /**
     * Runs the command.
     *
     * @param json whether the result is to be one JSON document
     * @return the exit status
     */
    abstract int run(Settings settings, boolean json, Console console) throws IOException;

    final CommandSpec spec() {
        CommandSpec spec = CommandSpec.create().name(name()).mixinStandardHelpOptions(true);
        spec.usageMessage().description(escape(summary)).sortOptions(false).abbreviateSynopsis(true);
        for (Option<?> option : table.options()) {
            boolean flag = option.type().equals("true|false");
            boolean list = option.type().startsWith("NAMES") || option.type().endsWith("...");
            spec.addOption(OptionSpec.builder(spellings(option))
                    .paramLabel(option.type())
                    .type(list ? List.class : String.class)
                    .auxiliaryTypes(String.class)
                    .arity(flag ? "0..1" : option.type().startsWith("NAMES") ? "1..*" : "1")
                    .fallbackValue("true")
                    .description(escape(option.help() + " (" + option.describeDefault() + ")"))
                    .build());
        }
        if (positional != null) {
            spec.addPositional(PositionalParamSpec.builder()
                    .paramLabel(positional.type())
                    .type(String.class)
                    .arity("0..1")
                    .description("The same as --" + positional.name() + ".")
                    .build());
        }
        spec.addOption(OptionSpec.builder(CONFIG)
                .paramLabel("FILE")
                .type(Path.class)
                .description("YAML file with options by their names; flags win over it.")
                .build());
        spec.addOption(OptionSpec.builder(JSON)
                .type(boolean.class)
                .description("Print the result as one JSON document.")
                .build());
        return spec;
    }

    final int run(ParseResult parsed, Console console) throws IOException {
        Settings.Builder settings = Settings.builder(table);
        Path config = parsed.matchedOptionValue(CONFIG, (Path) null);
        if (config != null) {
            readConfig(config, settings);
        }
        for (Option<?> option : table.options()) {
            OptionSpec spec = parsed.matchedOption(spellings(option)[0]);
            if (spec != null) {
                Object value = spec.getValue();
                settings.put(option.name(), value instanceof List<?> list && list.size() == 1 ? list.getFirst() : value);
            }
        }
        if (positional != null && parsed.hasMatchedPositional(0)) {
            settings.put(positional.name(), parsed.matchedPositionalValue(0, ""));
        }
        boolean json = parsed.hasMatchedOption(JSON);
        int status = run(settings.build(), json, console);
        console.out().flush();
        return status;
    }

    private static void readConfig(Path file, Settings.Builder settings) throws IOException {
        Map<String, Object> values;
        try {
            values = new YAMLMapper().readValue(Files.readString(file), new TypeReference<Map<String, Object>>() {});
        } catch (NoSuchFileException e) {
            throw new OptionException("option config: no file " + file);
        } catch (JacksonException e) {
            throw new OptionException("option config: " + file + " is not a YAML map of options: " + e.getOriginalMessage()
                    + (e.getLocation() == null ? "" : " (line " + e.getLocation().getLineNr() + ")"));
        }
        if (values == null) {
            return;
        }
        for (Map.Entry<String, Object> entry : values.entrySet()) {
            if (entry.getValue() == null) {
                continue; // "key:" or "key: null" leaves the default
            }
            try {
                settings.put(entry.getKey(), entry.getValue());
            } catch (OptionException e) {
                throw new OptionException(file + ": " + e.getMessage());
            }
        }
    }

    private static String[] spellings(Option<?> option) {
        List<String> names = new ArrayList<>();
        List<String> keys = new ArrayList<>(option.aliases());
        keys.add(option.name());
        for (String key : keys) {
            names.add("--" + key);
            if (key.indexOf('_') >= 0) {
                names.add("--" + key.replace('_', '-'));
            }
        }
        return names.toArray(String[]::new);
    }

    private static String escape(String text) {
        return text.replace("%", "%%");
    }
}
