package io.lora4j.train;

import io.lora4j.train.model.LoraInit;

/** How a new adapter begins: the options that PEFT calls {@code init_lora_weights} and {@code loftq_config}. */
public final class InitOptions {
    public static final Option<LoraInit> INIT_LORA_WEIGHTS = Option.of(
            "init_lora_weights",
            "true|pissa|pissa_niter_N|loftq",
            LoraInit.DEFAULT,
            "true: A begins uniform and B zero. pissa: both begin with the largest singular values of the weight, which are taken"
                    + " out of the base; the adapter is written for the base as it is, with twice the rank. pissa_niter_N: the"
                    + " same from N rounds of a rougher decomposition, as PEFT has it; it is not faster. loftq, with"
                    + " load_in_4bit: both begin with what quantization loses. With load_in_4bit the base that the adapter"
                    + " belongs to is written beside it, in base_model of output_dir.",
            given -> LoraInit.of(given.toString()));
    public static final Option<Integer> LOFTQ_ITER = Option.ofInt(
            "loftq_iter",
            1,
            1,
            "With loftq: how often it quantizes what the adapter does not say, and decomposes what that loses.");

    private InitOptions() {}

    /** Returns how a new adapter begins. */
    static LoraInit init(Settings settings) {
        LoraInit init = settings.get(INIT_LORA_WEIGHTS);
        return init.kind() == LoraInit.Kind.LOFTQ ? new LoraInit(LoraInit.Kind.LOFTQ, settings.get(LOFTQ_ITER)) : init;
    }

    /** Returns whether a run trains on a quantized base of its own, which is written with its adapter. */
    static boolean writesBase(Settings settings) {
        return init(settings).changesBase() && settings.get(LoadOptions.LOAD_IN_4BIT);
    }

    /**
     * Checks that the options go together.
     *
     * @throws OptionException if they do not
     */
    static void check(Settings settings) {
        boolean loftq = settings.get(INIT_LORA_WEIGHTS).kind() == LoraInit.Kind.LOFTQ;
        if (loftq && !settings.get(LoadOptions.LOAD_IN_4BIT)) {
            throw new OptionException(
                    "option init_lora_weights: found loftq, which makes up for what quantization loses;"
                            + " set load_in_4bit to true with it, or use pissa");
        }
        if (!loftq && settings.isSet(LOFTQ_ITER)) {
            throw new OptionException(
                    "option loftq_iter: has no effect without init_lora_weights loftq; set that, or remove this one");
        }
    }
}
