package io.lora4j.train;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.Tokenizer;
import io.lora4j.train.checkpoint.RunIdentity;
import io.lora4j.train.data.BatchPlan;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.data.RowEncoder;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.Batch;
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
    private static final int ADAPTER_BUFFERS = 4;
    /** Bounds of the kernels' workspace: logits of a chunk of tokens, and packed panels. */
    private static final long LOGITS = 48L << 20;

    private static final int LOGITS_ROWS = 256;
    private static final long PANELS = 16L << 20;

    private final Settings settings;
    private final Path modelDir;

    PlanBuilder(Settings settings) {
        this.settings = settings;
        this.modelDir = settings.get(TrainOptions.MODEL_NAME_OR_PATH);
    }

    TrainPlan build(Optional<Path> resumeFrom, ZonedDateTime clock) throws IOException {
        ModelConfig model = ModelConfig.read(modelDir);
        AdapterConfig adapter = adapterConfig(resumeFrom);
        long parameters = Adapter.parameterCount(model, adapter);
        try (Tokenizer tokenizer = Tokenizer.open(modelDir)) {
            RowEncoder encoder = new RowEncoder(
                    tokenizer,
                    ChatOptions.format(settings, tokenizer, Optional.empty(), clock),
                    settings.get(TrainOptions.COMPLETION_ONLY_LOSS),
                    settings.get(TrainOptions.ASSISTANT_ONLY_LOSS));
            int maxLength = settings.get(TrainOptions.MAX_LENGTH);
            Dataset data = Dataset.load(settings.get(TrainOptions.TRAIN_FILE), encoder, maxLength, model);
            Optional<Path> evalFile = settings.find(TrainOptions.EVAL_FILE);
            Optional<Dataset> evalData = evalFile.isPresent()
                    ? Optional.of(Dataset.load(evalFile.get(), encoder, maxLength, model))
                    : Optional.empty();
            BatchPlan batches = new BatchPlan(
                    data.rows(),
                    settings.get(TrainOptions.SEED),
                    settings.get(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE),
                    settings.get(TrainOptions.GRADIENT_ACCUMULATION_STEPS),
                    settings.get(TrainOptions.PACKING) ? maxLength : 0);
            return new TrainPlan(
                    settings,
                    model,
                    adapter,
                    adapter.targets(model.modules()),
                    parameters,
                    data,
                    evalData,
                    data.preview(tokenizer),
                    batches,
                    schedule(batches),
                    memory(model, adapter, parameters, batches, evalData),
                    clock,
                    resumeFrom);
        }
    }

    /** A new adapter as the options say, or an existing one's own config, whose dropout alone may be another. */
    private AdapterConfig adapterConfig(Optional<Path> resumeFrom) throws IOException {
        String base = modelDir.toString();
        Optional<Path> existing = resumeFrom.or(() -> settings.find(TrainOptions.ADAPTER_NAME_OR_PATH));
        if (existing.isEmpty()) {
            Map<String, Integer> ranks = new LinkedHashMap<>();
            settings.get(TrainOptions.RANK_PATTERN).forEach((name, rank) -> ranks.put(name, rank.intValue()));
            return new AdapterConfig(
                    settings.get(TrainOptions.LORA_R),
                    settings.get(TrainOptions.LORA_ALPHA),
                    settings.get(TrainOptions.LORA_DROPOUT),
                    settings.get(TrainOptions.LORA_TARGET_MODULES),
                    null,
                    ranks,
                    settings.get(TrainOptions.ALPHA_PATTERN),
                    settings.get(TrainOptions.USE_RSLORA),
                    null,
                    null,
                    base,
                    "CAUSAL_LM");
        }
        AdapterConfig own = AdapterConfig.read(existing.get());
        boolean other = resumeFrom.isEmpty() && settings.isSet(TrainOptions.LORA_DROPOUT);
        return new AdapterConfig(
                own.rank(),
                own.loraAlpha(),
                other ? settings.get(TrainOptions.LORA_DROPOUT) : own.loraDropout(),
                own.targetModules(),
                own.excludeModules(),
                own.rankPattern(),
                own.alphaPattern(),
                own.useRslora(),
                own.layersToTransform(),
                own.layersPattern(),
                base,
                own.taskType());
    }

    private Schedule schedule(BatchPlan batches) {
        int maxSteps = settings.get(TrainOptions.MAX_STEPS);
        double steps = maxSteps > 0
                ? maxSteps
                : Math.ceil(settings.get(TrainOptions.NUM_TRAIN_EPOCHS) * batches.stepsPerEpoch());
        if (steps > Integer.MAX_VALUE) {
            throw new OptionException("option num_train_epochs: " + settings.get(TrainOptions.NUM_TRAIN_EPOCHS)
                    + " passes are " + steps + " steps; expected at most " + Integer.MAX_VALUE);
        }
        return new Schedule(
                settings.get(TrainOptions.LR_SCHEDULER_TYPE),
                settings.get(TrainOptions.LEARNING_RATE),
                settings.get(TrainOptions.WARMUP_STEPS),
                (int) steps);
    }

    private MemoryPlan memory(
            ModelConfig model, AdapterConfig adapter, long parameters, BatchPlan batches, Optional<Dataset> evalData)
            throws IOException {
        boolean checkpointing = settings.get(TrainOptions.GRADIENT_CHECKPOINTING);
        int tokens = batches.maxTokens();
        long activations = LlamaModel.activationBytes(model, tokens, batches.maxRows(), adapter, true, checkpointing);
        if (evalData.isPresent()) {
            for (Batch batch : evalData.get().batches(settings.get(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE))) {
                long bytes =
                        LlamaModel.activationBytes(model, batch.tokens(), batch.sequences(), adapter, false, false);
                activations = Math.max(activations, bytes);
                tokens = Math.max(tokens, batch.tokens());
            }
        }
        long weights = 0;
        for (Path file : RunIdentity.baseFiles(modelDir)) {
            weights += Files.size(file);
        }
        long logits = Math.min(LOGITS, Math.min(tokens, LOGITS_ROWS) * (long) model.vocabSize() * Float.BYTES);
        Runtime jvm = Runtime.getRuntime();
        Map<String, Long> parts = new LinkedHashMap<>();
        parts.put("weights (mapped file)", weights);
        long buffers = ADAPTER_BUFFERS * parameters * Float.BYTES;
        parts.put("adapter, gradients, optimizer", buffers);
        parts.put("activations (" + tokens + " tokens)", activations);
        parts.put("logits chunk and workspace", logits + PANELS);
        parts.put("Java heap", jvm.totalMemory());
        return MemoryPlan.of(parts, buffers + activations + logits + PANELS);
    }
}
