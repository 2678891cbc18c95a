package io.lora4j.train;

import java.nio.file.Path;
import java.util.List;

/**
 * What a run has come to.
 *
 * @param completed whether all steps were done and the adapter was written; otherwise the run was cancelled and
 *     {@code checkpoint} is where to go on
 * @param step the last step done
 * @param checkpoint the last checkpoint that was saved; the output directory if there was none
 * @param chain hash of the last link of the run's chain: it stands for base, data, configuration and every checkpoint
 * @param files the files and folders in the output directory
 */
public record TrainResult(boolean completed, int step, Path checkpoint, String chain, List<Path> files) {
    /** Copies the list. */
    public TrainResult {
        files = List.copyOf(files);
    }
}
