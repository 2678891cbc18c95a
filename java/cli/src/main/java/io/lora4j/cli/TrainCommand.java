package io.lora4j.cli;

import io.lora4j.formats.ModelWeights;
import io.lora4j.train.Option;
import io.lora4j.train.ProcessMemory;
import io.lora4j.train.Settings;
import io.lora4j.train.Sources;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.TrainPlan;
import io.lora4j.train.TrainResult;
import io.lora4j.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** {@code lora4j train}: fine-tunes a model and writes the adapter, checkpoints, metrics and a loss curve. */
final class TrainCommand extends TableCommand {
    private static final int INTERRUPTED = 130;

    TrainCommand() {
        super(
                TrainOptions.TABLE,
                "Fine-tunes a model with a low-rank adapter. The base model is only read; the adapter is PEFT's format."
                        + " A run that goes on from a checkpoint may have other values of " + changeable()
                        + "; where anything else differs, or a byte of base, data, tokenizer or template, it is refused.");
    }

    private static String changeable() {
        return TrainOptions.TABLE.options().stream()
                .filter(Option::mayChange)
                .map(Option::name)
                .collect(Collectors.joining(", "));
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Trainer trainer = Trainer.open(settings);
        if (settings.get(TrainOptions.DRY_RUN)) {
            return dryRun(trainer.plan(), json, console);
        }
        TrainProgress progress = new TrainProgress(console);
        try (Interrupt interrupt = new Interrupt(() -> {
            console.err().println("\nstopping: finishing this step and saving");
            trainer.cancel();
        })) {
            progress.showPlan(trainer.plan());
            TrainResult result;
            try (progress) {
                result = trainer.run(progress);
            }
            Path output = settings.get(TrainOptions.OUTPUT_DIR);
            // Java cannot draw while it shuts down; the run that goes on draws the whole curve.
            Optional<Path> chart = result.completed() ? LossChart.write(output, console) : Optional.empty();
            if (json) {
                console.json(report(trainer.plan(), result, output, chart));
            } else {
                describe(trainer.plan(), result, output, chart, console);
            }
            return result.completed() ? 0 : INTERRUPTED;
        }
    }

    private static int dryRun(TrainPlan plan, boolean json, Console console) throws IOException {
        if (json) {
            console.json(DryRun.report(plan));
        } else {
            DryRun.print(plan, console.out());
        }
        plan.memory().requireFits();
        Path model = Sources.of(plan.settings()).model().dir();
        ModelWeights.open(model).close();
        return 0;
    }

    private static void describe(
            TrainPlan plan, TrainResult result, Path output, Optional<Path> chart, Console console) {
        if (!result.completed()) {
            console.err().printf("stopped after step %d, saved in %s%n", result.step(), result.checkpoint());
            console.err().println("go on with the same command and --resume_from_checkpoint true");
            return;
        }
        console.out().println("adapter  " + output);
        console.out().println("chain    " + result.chain());
        chart.ifPresent(png -> console.out().println("curve    " + png));
        ProcessMemory.peak()
                .ifPresent(peak -> console.err()
                        .println("peak memory " + Text.bytes(peak) + ", planned "
                                + Text.bytes(plan.memory().peak())));
    }

    private static Map<String, Object> report(TrainPlan plan, TrainResult result, Path output, Optional<Path> chart)
            throws IOException {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("completed", result.completed());
        report.put("step", result.step());
        report.put("output_dir", output.toString());
        report.put("checkpoint", result.checkpoint().toString());
        report.put("chain", result.chain());
        Map<String, Object> memory = new LinkedHashMap<>();
        memory.put("planned", plan.memory().peak());
        memory.put(
                "peak", ProcessMemory.peak().isPresent() ? ProcessMemory.peak().getAsLong() : null);
        report.put("memory_bytes", memory);
        report.put("loss_curve", chart.map(Path::toString).orElse(null));
        try (Stream<Path> files = Files.list(output)) {
            report.put("files", files.sorted().map(Path::toString).toList());
        }
        report.put("metrics", LossChart.read(output));
        return report;
    }
}
