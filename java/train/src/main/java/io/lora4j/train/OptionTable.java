package io.lora4j.train;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * The options of a command, in the order in which help shows them, found by any of their spellings. Immutable.
 *
 * @param command the command they belong to, for messages
 * @param options the options
 * @param foreign options of other tools that users may bring
 */
public record OptionTable(String command, List<Option<?>> options, List<ForeignOption> foreign) {

    /** A table of a command that no other tool has. */
    public OptionTable(String command, List<Option<?>> options) {
        this(command, options, List.of());
    }

    /** Copies the lists and refuses two options of one name. */
    public OptionTable {
        options = List.copyOf(options);
        foreign = List.copyOf(foreign);
        long names = options.stream().map(Option::name).distinct().count();
        if (names != options.size()) {
            throw new IllegalArgumentException("two options of " + command + " have the same name");
        }
    }

    /**
     * Finds an option by its name or a short name; upper and lower case, {@code -} and {@code _} are the same, leading dashes
     * are ignored.
     *
     * @throws OptionException if there is none; the message has the nearest name
     */
    public Option<?> find(String key) {
        String wanted = normal(key);
        Option<?> option = byName().get(wanted);
        if (option == null) {
            String nearest = nearest(wanted);
            throw new OptionException("unknown option " + key + " of " + command
                    + (nearest.isEmpty() ? "" : "; did you mean " + nearest + "?") + " (see lora4j " + command
                    + " --help)");
        }
        return option;
    }

    /** Finds an option of other tools by its name, spelled as in {@link #find}; one of the command's own comes first. */
    public Optional<ForeignOption> findForeign(String key) {
        String wanted = normal(key);
        return byName().containsKey(wanted)
                ? Optional.empty()
                : foreign.stream().filter(other -> other.name().equals(wanted)).findFirst();
    }

    private Map<String, Option<?>> byName() {
        Map<String, Option<?>> names = new LinkedHashMap<>();
        for (Option<?> option : options) {
            names.put(option.name(), option);
            option.aliases().forEach(alias -> names.put(alias, option));
        }
        return names;
    }

    private String nearest(String wanted) {
        String best = "";
        int bestDistance = wanted.length() + 1;
        for (String name : byName().keySet()) {
            int distance = distance(wanted, name);
            if (distance < bestDistance) {
                bestDistance = distance;
                best = name;
            }
        }
        return best;
    }

    private static String normal(String key) {
        return key.replaceFirst("^-{1,2}", "").replace('-', '_').toLowerCase(Locale.ROOT);
    }

    /**
     * Returns an edit distance in which a letter left out costs half of one that is wrong or too many: users shorten long names.
     */
    private static int distance(String typed, String name) {
        int[] row = new int[name.length() + 1];
        for (int j = 0; j <= name.length(); j++) {
            row[j] = j;
        }
        for (int i = 1; i <= typed.length(); i++) {
            int diagonal = row[0];
            row[0] = 2 * i;
            for (int j = 1; j <= name.length(); j++) {
                int replaced = diagonal + (typed.charAt(i - 1) == name.charAt(j - 1) ? 0 : 2);
                diagonal = row[j];
                row[j] = Math.min(replaced, Math.min(row[j] + 2, row[j - 1] + 1));
            }
        }
        return row[name.length()];
    }
}
