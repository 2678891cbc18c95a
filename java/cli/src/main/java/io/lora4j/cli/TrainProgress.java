package io.lora4j.cli;

import io.lora4j.train.Metrics;
import io.lora4j.train.Milestones;
import io.lora4j.train.TrainListener;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.TrainPlan;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.model.BatchLoss;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.TreeSet;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/**
 * Shows what a run is going to do and how far it is, on standard error: a bar on a terminal, a line every {@code logging_steps}
 * elsewhere. Not thread-safe.
 */
final class TrainProgress implements TrainListener, AutoCloseable {
    private static final int SHOWN_CHARACTERS = 600;

    private final PrintWriter err;
    private final boolean terminal = isTerminal();
    private @Nullable ProgressBar bar;
    private @Nullable Milestones milestones;
    private int firstStep = 1;
    private double seconds;
    private long tokens;

    TrainProgress(Console console) {
        this.err = console.err();
    }

    @SuppressWarnings("SystemConsoleNull") // It is null in a runtime image without the module jdk.internal.le.
    private static boolean isTerminal() {
        java.io.Console terminal = System.console();
        return terminal != null && terminal.isTerminal();
    }

    /** Prints data, adapter, memory, and the first row with what is learned of it. */
    void showPlan(TrainPlan plan) {
        Dataset data = plan.data();
        err.printf(
                Locale.ROOT,
                "data      %s: %,d rows (%s), %,d tokens, %,d of them targets; %s%n",
                data.file(),
                data.rows().size(),
                data.kind(),
                data.tokens(),
                data.targetTokens(),
                Text.losses(data));
        plan.evalData()
                .ifPresent(eval -> err.printf(
                        Locale.ROOT,
                        "eval      %s: %,d rows, %,d targets; %s%n",
                        eval.file(),
                        eval.rows().size(),
                        eval.targetTokens(),
                        Text.losses(eval)));
        TreeSet<String> kinds = new TreeSet<>();
        plan.modules().forEach(m -> kinds.add(m.name().substring(m.name().lastIndexOf('.') + 1)));
        err.printf(
                Locale.ROOT,
                "adapter   r %d, alpha %s, on %d modules (%s): %,d parameters, %.3f %% of all%n",
                plan.adapter().rank(),
                plan.adapter().loraAlpha(),
                plan.modules().size(),
                String.join(", ", kinds),
                plan.trainableParameters(),
                100 * plan.trainableShare());
        err.printf(
                Locale.ROOT,
                "steps     %,d, %s schedule, peak learning rate %s, warm-up %,d steps%n",
                plan.totalSteps(),
                plan.settings().get(TrainOptions.LR_SCHEDULER_TYPE).name().toLowerCase(Locale.ROOT),
                Text.number(plan.settings().get(TrainOptions.LEARNING_RATE)),
                plan.schedule().warmupSteps());
        err.println("memory\n" + plan.memory());
        err.println("first row, «learned»:\n  " + shown(plan.preview()));
        plan.resumeFrom().ifPresent(from -> err.println("goes on from " + from));
        err.flush();
    }

    /** Returns the beginning of a row, with what is learned marked. */
    static String shown(List<Dataset.Piece> row) {
        StringBuilder text = new StringBuilder();
        for (Dataset.Piece piece : row) {
            text.append(piece.learned() ? "«" + piece.text() + "»" : piece.text());
        }
        String all = text.toString();
        int end = all.length() <= SHOWN_CHARACTERS
                ? all.length()
                : all.offsetByCodePoints(0, all.codePointCount(0, SHOWN_CHARACTERS));
        String head = all.substring(0, end) + (end < all.length() ? " … (" + all.length() + " characters)" : "");
        return head.replace("\n", "\n  ");
    }

    @Override
    public void onStart(TrainPlan plan, int first) {
        firstStep = first;
        milestones = plan.milestones();
        if (terminal) {
            bar = new ProgressBarBuilder()
                    .setTaskName("train")
                    .setInitialMax(plan.totalSteps())
                    .startsFrom(first - 1L, Duration.ZERO)
                    .setStyle(ProgressBarStyle.ASCII)
                    .setUpdateIntervalMillis(200)
                    // In the cursor's own line: the default one moves the cursor up, over lines printed since.
                    .setConsumer(new ConsoleProgressBarConsumer(System.err))
                    .build();
        }
    }

    @Override
    public void onStep(Metrics m) {
        seconds += m.seconds();
        tokens += m.tokens();
        String numbers = String.format(
                Locale.ROOT,
                "loss %s  lr %s  %,.0f tokens/s",
                Text.number(m.loss()),
                Text.number(m.learningRate()),
                tokens / seconds);
        if (bar != null) {
            bar.stepTo(m.step());
            bar.setExtraMessage(numbers);
        } else if (milestones != null && milestones.logs(m.step())) {
            double perStep = seconds / (m.step() - firstStep + 1);
            Duration left = Duration.ofMillis((long) (1000 * perStep * (m.totalSteps() - m.step())));
            err.printf(Locale.ROOT, "step %d/%d  %s  ETA %s%n", m.step(), m.totalSteps(), numbers, Text.time(left));
            err.flush();
        }
    }

    @Override
    public void onEval(int step, BatchLoss loss) {
        line("step " + step + "  eval loss " + Text.number(loss.meanLoss()) + "  perplexity "
                + Text.number(loss.perplexity()));
    }

    @Override
    public void onSave(int step, Path checkpoint) {
        line("step " + step + "  saved " + checkpoint);
    }

    private void line(String text) {
        // On a terminal the bar redraws itself below the line.
        err.println((bar != null ? "\r\033[K" : "") + text);
        err.flush();
    }

    @Override
    public void close() {
        if (bar != null) {
            bar.close();
        }
    }
}
