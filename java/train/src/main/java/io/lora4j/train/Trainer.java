package io.lora4j.train;

import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.checkpoint.Chain;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.Fingerprint;
import io.lora4j.train.checkpoint.MetricsLog;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.checkpoint.TrainerState;
import io.lora4j.train.data.BatchPlan;
import io.lora4j.train.data.DataFolder;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.BatchLoss;
import io.lora4j.train.model.Evaluator;
import io.lora4j.train.model.LlamaModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.ZonedDateTime;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Fine-tunes a model with LoRA: the whole of {@code lora4j train}.
 *
 * <pre>{@code
 * Trainer trainer = Trainer.open(settings);
 * System.out.println(trainer.plan().memory());
 * TrainResult result = trainer.run(TrainListener.NONE);
 * }</pre>
 *
 * <p>The result is a function of the base model, the data and the options; it depends neither on the number of threads nor on
 * interruptions: a run that is killed at any moment and resumed ends with the same bits as one that was left alone.
 *
 * <p>Threads: one runs it; {@link #cancel} may be called by any.
 */
public final class Trainer {
    private final Settings settings;
    private final Sources sources;
    private final OutputDir output;
    private final TrainPlan plan;
    private final CheckpointStore.@Nullable Saved saved;
    private volatile boolean cancelled;

    private Trainer(
            Settings settings,
            Sources sources,
            OutputDir output,
            TrainPlan plan,
            CheckpointStore.@Nullable Saved saved) {
        this.settings = settings;
        this.sources = sources;
        this.output = output;
        this.plan = plan;
        this.saved = saved;
    }

    /**
     * Checks the options, the data and, for a run that goes on, that it is the same run. Writes nothing.
     *
     * @throws OptionException if an option is missing or wrong
     * @throws TrainException if the output directory is in use, or the checkpoint is of another run
     * @throws IOException if a file is missing or not what it should be
     */
    public static Trainer open(Settings settings) throws IOException {
        return open(settings, Clock.systemDefaultZone());
    }

    /** Opens a run that begins at another time; what it says counts for a new run only. */
    static Trainer open(Settings settings, Clock now) throws IOException {
        TrainOptions.check(settings);
        Sources sources = Sources.of(settings);
        OutputDir output =
                new OutputDir(settings.get(TrainOptions.OUTPUT_DIR), settings.get(TrainOptions.SAVE_TOTAL_LIMIT));
        output.requireUsable(settings, sources);
        Optional<Path> resumeFrom = output.resumePoint(settings);
        CheckpointStore.Saved saved = resumeFrom.isPresent() ? CheckpointStore.read(resumeFrom.get()) : null;
        if (resumeFrom.isPresent() && saved != null) {
            RunIdentity.requireSame(resumeFrom.get(), saved, settings, inputs(settings, sources));
        }
        ZonedDateTime clock = saved == null
                ? ChatOptions.clock(settings, now)
                : ZonedDateTime.parse(saved.chain().identity().clock());
        TrainPlan plan = new PlanBuilder(settings, sources).build(resumeFrom, clock);
        if (resumeFrom.isPresent() && saved != null) {
            requireGoesOn(resumeFrom.get(), saved, plan);
        }
        return new Trainer(settings, sources, output, plan, saved);
    }

    private static void requireGoesOn(Path checkpoint, CheckpointStore.Saved saved, TrainPlan plan) throws IOException {
        int done = saved.chain().step();
        if (done > plan.totalSteps()) {
            throw new TrainException(checkpoint + ": is of step " + done + ", but the run is to have "
                    + plan.totalSteps()
                    + " steps only; raise max_steps or num_train_epochs, or go on from an older checkpoint");
        }
        // Evaluations change no step, but they choose the adapter that the run ends with.
        Fingerprint evalData = saved.state().evalData();
        if (plan.settings().get(TrainOptions.LOAD_BEST_MODEL_AT_END)
                && evalData != null
                && plan.evalData().isPresent()) {
            Path file = plan.evalData().get().file();
            Optional<String> difference = evalData.differenceOf(file, false);
            if (difference.isPresent()) {
                throw new TrainException(checkpoint + ": load_best_model_at_end compares evaluations, but eval: " + file
                        + " " + difference.get() + "; restore it, or start a new run in another output_dir");
            }
        }
    }

    /** Returns where the input files of a run are. */
    static RunIdentity.Inputs inputs(Settings settings, Sources sources) throws IOException {
        return new RunIdentity.Inputs(
                sources.model().dir(),
                DataFolder.train(settings.get(TrainOptions.TRAIN_FILE)),
                sources.adapter(),
                settings.find(ChatOptions.CHAT_TEMPLATE_PATH));
    }

    /** Returns what the run is going to do. */
    public TrainPlan plan() {
        return plan;
    }

    /** Asks the run to finish its step, save and return. */
    public void cancel() {
        cancelled = true;
    }

    /**
     * Trains.
     *
     * @throws TrainException if memory does not suffice, or a loss or gradient is not finite; the last checkpoint stays good
     * @throws IOException if a file cannot be read or written
     */
    public TrainResult run(TrainListener listener) throws IOException {
        if (settings.get(TrainOptions.DRY_RUN)) {
            throw new OptionException("option dry_run: the run is only planned; take it away to train");
        }
        plan.memory().requireFits();
        Chain chain = saved != null
                ? saved.chain()
                : Chain.start(
                        RunIdentity.of(inputs(settings, sources), plan.clock().toString()));
        Fingerprint evalData = plan.evalData().isPresent()
                ? Fingerprint.of(plan.evalData().get().file())
                : null;
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, settings.get(TrainOptions.THREADS));
                RunStart start = RunStart.open(plan, sources, queue, output.path(), this::prepare)) {
            LlamaModel model = start.model();
            Adapter adapter = start.adapter();
            try (TrainingStep step = new TrainingStep(model, adapter, settings);
                    MetricsLog log = MetricsLog.open(output.path(), done())) {
                Map<String, Fingerprint> base = output.baseFiles();
                return new Run(model, adapter, step, log, listener, chain, evalData, base).from(done());
            }
        }
    }

    /** The step that the run goes on from, 0 for a new one. */
    private int done() {
        return saved == null ? 0 : saved.chain().step();
    }

    private void prepare() throws IOException {
        output.prepare(done(), settings.get(TrainOptions.OVERWRITE_OUTPUT_DIR));
    }

    /** A run under way. */
    private final class Run {
        private final LlamaModel model;
        private final Adapter adapter;
        private final TrainingStep step;
        private final MetricsLog log;
        private final TrainListener listener;
        private final Metrics.Window window;
        private final BestModel best;
        private final @Nullable Fingerprint evalData;
        private final Map<String, Fingerprint> base;
        private final BatchPlan batches = plan.batches();

        private Chain chain;

        private Run(
                LlamaModel model,
                Adapter adapter,
                TrainingStep step,
                MetricsLog log,
                TrainListener listener,
                Chain chain,
                @Nullable Fingerprint evalData,
                Map<String, Fingerprint> base) {
            this.model = model;
            this.adapter = adapter;
            this.step = step;
            this.log = log;
            this.listener = listener;
            this.chain = chain;
            this.evalData = evalData;
            this.base = base;
            Map<String, Double> progress =
                    saved == null ? Map.of() : saved.state().progress();
            this.window = new Metrics.Window(progress);
            this.best = new BestModel(BestModel.Metric.of(settings.get(TrainOptions.METRIC_FOR_BEST_MODEL)), progress);
        }

        private TrainResult from(int done) throws IOException {
            int total = plan.totalSteps();
            Milestones milestones = plan.milestones();
            listener.onStart(plan, done + 1);
            Path checkpoint = plan.resumeFrom().orElse(output.path());
            boolean loadsBest = settings.get(TrainOptions.LOAD_BEST_MODEL_AT_END);
            if (loadsBest && best.step().isPresent()) {
                output.best(best.step().getAsInt()); // Sooner than after all the steps
            }
            int stepsPerEpoch = batches.stepsPerEpoch();
            BatchPlan.Epoch epoch = batches.epoch(done / stepsPerEpoch);
            int now = done;
            boolean stop = false;
            while (now < total && !stop) {
                if (now % stepsPerEpoch == 0) {
                    epoch = batches.epoch(now / stepsPerEpoch);
                }
                Metrics metrics = step(++now, epoch);
                if (milestones.logs(now)) {
                    log.write(window.line(metrics));
                }
                listener.onStep(metrics);
                // Who cancels waits for the step and the save only.
                boolean better = milestones.evaluates(now) && !cancelled && evaluate(now);
                stop = cancelled;
                if (stop || milestones.saves(now, better) || (better && loadsBest)) {
                    checkpoint = save(now);
                }
            }
            if (now >= total) {
                output.writeAdapter(adapter, sources.model().dir(), settings.find(ChatOptions.CHAT_TEMPLATE_PATH));
                if (loadsBest && best.step().isPresent()) {
                    output.takeAdapterOf(output.best(best.step().getAsInt()));
                }
                chain = output.seal(chain, now, total, base);
            }
            try (Stream<Path> files = Files.list(output.path())) {
                return new TrainResult(
                        now >= total,
                        now,
                        checkpoint,
                        chain.hash(),
                        files.sorted().toList());
            }
        }

        private Metrics step(int now, BatchPlan.Epoch epoch) {
            double learningRate = plan.schedule().at(now);
            long start = System.nanoTime();
            TrainingStep.Result result = step.run(now, learningRate, epoch.step((now - 1) % batches.stepsPerEpoch()));
            double seconds = (System.nanoTime() - start) * 1e-9;
            window.add(result, seconds);
            BatchLoss loss = result.loss();
            return new Metrics(
                    now,
                    plan.totalSteps(),
                    batches.epochAfter(now),
                    loss.meanLoss(),
                    result.accuracySum() / result.microBatches(),
                    learningRate,
                    result.gradNorm(),
                    result.tokens(),
                    seconds);
        }

        /** Returns whether it is the best evaluation so far. */
        private boolean evaluate(int now) throws IOException {
            Dataset rows = plan.evalData().orElseThrow();
            BatchLoss loss = Evaluator.evaluate(
                    model, rows.batches(settings.get(TrainOptions.PER_DEVICE_EVAL_BATCH_SIZE)), adapter);
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("step", now);
            line.put("epoch", batches.epochAfter(now));
            line.put("eval_loss", loss.meanLoss());
            line.put("eval_perplexity", loss.perplexity());
            line.put("eval_mean_token_accuracy", loss.accuracy());
            line.put("eval_num_tokens", window.numTokens());
            log.write(line);
            listener.onEval(now, loss);
            return best.offer(now, loss);
        }

        private Path save(int now) throws IOException {
            log.flush();
            Map<String, Double> progress = window.saved();
            best.saveTo(progress);
            TrainerState state = new TrainerState(
                    now,
                    batches.epochAfter(now),
                    progress,
                    settings.toMap(),
                    settings.given(),
                    evalData,
                    Path.of("").toAbsolutePath().toString());
            chain = output.checkpoints()
                    .save(state, chain, plan.totalSteps(), OutputDir.checkpointBody(adapter), base, protectedSteps());
            Path checkpoint = output.checkpoints().path(now);
            listener.onSave(now, checkpoint);
            return checkpoint;
        }

        private Set<Integer> protectedSteps() {
            boolean needed = settings.get(TrainOptions.LOAD_BEST_MODEL_AT_END)
                    && best.step().isPresent();
            return needed ? Set.of(best.step().getAsInt()) : Set.of();
        }
    }
}
