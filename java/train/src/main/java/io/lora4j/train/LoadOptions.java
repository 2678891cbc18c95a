package io.lora4j.train;

import io.lora4j.train.model.FourBit;
import java.util.List;
import java.util.Optional;

/** The options of every command that loads a model: in which form its weights are held. */
public final class LoadOptions {
    public static final Option<Boolean> LOAD_IN_4BIT = Option.ofBoolean(
            "load_in_4bit",
            false,
            "QLoRA: quantize the linear layers of a dense model to 4 bits while it is loaded, as bitsandbytes does. Not for"
                    + " models that are quantized already; the file is only read.");
    public static final Option<FourBit.Type> BNB_4BIT_QUANT_TYPE = Option.ofEnum(
            "bnb_4bit_quant_type", FourBit.Type.class, FourBit.Type.NF4, "The code book of load_in_4bit.");
    public static final Option<Boolean> BNB_4BIT_USE_DOUBLE_QUANT = Option.ofBoolean(
                    "bnb_4bit_use_double_quant",
                    false,
                    "With load_in_4bit: quantize the scales of the blocks too; 4.13 bits a weight instead of 4.5.")
            .alias("use_bnb_nested_quant");

    private LoadOptions() {}

    /**
     * Returns how a dense model is to be quantized, if it is.
     *
     * @throws OptionException if an option of load_in_4bit is given without it
     */
    public static Optional<FourBit> fourBit(Settings settings) {
        if (settings.get(LOAD_IN_4BIT)) {
            return Optional.of(new FourBit(settings.get(BNB_4BIT_QUANT_TYPE), settings.get(BNB_4BIT_USE_DOUBLE_QUANT)));
        }
        for (Option<?> option : List.of(BNB_4BIT_QUANT_TYPE, BNB_4BIT_USE_DOUBLE_QUANT)) {
            if (settings.isSet(option)) {
                throw new OptionException("option " + option.name() + ": has no effect without load_in_4bit; set that"
                        + " to true, or remove this one");
            }
        }
        return Optional.empty();
    }
}
