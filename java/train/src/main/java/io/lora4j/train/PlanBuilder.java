package io.lora4j.train;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModelModule;
import io.lora4j.formats.Tokenizer;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.data.BatchPlan;
import io.lora4j.train.data.DataFolder;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.data.PackingStrategy;
import io.lora4j.train.data.RowEncoder;
import io.lora4j.train.data.RowOptions;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.Batch;
import io.lora4j.train.model.FourBit;
import io.lora4j.train.model.LlamaModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/** Makes the plan of a run: reads configs and data, touches no weight and writes nothing. */
final class PlanBuilder {
    private static final int PREVIEWED_ROWS = 3;
    /** Values, gradients, and the copy that a save makes. */
    private static final int ADAPTER_BUFFERS = 3;
    /** What an adapter began with that was taken out of the base, and a save's copy of it and of both together. */
    private static final int DIFFERENCE_BUFFERS = 3;
    /** Bounds of the kernels' workspace: logits of a chunk of tokens, and packed panels. */
    private static final long LOGITS = 48L << 20;

    private static final int LOGITS_ROWS = 128;
    private static final long PANELS = 16L << 20;

    /** What the JVM needs beside its heap where it cannot be measured. */
    private static final long UNKNOWN_JVM = 90L << 20;
    /** What it gets to need in the steps: classes and compiled code of the loop, the threads' stacks. */
    private static final long JVM_GROWTH = 20L << 20;

    private final Settings settings;
    private final Sources sources;
    private final Path modelDir;

    PlanBuilder(Settings settings, Sources sources) {
        this.settings = settings;
        this.sources = sources;
        this.modelDir = sources.model().dir();
    }

    TrainPlan build(Optional<Path> resumeFrom, ZonedDateTime clock) throws IOException {
        ModelConfig model = ModelConfig.read(modelDir);
        AdapterConfig adapter = adapterConfig(resumeFrom);
        long parameters = Adapter.parameterCount(model, adapter);
        PackingStrategy packing =
                settings.get(TrainOptions.PACKING) ? settings.get(TrainOptions.PACKING_STRATEGY) : PackingStrategy.BFD;
        try (Tokenizer tokenizer = Tokenizer.open(modelDir)) {
            RowEncoder encoder = new RowEncoder(
                    tokenizer,
                    ChatOptions.format(settings, tokenizer, Optional.empty(), clock),
                    settings.get(TrainOptions.COMPLETION_ONLY_LOSS),
                    settings.get(TrainOptions.ASSISTANT_ONLY_LOSS));
            Path given = settings.get(TrainOptions.TRAIN_FILE);
            Dataset data = Dataset.load(DataFolder.train(given), encoder, rowOptions(packing), model);
            Optional<Path> evalFile = evalFile(settings);
            Optional<Dataset> evalData = evalFile.isPresent()
                    ? Optional.of(Dataset.load(evalFile.get(), encoder, rowOptions(PackingStrategy.BFD), model))
                    : Optional.empty();
            if (evalData.isEmpty()) {
                OptionRules.requireEvalData(settings);
            }
            boolean packs = settings.get(TrainOptions.PACKING) && packing != PackingStrategy.WRAPPED;
            BatchPlan batches = new BatchPlan(
                    data.rows(),
                    settings.get(TrainOptions.SEED),
                    settings.get(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE),
                    settings.get(TrainOptions.GRADIENT_ACCUMULATION_STEPS),
                    packs ? settings.get(TrainOptions.MAX_LENGTH) : 0);
            Schedule schedule = schedule(settings, batches);
            return new TrainPlan(
                    settings,
                    model,
                    adapter,
                    adapter.targets(model.modules()),
                    parameters,
                    data,
                    evalData,
                    data.rows().stream()
                            .limit(PREVIEWED_ROWS)
                            .map(row -> Dataset.preview(row, tokenizer))
                            .toList(),
                    batches,
                    schedule,
                    Milestones.of(settings, schedule.totalSteps(), batches.stepsPerEpoch(), evalData.isPresent()),
                    memory(model, adapter, parameters, batches, evalData),
                    clock,
                    resumeFrom);
        }
    }

    private RowOptions rowOptions(PackingStrategy packing) {
        return new RowOptions(
                settings.get(TrainOptions.DATASET_TEXT_FIELD),
                settings.get(TrainOptions.MAX_LENGTH),
                settings.get(TrainOptions.ON_LONG),
                packing);
    }

    /** The evaluation file that was given, or that a data folder has; none if nothing is to be evaluated. */
    static Optional<Path> evalFile(Settings settings) throws FormatException {
        if (settings.get(TrainOptions.EVAL_STRATEGY) == Milestones.EvalStrategy.NO) {
            return Optional.empty();
        }
        Optional<Path> given = settings.find(TrainOptions.EVAL_FILE);
        if (given.isEmpty()) {
            return DataFolder.validation(settings.get(TrainOptions.TRAIN_FILE));
        }
        Path path = given.get();
        Optional<Path> file = Files.isDirectory(path) ? DataFolder.validation(path) : given;
        return Optional.of(file.orElseThrow(() -> new FormatException("option eval_file: " + path
                + " is a folder without valid.jsonl; expected a JSONL file, or a folder that has it")));
    }

    /** A new adapter as the options say, or an existing one's own config, whose dropout alone may be another. */
    private AdapterConfig adapterConfig(Optional<Path> resumeFrom) throws IOException {
        boolean own = InitOptions.writesBase(settings);
        String base = own
                ? settings.get(TrainOptions.OUTPUT_DIR).resolve(RunStart.BASE).toString()
                : sources.model().name();
        String revision = own ? null : sources.model().revision();
        // What is written of an adapter that changed the base is not what is trained.
        boolean begun = InitOptions.init(settings).changesBase();
        Optional<Path> existing = begun ? Optional.empty() : resumeFrom.or(sources::adapter);
        if (existing.isEmpty()) {
            Map<String, Integer> ranks = new LinkedHashMap<>();
            settings.get(TrainOptions.RANK_PATTERN).forEach((name, rank) -> ranks.put(name, rank.intValue()));
            return new AdapterConfig(
                    settings.get(TrainOptions.LORA_R),
                    settings.get(TrainOptions.LORA_ALPHA),
                    settings.get(TrainOptions.LORA_DROPOUT),
                    settings.get(TrainOptions.LORA_TARGET_MODULES),
                    settings.find(TrainOptions.EXCLUDE_MODULES).orElse(null),
                    ranks,
                    settings.get(TrainOptions.ALPHA_PATTERN),
                    settings.get(TrainOptions.USE_RSLORA),
                    settings.find(TrainOptions.LAYERS_TO_TRANSFORM).orElse(null),
                    null,
                    base,
                    revision,
                    "CAUSAL_LM");
        }
        AdapterConfig read = AdapterConfig.read(existing.get());
        boolean other = resumeFrom.isEmpty() && settings.isSet(TrainOptions.LORA_DROPOUT);
        return new AdapterConfig(
                read.rank(),
                read.loraAlpha(),
                other ? settings.get(TrainOptions.LORA_DROPOUT) : read.loraDropout(),
                read.targetModules(),
                read.excludeModules(),
                read.rankPattern(),
                read.alphaPattern(),
                read.useRslora(),
                read.layersToTransform(),
                read.layersPattern(),
                base,
                revision,
                read.taskType());
    }

    /** Returns the learning rates of a run with these settings. */
    static Schedule schedule(Settings settings, BatchPlan batches) {
        int maxSteps = settings.get(TrainOptions.MAX_STEPS);
        double steps = maxSteps > 0
                ? maxSteps
                : Math.ceil(settings.get(TrainOptions.NUM_TRAIN_EPOCHS) * batches.stepsPerEpoch());
        if (steps > Integer.MAX_VALUE) {
            throw new OptionException("option num_train_epochs: " + settings.get(TrainOptions.NUM_TRAIN_EPOCHS)
                    + " passes are " + steps + " steps; expected at most " + Integer.MAX_VALUE);
        }
        Number given = settings.get(TrainOptions.WARMUP_STEPS);
        Number warmup = given.doubleValue() > 0 ? given : wholeOrRatio(settings.get(TrainOptions.WARMUP_RATIO), steps);
        return new Schedule(
                settings.get(TrainOptions.LR_SCHEDULER_TYPE),
                settings.get(TrainOptions.LEARNING_RATE),
                Milestones.steps(warmup, (int) steps),
                (int) steps);
    }

    /** A ratio of 1 is all steps, not one of them. */
    private static Number wholeOrRatio(double ratio, double steps) {
        return ratio < 1 ? (Number) ratio : (Number) steps;
    }

    /** The files' bytes; of those of linear layers that are quantized while they are loaded, what is left of them. */
    private long weightBytes(ModelConfig model, AdapterConfig adapter) throws IOException {
        long files = 0;
        for (Path file : RunIdentity.baseFiles(modelDir)) {
            files += Files.size(file);
        }
        if (settings.get(TrainOptions.BF16)) {
            files = Math.min(files, 2 * model.parameters()); // What is wider is rounded.
        }
        Optional<FourBit> fourBit = LoadOptions.fourBit(settings);
        if (fourBit.isEmpty()) {
            return InitOptions.init(settings).changesBase() ? withResiduals(model, adapter, files) : files;
        }
        long linear = 0;
        long quantized = 0;
        for (ModelModule module : model.modules().values()) {
            if (module.kind() == ModelModule.Kind.LINEAR) {
                long values = module.outFeatures() * module.inFeatures();
                linear += values;
                quantized += fourBit.get().bytes(values);
            }
        }
        double rest = 1 - (double) linear / model.parameters();
        return (long) (rest * files) + quantized;
    }

    /** What an adapter is taken out of is held in float32, or with bf16 in that. */
    private long withResiduals(ModelConfig model, AdapterConfig adapter, long files) throws FormatException {
        long values = 0;
        for (ModelModule module : adapter.targets(model.modules())) {
            values += module.outFeatures() * module.inFeatures();
        }
        double rest = 1 - (double) values / model.parameters();
        return (long) (rest * files) + values * (settings.get(TrainOptions.BF16) ? 2 : Float.BYTES);
    }

    private MemoryPlan memory(
            ModelConfig model, AdapterConfig adapter, long parameters, BatchPlan batches, Optional<Dataset> evalData)
            throws IOException {
        boolean checkpointing = settings.get(TrainOptions.GRADIENT_CHECKPOINTING);
        int tokens = batches.maxTokens();
        long activations = LlamaModel.activationBytes(model, tokens, batches.maxRows(), adapter, true, checkpointing);
        if (evalData.isPresent()) {
            for (Batch batch : evalData.get().batches(settings.get(TrainOptions.PER_DEVICE_EVAL_BATCH_SIZE))) {
                long bytes =
                        LlamaModel.activationBytes(model, batch.tokens(), batch.sequences(), adapter, false, false);
                activations = Math.max(activations, bytes);
                tokens = Math.max(tokens, batch.tokens());
            }
        }
        long weights = weightBytes(model, adapter);
        long logits = Math.min(LOGITS, Math.min(tokens, LOGITS_ROWS) * (long) model.vocabSize() * Float.BYTES);
        Map<String, Long> parts = new LinkedHashMap<>();
        parts.put("weights", weights);
        boolean difference = InitOptions.init(settings).changesBase() && !InitOptions.writesBase(settings);
        long buffers = (ADAPTER_BUFFERS + (difference ? DIFFERENCE_BUFFERS : 0)) * parameters * Float.BYTES
                + Adapter.momentBytes(
                        model, adapter, settings.get(TrainOptions.OPTIM).state());
        parts.put("adapter, gradients, optimizer, copy", buffers);
        parts.put("activations (" + tokens + " tokens)", activations);
        parts.put("logits chunk and workspace", logits + PANELS);
        long heap = Runtime.getRuntime().totalMemory();
        long resident = ProcessMemory.resident().orElse(UNKNOWN_JVM + ProcessMemory.heapTouched());
        parts.put("Java heap", heap);
        parts.put("JVM, libraries, threads", Math.max(0, resident - ProcessMemory.heapTouched()) + JVM_GROWTH);
        return MemoryPlan.of(parts, buffers + activations + logits + PANELS);
    }
}
