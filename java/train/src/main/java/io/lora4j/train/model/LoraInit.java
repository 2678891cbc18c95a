package io.lora4j.train.model;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * How a new adapter begins: PEFT's {@code init_lora_weights}. Immutable.
 *
 * @param kind the method
 * @param iterations of {@link Kind#PISSA}, the rounds of a rough decomposition, 0 for an exact one; of {@link Kind#LOFTQ}, how often it
 *     quantizes
 */
public record LoraInit(Kind kind, int iterations) {
    /** A uniform, B zero: the adapter changes nothing yet. */
    public static final LoraInit DEFAULT = new LoraInit(Kind.DEFAULT, 0);

    private static final Pattern PISSA = Pattern.compile("pissa(?:_niter_(\\d{1,4}))?");

    /** Methods. */
    public enum Kind {
        /** A uniform, B zero. */
        DEFAULT,
        /**
         * The largest singular values and vectors of the weight, which are taken out of the base (Meng, Wang and Zhang 2024,
         * arXiv:2404.02948).
         */
        PISSA,
        /**
         * The largest singular values and vectors of what quantization loses, in turns with quantizing what the adapter does not say (Li
         * et al. 2023, arXiv:2310.08659).
         */
        LOFTQ
    }

    /**
     * Reads PEFT's name of a method: {@code true}, {@code pissa}, {@code pissa_niter_N} or {@code loftq}, which quantizes once.
     *
     * @throws IllegalArgumentException if it is none of them
     */
    public static LoraInit of(String name) {
        Matcher pissa = PISSA.matcher(name);
        if (pissa.matches()) {
            return new LoraInit(Kind.PISSA, pissa.group(1) == null ? 0 : Integer.parseInt(pissa.group(1)));
        }
        return switch (name) {
            case "true" -> DEFAULT;
            case "loftq" -> new LoraInit(Kind.LOFTQ, 1);
            default -> throw new IllegalArgumentException("true, pissa, pissa_niter_N or loftq");
        };
    }

    /** Returns whether the base is changed too. */
    public boolean changesBase() {
        return kind != Kind.DEFAULT;
    }

    /** Returns PEFT's name. */
    @Override
    public String toString() {
        return switch (kind) {
            case DEFAULT -> "true";
            case PISSA -> iterations == 0 ? "pissa" : "pissa_niter_" + iterations;
            case LOFTQ -> "loftq";
        };
    }
}
