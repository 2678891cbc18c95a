package io.lora4j.train;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.checkpoint.Chain;
import io.lora4j.train.checkpoint.ChainCheck;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.Fingerprint;
import io.lora4j.train.checkpoint.OptimizerFile;
import io.lora4j.train.checkpoint.TrainerState;
import io.lora4j.train.data.BatchPlan;
import io.lora4j.train.model.Adapter;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.IntConsumer;

/**
 * Verifies a run from what it left behind: its hash chain against every file that it depends on or wrote, and its arithmetic by
 * doing steps again. Writes nothing.
 *
 * <pre>{@code
 * Verifier verifier = Verifier.open(Path.of("out"), Map.of());
 * List<String> problems = verifier.problems();           // empty: every byte is as it was
 * List<String> differences = verifier.replay(500, 1000, step -> {});   // empty: every bit is as it was
 * }</pre>
 *
 * <p>Threads: any one at a time.
 */
public final class Verifier {
    private final Path run;
    private final List<String> problems;
    private final NavigableMap<Integer, CheckpointStore.Saved> checkpoints;
    private final Optional<Chain> finished;
    private final Settings settings;
    private final Sources sources;

    private Verifier(Path run, List<String> problems, ChainCheck check, Settings settings, Sources sources) {
        this.run = run;
        this.problems = List.copyOf(problems);
        this.checkpoints = check.checkpoints();
        this.finished = check.finished();
        this.settings = settings;
        this.sources = sources;
    }

    /**
     * Reads a run and all its inputs, and checks the chain.
     *
     * @param run its output directory
     * @param now options by name that may be other ones now, such as the place of the base model
     * @throws FormatException if there is no checkpoint that is whole; the message has all problems
     */
    public static Verifier open(Path run, Map<String, ?> now) throws IOException {
        ChainCheck check = ChainCheck.of(run);
        List<String> problems = new ArrayList<>(check.problems());
        if (check.checkpoints().isEmpty()) {
            throw new FormatException(String.join("\n", problems));
        }
        CheckpointStore.Saved newest = check.checkpoints().lastEntry().getValue();
        Settings settings = settings(newest.state(), now);
        Sources sources;
        Optional<Path> evalFile;
        try {
            sources = Sources.of(settings);
            problems.addAll(newest.chain().identity().differences(Trainer.inputs(settings, sources)));
            evalFile = PlanBuilder.evalFile(settings);
        } catch (FormatException e) {
            problems.add(String.valueOf(e.getMessage())); // A folder that is gone
            throw new FormatException(String.join("\n", problems), e);
        }
        Fingerprint eval = newest.state().evalData();
        if (eval != null && evalFile.isPresent()) {
            Optional<String> difference = eval.differenceOf(evalFile.get(), false);
            difference.ifPresent(text -> problems.add("eval: " + evalFile.get() + " " + text));
        }
        return new Verifier(run, problems, check, settings, sources);
    }

    /** The options of a run; those that were defaults are left to be defaults, for what is set counts as a wish. */
    private static Settings settings(TrainerState state, Map<String, ?> now) {
        Path directory = Path.of(state.workingDirectory());
        Settings.Builder builder = TrainOptions.builder();
        Settings defaults = builder.build();
        state.options().forEach((name, value) -> {
            Option<?> option = defaults.table().find(name);
            boolean isDefault = value.equals(defaults.toMap().get(name));
            if (state.given().contains(name) || !isDefault) {
                // A name of the Hugging Face Hub is no path.
                boolean path = option.type().equals("PATH") && Files.exists(directory.resolve(value));
                builder.put(name, path ? directory.resolve(value) : value);
            }
        });
        now.forEach(builder::put);
        return builder.set(TrainOptions.RESUME_FROM_CHECKPOINT, "false")
                .set(TrainOptions.OVERWRITE_OUTPUT_DIR, false)
                .build();
    }

    /** Returns what is not as it was: each text names the file, and the tensor or line where that is known. */
    public List<String> problems() {
        return problems;
    }

    /** Returns the chain that binds the finished adapter, if there is one: its hash is what {@link TrainResult} has. */
    public Optional<Chain> finished() {
        return finished;
    }

    /** Returns the chain of the newest checkpoint. */
    public Chain chain() {
        return checkpoints.lastEntry().getValue().chain();
    }

    /** Returns the steps at which a replay can end: those of the checkpoints that are there. */
    public List<Integer> steps() {
        return List.copyOf(checkpoints.keySet());
    }

    /** Returns the step before a checkpoint's from which its steps can be replayed: that of the one before it, or 0. */
    public int before(int step) {
        Integer lower = checkpoints.lowerKey(step);
        return lower == null ? 0 : lower;
    }

    /**
     * Does steps again and compares adapter and optimizer with the checkpoint at their end, bit for bit.
     *
     * @param from 0 for the start of the run, or the step of a checkpoint
     * @param to the step of a later checkpoint
     * @param onStep called after every step
     * @return what is different, by file and tensor; empty if nothing is
     * @throws OptionException if there is no checkpoint of these steps
     * @throws TrainException if memory does not suffice
     */
    public List<String> replay(int from, int to, IntConsumer onStep) throws IOException {
        if (from >= to || !checkpoints.containsKey(to) || !(from == 0 || checkpoints.containsKey(from))) {
            throw new OptionException("option steps: found " + from + ".." + to
                    + ", expected 0 or the step of a checkpoint, and that of a later one; there are " + steps());
        }
        Chain chain = checkpoints.get(to).chain();
        Optional<Path> checkpoint = from == 0 ? Optional.empty() : Optional.of(run.resolve("checkpoint-" + from));
        ZonedDateTime clock = ZonedDateTime.parse(chain.identity().clock());
        TrainPlan plan = new PlanBuilder(settings, sources).build(checkpoint, clock);
        plan.memory().requireFits();
        TreeMap<Integer, Schedule> schedules = schedules(chain, plan);
        BatchPlan batches = plan.batches();
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, settings.get(TrainOptions.THREADS));
                RunStart start = RunStart.open(plan, sources, queue, run);
                TrainingStep training = new TrainingStep(start.model(), start.adapter(), settings)) {
            int stepsPerEpoch = batches.stepsPerEpoch();
            BatchPlan.Epoch epoch = batches.epoch(from / stepsPerEpoch);
            for (int done = from; done < to; done++) {
                if (done % stepsPerEpoch == 0) {
                    epoch = batches.epoch(done / stepsPerEpoch);
                }
                int step = done + 1;
                double learningRate = schedules.ceilingEntry(step).getValue().at(step);
                training.run(step, learningRate, epoch.step(done % stepsPerEpoch));
                onStep.accept(step);
            }
            return differences(run.resolve("checkpoint-" + to), start.adapter());
        }
    }

    /** The learning rates, by the last step that each schedule holds for: a resumed run may have changed the number of steps. */
    private TreeMap<Integer, Schedule> schedules(Chain chain, TrainPlan plan) {
        TreeMap<Integer, Schedule> schedules = new TreeMap<>();
        for (Chain.Link link : chain.links()) {
            Settings then = settings.toBuilder()
                    .set(TrainOptions.MAX_STEPS, Math.max(1, link.totalSteps()))
                    .build();
            schedules.put(link.step(), PlanBuilder.schedule(then, plan.batches()));
        }
        return schedules;
    }

    private static List<String> differences(Path checkpoint, Adapter adapter) throws IOException {
        List<String> differences = new ArrayList<>();
        try (Arena copies = Arena.ofConfined()) {
            differences.addAll(OptimizerFile.differences(
                    checkpoint.resolve(PeftAdapter.FILE_NAME), OptimizerFile.parameters(adapter, copies)));
        }
        differences.addAll(
                OptimizerFile.differences(checkpoint.resolve(OptimizerFile.FILE_NAME), OptimizerFile.moments(adapter)));
        return differences;
    }
}
