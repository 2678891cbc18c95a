package io.lora4j.train;

import java.util.List;
import java.util.Locale;

/**
 * An option of TRL, transformers or PEFT that lora4j knows and does not have. A value that changes nothing here is accepted, so
 * that a file of options written for TRL can be used; any other is refused with the reason. Immutable.
 *
 * @param name its name there
 * @param harmless values that change nothing, in lower case; empty if no value changes anything
 * @param why what lora4j does instead, for the message
 */
public record ForeignOption(String name, List<String> harmless, String why) {
    /** Copies the list. */
    public ForeignOption {
        harmless = List.copyOf(harmless);
    }

    /**
     * Checks that a value changes nothing.
     *
     * @param given text from a command line, or what a YAML parser made of it
     * @throws OptionException if it asks for something that is not done
     */
    public void requireHarmless(Object given) {
        String text = given.toString().toLowerCase(Locale.ROOT);
        if (!harmless.isEmpty() && !harmless.contains(text)) {
            throw new OptionException("option " + name + ": found " + given + ", which lora4j does not support: " + why
                    + "; remove the option"
                    + (harmless.getFirst().equals("none") ? "" : ", or set it to " + harmless.getFirst()));
        }
    }
}
