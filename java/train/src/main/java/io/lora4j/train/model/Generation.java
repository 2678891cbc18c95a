package io.lora4j.train.model;

import java.util.List;

/**
 * What was generated after a prompt.
 *
 * @param ids the new tokens in order; the stop token is the last one if that is why it ended
 * @param finish why it ended
 */
public record Generation(List<Integer> ids, Finish finish) {

    /** Why a generation ended. */
    public enum Finish {
        /** A stop token was drawn. */
        STOP_TOKEN,
        /** The listener had enough. */
        LISTENER,
        /** As many tokens as were asked for. */
        MAX_NEW_TOKENS,
        /** The model's context is full. */
        CONTEXT
    }

    /** Copies the list. */
    public Generation {
        ids = List.copyOf(ids);
    }
}
