package io.lora4j.train;

import io.lora4j.train.model.OptimizerState;

/** The optimizers of {@code optim}, by transformers' names. */
public enum Optimizer {
    /** AdamW with moments in float32; {@code adamw_torch_fused} is the same here. */
    ADAMW_TORCH(OptimizerState.FLOAT),
    /** AdamW with block-wise moments in 8 bits, bitsandbytes' {@code AdamW8bit}; {@code adamw_bnb_8bit} is the same. */
    ADAMW_8BIT(OptimizerState.BLOCKWISE_8BIT);

    private final OptimizerState state;

    Optimizer(OptimizerState state) {
        this.state = state;
    }

    /** Returns how it holds its moments. */
    OptimizerState state() {
        return state;
    }

    static Optimizer read(Object given) {
        return switch (given.toString()) {
            case "adamw_torch", "adamw_torch_fused" -> ADAMW_TORCH;
            case "adamw_8bit", "adamw_bnb_8bit" -> ADAMW_8BIT;
            default ->
                throw new IllegalArgumentException(
                        "adamw_torch (adamw_torch_fused is the same) or adamw_8bit (adamw_bnb_8bit is the same)");
        };
    }
}
