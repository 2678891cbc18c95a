package io.lora4j.cli;

import io.lora4j.formats.Tokenizer;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.OptionException;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.Batch;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.WeightMode;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/** The logits of a text by a base with its adapter, to compare those of other models with. */
final class LogitProbe {
    private final int[] ids;
    private final float[] expected;
    private final int vocabulary;

    private LogitProbe(int[] ids, float[] expected) {
        this.ids = ids;
        this.expected = expected;
        this.vocabulary = expected.length / ids.length;
    }

    /**
     * How the logits of the text differ.
     *
     * @param tokens tokens of the text
     * @param largest the largest change of a logit
     * @param logitRange the largest logit of all less the smallest, to judge it by
     * @param sameNextToken at how many tokens the most likely next one is the same
     */
    record Change(int tokens, double largest, double logitRange, int sameNextToken) {
        String describe() {
            return String.format(
                    Locale.ROOT,
                    "the logits of %d tokens change by at most %s (they span %s); the most likely next token is the same at %d",
                    tokens,
                    Text.number(largest),
                    Text.number(logitRange),
                    sameNextToken);
        }
    }

    /** Computes the logits of a text at every token; the models are closed again. */
    static LogitProbe open(Path base, Path adapter, String text, Queue queue) throws IOException {
        int[] ids;
        try (Tokenizer tokenizer = Tokenizer.open(base)) {
            ids = tokenizer.encode(text, true);
        }
        if (ids.length == 0) {
            throw new OptionException("option probe_text: has no tokens");
        }
        return new LogitProbe(ids, logits(base, adapter, ids, queue));
    }

    /** Compares with another model of the same vocabulary. */
    Change compare(Path model, Queue queue) throws IOException {
        float[] found = logits(model, null, ids, queue);
        double largest = 0;
        double low = Double.POSITIVE_INFINITY;
        double high = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < found.length; i++) {
            largest = Math.max(largest, Math.abs((double) found[i] - expected[i]));
            low = Math.min(low, expected[i]);
            high = Math.max(high, expected[i]);
        }
        long same = IntStream.range(0, ids.length)
                .filter(row -> best(found, row) == best(expected, row))
                .count();
        return new Change(ids.length, largest, high - low, (int) same);
    }

    private int best(float[] logits, int row) {
        int best = row * vocabulary;
        for (int i = best + 1; i < (row + 1) * vocabulary; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        return best;
    }

    private static float[] logits(Path dir, @Nullable Path adapterDir, int[] ids, Queue queue) throws IOException {
        try (Arena arena = Arena.ofShared();
                LlamaModel model = LlamaModel.open(dir, queue, WeightMode.BORROW)) {
            if (ids.length > model.config().maxPositionEmbeddings()) {
                throw new OptionException("option probe_text: has " + ids.length + " tokens; the model's context is "
                        + model.config().maxPositionEmbeddings());
            }
            int[] rows = IntStream.range(0, ids.length).toArray();
            Batch batch = Batch.ofIds(List.of(ids));
            if (adapterDir == null) {
                return floats(model.logits(batch, null, rows, arena));
            }
            try (Adapter adapter = Adapter.load(model, adapterDir, false)) {
                return floats(model.logits(batch, adapter, rows, arena));
            }
        }
    }

    private static float[] floats(Tensor logits) {
        return logits.toFloatArray();
    }
}
