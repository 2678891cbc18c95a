package io.lora4j.cli;

import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.TrainResult;
import io.lora4j.train.Trainer;
import io.lora4j.train.checkpoint.Sha256;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * {@code lora4j quickstart}: fine-tunes the tiny model of a checkout on its instruction set and shows what changed. The settings are
 * those for which {@code test-data/tiny-llama/README.md} has PEFT's result.
 */
final class QuickstartCommand extends TableCommand {
    private static final Option<Path> OUTPUT_DIR = Option.of(
            "output_dir",
            "PATH",
            Path.of("lora4j-quickstart"),
            "Folder to write to; an earlier quickstart in it is replaced.",
            given -> Path.of(given.toString()));
    private static final String HOME = "lora4j.home";

    QuickstartCommand() {
        super(
                new OptionTable("quickstart", List.of(OUTPUT_DIR, TrainOptions.THREADS)),
                "Fine-tunes the tiny model that comes with lora4j on 3 000 questions and shows its answers before and after.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path model = model();
        Path weights = model.resolve("model.safetensors");
        Path output = settings.get(OUTPUT_DIR);
        int threads = settings.get(TrainOptions.THREADS);
        long begin = System.nanoTime();
        String hashBefore = Sha256.of(weights);
        console.err().println("asking the base model 200 questions that training never shows");
        QuickstartExam before = QuickstartExam.take(model, Optional.empty(), threads);
        TrainResult trained = train(model, output, threads, console);
        if (!trained.completed()) {
            return 130;
        }
        Optional<Path> chart = LossChart.write(output, console);
        console.err().println("asking the same questions with the adapter");
        QuickstartExam after = QuickstartExam.take(model, Optional.of(output), threads);
        String hashAfter = Sha256.of(weights);

        Outcome outcome = new Outcome(
                before,
                after,
                chart,
                Files.size(output.resolve("adapter_model.safetensors")),
                Files.size(weights),
                hashBefore,
                hashAfter,
                files(output),
                (System.nanoTime() - begin) / 1e9);
        if (json) {
            console.json(outcome.report());
        } else {
            outcome.print(console.out());
        }
        return outcome.baseUnchanged() ? 0 : 1;
    }

    private static Path model() {
        String home = System.getProperty(HOME);
        if (home == null) {
            throw new OptionException("quickstart needs a checkout of lora4j: start it with ./lora4j quickstart");
        }
        return Path.of(home, "test-data", "tiny-llama");
    }

    private static TrainResult train(Path model, Path output, int threads, Console console) throws IOException {
        Settings settings = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.TRAIN_FILE, model.resolve("instruct/train.jsonl"))
                .set(TrainOptions.EVAL_FILE, model.resolve("instruct/valid.jsonl"))
                .set(TrainOptions.OUTPUT_DIR, output)
                .set(TrainOptions.OVERWRITE_OUTPUT_DIR, true)
                .set(TrainOptions.LORA_R, 8)
                .set(TrainOptions.LORA_ALPHA, 16.0)
                .set(TrainOptions.LORA_DROPOUT, 0.0)
                .set(TrainOptions.LEARNING_RATE, 5e-3)
                .set(TrainOptions.WARMUP_STEPS, 10)
                .set(TrainOptions.MAX_STEPS, 150)
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 16)
                .set(TrainOptions.LOGGING_STEPS, 10)
                .set(TrainOptions.THREADS, threads)
                .build();
        Trainer trainer = Trainer.open(settings);
        TrainProgress progress = new TrainProgress(console);
        progress.showPlan(trainer.plan());
        // The process ends when this is closed, if it was interrupted.
        try (Interrupt interrupt = new Interrupt(trainer::cancel)) {
            TrainResult result;
            try (progress) {
                result = trainer.run(progress);
            }
            if (!result.completed()) {
                console.err().printf("stopped after step %d; run quickstart again to start over%n", result.step());
            }
            return result;
        }
    }

    private static List<String> files(Path output) throws IOException {
        try (Stream<Path> all = Files.walk(output)) {
            return all.filter(Files::isRegularFile).sorted().map(Path::toString).toList();
        }
    }

    /**
     * What a quickstart has come to.
     *
     * @param hashBefore SHA-256 of the base model's weights before
     * @param hashAfter the same, after
     */
    private record Outcome(
            QuickstartExam before,
            QuickstartExam after,
            Optional<Path> chart,
            long adapterBytes,
            long modelBytes,
            String hashBefore,
            String hashAfter,
            List<String> files,
            double seconds) {

        boolean baseUnchanged() {
            return hashBefore.equals(hashAfter);
        }

        Map<String, Object> report() {
            Map<String, Object> report = new LinkedHashMap<>();
            report.put("before", before.report());
            report.put("after", after.report());
            report.put("question", before.question());
            report.put("expected", before.expected());
            report.put("adapter_bytes", adapterBytes);
            report.put("model_bytes", modelBytes);
            report.put("base_sha256_before", hashBefore);
            report.put("base_sha256_after", hashAfter);
            report.put("base_unchanged", baseUnchanged());
            report.put("files", files);
            report.put("seconds", seconds);
            return report;
        }

        void print(PrintWriter out) {
            out.println();
            out.println("Question   " + before.question());
            out.println("Expected   " + before.expected());
            out.println("  before   " + before.answer().strip().replace("\n", " "));
            out.println("  after    " + after.answer().strip().replace("\n", " "));
            out.println();
            out.printf(Locale.ROOT, "%-34s %12s %12s%n", "on held-out questions", "before", "after");
            out.printf(
                    Locale.ROOT,
                    "%-34s %10.1f %% %10.1f %%%n",
                    "exact match (" + before.questions() + " questions)",
                    before.exactMatch(),
                    after.exactMatch());
            out.printf(
                    Locale.ROOT,
                    "%-34s %12.2f %12.4f%n",
                    "perplexity of the right answers",
                    before.loss().perplexity(),
                    after.loss().perplexity());
            out.println();
            out.printf(
                    Locale.ROOT,
                    "adapter %s, base model %s: %.1f %%%n",
                    Text.bytes(adapterBytes),
                    Text.bytes(modelBytes),
                    100.0 * adapterBytes / modelBytes);
            out.println("base model's sha256 " + hashAfter + ", "
                    + (baseUnchanged() ? "unchanged" : "CHANGED: it was " + hashBefore));
            chart.ifPresent(png -> out.println("loss curve " + png));
            out.println("files written:");
            files.forEach(file -> out.println("  " + file));
            out.printf(Locale.ROOT, "%.0f s%n", seconds);
        }
    }
}
