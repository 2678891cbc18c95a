package io.lora4j.train;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.HubCache;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;

/**
 * Where the base model of a run lies and the adapter that it goes on training: local folders, or repositories in the Hugging
 * Face cache.
 *
 * @param model the base model
 * @param adapter the folder of the adapter, if one was given
 */
public record Sources(HubCache.Source model, Optional<Path> adapter) {
    /**
     * Finds both.
     *
     * @throws FormatException if one is not there; the message names the option
     */
    public static Sources of(Settings settings) throws IOException {
        HubCache.Source model = model(settings.get(TrainOptions.MODEL_NAME_OR_PATH));
        Optional<Path> adapter = settings.find(TrainOptions.ADAPTER_NAME_OR_PATH);
        return new Sources(model, adapter.isPresent() ? Optional.of(adapter(adapter.get())) : Optional.empty());
    }

    /**
     * Finds a base model.
     *
     * @throws FormatException if it is not there
     */
    public static HubCache.Source model(Path nameOrPath) throws IOException {
        try {
            return HubCache.ofEnvironment().model(nameOrPath);
        } catch (FormatException e) {
            throw new FormatException("option " + TrainOptions.MODEL_NAME_OR_PATH.name() + ": " + e.getMessage(), e);
        }
    }

    /**
     * Finds the folder of an adapter.
     *
     * @throws FormatException if it is not there
     */
    public static Path adapter(Path nameOrPath) throws IOException {
        try {
            return HubCache.ofEnvironment().adapter(nameOrPath).dir();
        } catch (FormatException e) {
            throw new FormatException("option " + TrainOptions.ADAPTER_NAME_OR_PATH.name() + ": " + e.getMessage(), e);
        }
    }
}
