package io.lora4j.cli;

import io.lora4j.formats.InputFile;
import io.lora4j.train.ForeignOption;
import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;
import picocli.CommandLine.ParseResult;
import tools.jackson.core.JacksonException;
import tools.jackson.core.StreamReadFeature;
import tools.jackson.core.type.TypeReference;
import tools.jackson.databind.JsonNode;
import tools.jackson.dataformat.yaml.YAMLFactory;
import tools.jackson.dataformat.yaml.YAMLMapper;

/**
 * A command whose options come from an {@link OptionTable}: as flags, {@code -} and {@code _} alike, and as the keys of the
 * YAML file that {@code --config} names. A flag wins over the file. Every command has {@code --json}.
 */
abstract class TableCommand {
    private static final YAMLMapper YAML = new YAMLMapper(YAMLFactory.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build());
    private static final String CONFIG = "--config";
    private static final String JSON = "--json";
    private static final String[] FOOTER = {
        "",
        "Names may be written with _ or -. A flag without a value means true.",
        "Exit status: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C."
    };

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
        CommandSpec spec = CommandSpec.create().name(name());
        spec.usageMessage()
                .description(escape(summary))
                .sortOptions(false)
                .abbreviateSynopsis(true)
                .footer(FOOTER);
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
        for (ForeignOption option : table.foreign()) {
            if (table.findForeign(option.name()).isPresent()) {
                spec.addOption(OptionSpec.builder("--" + option.name())
                        .type(String.class)
                        .arity("0..1")
                        .fallbackValue("true")
                        .hidden(true)
                        .build());
            }
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
        spec.addOption(OptionSpec.builder("-h", "--help")
                .type(boolean.class)
                .usageHelp(true)
                .description("Show this help.")
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
                settings.put(
                        option.name(), value instanceof List<?> list && list.size() == 1 ? list.getFirst() : value);
            }
        }
        for (ForeignOption option : table.foreign()) {
            OptionSpec spec = parsed.matchedOption("--" + option.name());
            if (spec != null) {
                settings.put(option.name(), spec.getValue());
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

    private void readConfig(Path file, Settings.Builder settings) throws IOException {
        JsonNode tree;
        try {
            tree = YAML.readTree(TextFile.read(file));
        } catch (JacksonException e) {
            throw new OptionException(
                    file + (e.getLocation() == null ? "" : ":" + e.getLocation().getLineNr()) + ": is not YAML: "
                            + InputFile.jsonProblem(e));
        }
        if (tree == null || tree.isMissingNode() || tree.isNull()) {
            return; // An empty file, or one of comments only
        }
        if (!tree.isObject()) {
            throw new OptionException(
                    file + ": holds a YAML " + tree.getNodeType().name().toLowerCase(Locale.ROOT)
                            + "; expected options by their names, such as lora_r: 16");
        }
        Map<String, Object> values = YAML.convertValue(tree, new TypeReference<Map<String, Object>>() {});
        Map<String, String> keys = new HashMap<>();
        for (Map.Entry<String, Object> entry : values.entrySet()) {
            String key = entry.getKey();
            try {
                if (entry.getValue() == null) {
                    settings.putNull(key);
                } else {
                    settings.put(key, entry.getValue());
                }
                String name = table.findForeign(key)
                        .map(ForeignOption::name)
                        .orElseGet(() -> table.find(key).name());
                String other = keys.put(name, key);
                if (other != null) {
                    throw new OptionException(other + " and " + key + " are the same option; remove one");
                }
            } catch (OptionException e) {
                throw new OptionException(file + ": " + e.getMessage());
            }
        }
    }

    /** Returns the arguments with every option of the table spelled as the table does. */
    final String[] normalize(String[] args) {
        return Arrays.stream(args).map(this::normalize).toArray(String[]::new);
    }

    private String normalize(String arg) {
        if (!arg.startsWith("--") || arg.length() == 2) {
            return arg;
        }
        int end = arg.indexOf('=') < 0 ? arg.length() : arg.indexOf('=');
        String key = arg.substring(0, end);
        Optional<ForeignOption> foreign = table.findForeign(key);
        try {
            return "--"
                    + (foreign.isPresent()
                            ? foreign.get().name()
                            : table.find(key).name()) + arg.substring(end);
        } catch (OptionException e) {
            return arg; // --config, --json, --help, a value, or a mistake that the parser reports
        }
    }

    private static String[] spellings(Option<?> option) {
        List<String> names = new ArrayList<>();
        List<String> keys = new ArrayList<>(option.aliases());
        keys.add(option.name());
        for (String key : keys) {
            names.add("--" + key);
        }
        return names.toArray(String[]::new);
    }

    private static String escape(String text) {
        return text.replace("%", "%%");
    }
}
