package io.lora4j.train;

import io.lora4j.formats.ModuleFilter;
import io.lora4j.kernels.Compute;
import io.lora4j.train.data.LongRows;
import io.lora4j.train.data.PackingStrategy;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * The options of {@code lora4j train}: the one place that knows their names, defaults, limits and help.
 *
 * <pre>{@code
 * Settings settings = TrainOptions.builder()
 *         .set(TrainOptions.MODEL_NAME_OR_PATH, Path.of("models/SmolLM2-135M-Instruct"))
 *         .set(TrainOptions.TRAIN_FILE, Path.of("train.jsonl"))
 *         .set(TrainOptions.OUTPUT_DIR, Path.of("out"))
 *         .build();
 * }</pre>
 */
public final class TrainOptions {
    public static final Option<Path> MODEL_NAME_OR_PATH = Option.ofPath(
                    "model_name_or_path",
                    "Base model: a folder in Hugging Face layout (config.json, model.safetensors, tokenizer.json), dense or"
                            + " quantized by bitsandbytes, GPTQ, AWQ or to FP8; or a GGUF file; or owner/name or"
                            + " owner/name@revision in the local Hugging Face cache. It is only read.")
            .alias("model")
            .changeable();
    public static final Option<Path> ADAPTER_NAME_OR_PATH = Option.ofPath(
                    "adapter_name_or_path",
                    "Adapter to go on training: a folder, or a name in the Hugging Face cache. Its rank, alpha and targets come from its own"
                            + " adapter_config.json; giving other ones is refused.")
            .otherwise("a new one")
            .alias("adapter")
            .changeable();
    public static final Option<Path> TRAIN_FILE = Option.ofPath(
                    "train_file",
                    "JSONL file: in every line an object with text, or prompt and completion, or messages. Or a folder with"
                            + " train.jsonl and maybe valid.jsonl (or validation.jsonl), which becomes the eval_file.")
            .alias("data")
            .changeable();
    public static final Option<Path> EVAL_FILE = Option.ofPath(
                    "eval_file",
                    "JSONL file, or folder with valid.jsonl, to compute the loss of as eval_strategy says. The loss is the mean"
                            + " over all its target tokens, whatever the batch size; its rows are never packed.")
            .otherwise("the validation file of train_file's folder, if it is one")
            .changeable();
    public static final Option<String> DATASET_TEXT_FIELD = Option.ofString(
            "dataset_text_field", "text", "Name of the field that holds the text, in rows that are just text.");
    public static final Option<Path> OUTPUT_DIR = Option.ofPath(
                    "output_dir", "Folder for the adapter, the checkpoints and metrics.jsonl.")
            .changeable();
    public static final Option<Boolean> OVERWRITE_OUTPUT_DIR = Option.ofBoolean(
                    "overwrite_output_dir",
                    false,
                    "Delete the adapter, the checkpoints and the metrics of an earlier run in output_dir.")
            .changeable();
    public static final Option<String> RESUME_FROM_CHECKPOINT = Option.ofString(
                    "resume_from_checkpoint",
                    "false",
                    "Go on from a checkpoint: its folder, or true (or last) for the newest one in output_dir.")
            .alias("resume")
            .changeable();

    public static final Option<Integer> LORA_R = Option.ofInt("lora_r", 16, 1, "Rank of the adapter.");
    public static final Option<Double> LORA_ALPHA = Option.ofDouble(
            "lora_alpha",
            32,
            Double.MIN_VALUE,
            Double.MAX_VALUE,
            false,
            "The update is scaled by lora_alpha / rank, or lora_alpha / sqrt(rank) with use_rslora.");
    public static final Option<Double> LORA_DROPOUT =
            Option.ofDouble("lora_dropout", 0.05, 0, 1, true, "Dropout of the adapter's input in training.");
    public static final Option<ModuleFilter> LORA_TARGET_MODULES = Option.ofModules(
                    "lora_target_modules",
                    new ModuleFilter.AllLinear(),
                    "Modules that get an adapter: names separated by commas, a regular expression for whole module names,"
                            + " or all-linear. Every name must match something.")
            .trl("PEFT's list for the model, often q_proj,v_proj only");
    public static final Option<ModuleFilter> EXCLUDE_MODULES = Option.ofModules(
                    "exclude_modules",
                    null,
                    "Modules that get no adapter although lora_target_modules names them: names or a regular expression.")
            .otherwise("none");
    public static final Option<List<Integer>> LAYERS_TO_TRANSFORM = Option.ofInts(
                    "layers_to_transform",
                    "Indices of the only layers that get an adapter, separated by commas; not with a regular expression.")
            .otherwise("all layers");
    public static final Option<Boolean> USE_RSLORA =
            Option.ofBoolean("use_rslora", false, "Rank-stabilized scaling, lora_alpha / sqrt(rank).");
    public static final Option<Map<String, Double>> RANK_PATTERN = Option.ofPattern(
            "rank_pattern",
            true,
            "Other ranks by module name ending or regular expression; the first that matches wins.");
    public static final Option<Map<String, Double>> ALPHA_PATTERN = Option.ofPattern(
            "alpha_pattern", false, "Other lora_alphas by module name ending or regular expression; the first wins.");

    public static final Option<Integer> PER_DEVICE_TRAIN_BATCH_SIZE = Option.ofInt(
            "per_device_train_batch_size",
            8,
            1,
            "Rows of a micro-batch; with packing, packed sequences of a micro-batch.");
    public static final Option<Integer> GRADIENT_ACCUMULATION_STEPS = Option.ofInt(
            "gradient_accumulation_steps",
            1,
            1,
            "Micro-batches of an optimizer step. The loss is the mean over all target tokens of the step.");
    public static final Option<Double> LEARNING_RATE = Option.ofDouble(
                    "learning_rate", 2e-4, 0, Double.MAX_VALUE, false, "Highest learning rate of AdamW.")
            .trl("2e-05, meant for full fine-tuning; adapters need about ten times that");
    public static final Option<Optimizer> OPTIM = Option.of(
                    "optim",
                    "adamw_torch|adamw_8bit",
                    Optimizer.ADAMW_TORCH,
                    "AdamW with moments in float32, or in 8 bits with a scale for each block of 256 for adapter matrices of at"
                            + " least 4096 numbers, as bitsandbytes has it: 2 bytes a number instead of 8.",
                    Optimizer::read)
            .trl("adamw_torch_fused, the same");
    public static final Option<Schedule.Type> LR_SCHEDULER_TYPE = Option.ofEnum(
            "lr_scheduler_type",
            Schedule.Type.class,
            Schedule.Type.LINEAR,
            "How the learning rate goes on after warm-up: down to 0 on a line or a half cosine, or constant.");
    public static final Option<Number> WARMUP_STEPS = Option.ofSteps(
            "warmup_steps",
            0,
            0,
            "Steps over which the learning rate rises from 0, or below 1 their part of all steps, rounded up. Not used by"
                    + " constant.");
    public static final Option<Double> WARMUP_RATIO = Option.ofDouble(
            "warmup_ratio", 0, 0, 1, false, "The older way to give warmup_steps as a part; warmup_steps wins over it.");
    public static final Option<Double> WEIGHT_DECAY = Option.ofDouble(
            "weight_decay", 0, 0, Double.MAX_VALUE, false, "Decoupled weight decay of AdamW, on every adapter tensor.");
    public static final Option<Double> ADAM_BETA1 =
            Option.ofDouble("adam_beta1", 0.9, 0, 1, true, "Decay of AdamW's first moment.");
    public static final Option<Double> ADAM_BETA2 =
            Option.ofDouble("adam_beta2", 0.999, 0, 1, true, "Decay of AdamW's second moment.");
    public static final Option<Double> ADAM_EPSILON =
            Option.ofDouble("adam_epsilon", 1e-8, Double.MIN_VALUE, Double.MAX_VALUE, false, "Epsilon of AdamW.");
    public static final Option<Double> MAX_GRAD_NORM = Option.ofDouble(
            "max_grad_norm",
            1,
            0,
            Double.MAX_VALUE,
            false,
            "Gradients are scaled down to this norm; 0 turns clipping off.");
    public static final Option<Integer> MAX_STEPS = Option.ofInt(
                    "max_steps",
                    -1,
                    -1,
                    "Optimizer steps of the run; -1 leaves it to num_train_epochs. A resumed run may have another number: the"
                            + " learning rates of the steps that are left then follow the schedule over that number.")
            .changeable();
    public static final Option<Double> NUM_TRAIN_EPOCHS = Option.ofDouble(
                    "num_train_epochs",
                    3,
                    Double.MIN_VALUE,
                    1e9,
                    false,
                    "Passes over the data, if max_steps does not say it; may be a fraction. A resumed run may have another"
                            + " number, as for max_steps.")
            .changeable();
    public static final Option<Long> SEED = Option.ofLong(
            "seed", 42, "Determines the adapter's first values, the row order of every epoch and the dropout.");

    public static final Option<Integer> MAX_LENGTH = Option.ofInt(
                    "max_length",
                    1024,
                    0,
                    "The most tokens that a row may have, see on_long; 0 for no limit. With packing, also the length of a packed"
                            + " sequence.")
            .nullMeans(0);
    public static final Option<LongRows> ON_LONG = Option.ofEnum(
            "on_long",
            LongRows.class,
            LongRows.TRUNCATE,
            "What becomes of rows of more than max_length tokens: stop with an error, cut their end off, or drop them.");
    public static final Option<Boolean> PACKING = Option.ofBoolean(
            "packing",
            false,
            "Put several rows into one sequence of at most max_length tokens. Rows never see each other (see"
                    + " packing_strategy) and nothing is ever padded, so this only changes how many rows a step has.");
    public static final Option<PackingStrategy> PACKING_STRATEGY = Option.ofEnum(
            "packing_strategy",
            PackingStrategy.class,
            PackingStrategy.BFD,
            "bfd puts whole rows together (best fit decreasing, anew in every epoch), bfd_split first cuts long rows into"
                    + " pieces of max_length, wrapped joins all rows in the order of the file and cuts every max_length"
                    + " tokens, so that a sequence sees the row before.");
    public static final Option<Boolean> COMPLETION_ONLY_LOSS = Option.ofBoolean(
            "completion_only_loss", true, "Rows with prompt and completion: only the completion is learned.");
    public static final Option<Boolean> ASSISTANT_ONLY_LOSS = Option.ofBoolean(
                    "assistant_only_loss",
                    true,
                    "Rows with messages: only what the assistant says is learned, every turn of it.")
            .trl("false, everything is learned");
    public static final Option<Boolean> GRADIENT_CHECKPOINTING = Option.ofBoolean(
                    "gradient_checkpointing",
                    false,
                    "Recompute activations in the backward pass instead of keeping them: less memory, about a third more"
                            + " time, the same bits.")
            .trl("true")
            .alias("activation_checkpointing")
            .changeable();

    public static final Option<Boolean> BF16 = Option.ofBoolean(
                    "bf16",
                    false,
                    "Round the operands of every product to bf16 and add in float32, as bf16 of transformers does under autocast:"
                            + " faster where the CPU multiplies bf16 (lora4j doctor: isa_bf16), and the same bits everywhere. Dense base"
                            + " weights are held in bf16; adapter, gradients and everything else stay in float32.")
            .trl("true");

    public static final Option<Number> LOGGING_STEPS = Option.ofSteps(
                    "logging_steps", 10, 1, "Steps between two lines of metrics, or their part of all steps below 1.")
            .changeable();
    public static final Option<Milestones.EvalStrategy> EVAL_STRATEGY = Option.ofEnum(
                    "eval_strategy",
                    Milestones.EvalStrategy.class,
                    Milestones.EvalStrategy.EPOCH,
                    "When to evaluate, if there is an eval_file: never, every eval_steps, or at the end of every epoch; and"
                            + " after the last step.")
            .trl("no");
    public static final Option<Number> EVAL_STEPS = Option.ofSteps(
                    "eval_steps", null, 1, "Steps between two evaluations, or their part of all steps below 1.")
            .otherwise("logging_steps");
    public static final Option<Integer> PER_DEVICE_EVAL_BATCH_SIZE = Option.ofInt(
                    "per_device_eval_batch_size", 8, 1, "Rows that are evaluated together; no result depends on it.")
            .changeable();
    public static final Option<Milestones.SaveStrategy> SAVE_STRATEGY = Option.ofEnum(
                    "save_strategy",
                    Milestones.SaveStrategy.class,
                    Milestones.SaveStrategy.STEPS,
                    "When to save a checkpoint: never (only the adapter at the end), every save_steps, at the end of every"
                            + " epoch, or after an evaluation that is the best so far. Ctrl-C always saves one.")
            .changeable();
    public static final Option<Number> SAVE_STEPS = Option.ofSteps(
                    "save_steps",
                    500,
                    0,
                    "Steps between two checkpoints, or their part of all steps below 1; 0 saves at the end only.")
            .changeable();
    public static final Option<Integer> SAVE_TOTAL_LIMIT = Option.ofInt(
                    "save_total_limit",
                    2,
                    0,
                    "How many checkpoints are kept, the newest and the best one always among them; 0 keeps all.")
            .trl("all are kept")
            .nullMeans(0)
            .changeable();
    public static final Option<Boolean> LOAD_BEST_MODEL_AT_END = Option.ofBoolean(
            "load_best_model_at_end",
            false,
            "Let the final adapter be that of the best evaluation. Every evaluation that is the best so far saves a"
                    + " checkpoint.");
    public static final Option<String> METRIC_FOR_BEST_MODEL = Option.of(
            "metric_for_best_model",
            "METRIC",
            "eval_loss",
            "What the best evaluation is the best by: eval_loss or eval_mean_token_accuracy; eval_ may be left out.",
            BestModel::metricName);
    public static final Option<Boolean> GREATER_IS_BETTER = Option.ofBoolean(
                    "greater_is_better", null, "Whether a greater metric_for_best_model is better.")
            .otherwise("as the metric is");
    public static final Option<Boolean> DRY_RUN = Option.ofBoolean(
                    "dry_run",
                    false,
                    "Do everything up to the first step, show what would be trained on what and how much memory it needs, and"
                            + " write nothing.")
            .changeable();
    public static final Option<Integer> THREADS = Option.ofInt(
                    "threads",
                    0,
                    0,
                    "Threads that compute; 0 takes every CPU this process may use. Results do not depend on it.")
            .changeable();

    /** Every option, in the order in which help shows them. */
    public static final OptionTable TABLE = new OptionTable(
            "train",
            List.of(
                    MODEL_NAME_OR_PATH,
                    LoadOptions.LOAD_IN_4BIT,
                    LoadOptions.BNB_4BIT_QUANT_TYPE,
                    LoadOptions.BNB_4BIT_USE_DOUBLE_QUANT,
                    ADAPTER_NAME_OR_PATH,
                    TRAIN_FILE,
                    EVAL_FILE,
                    DATASET_TEXT_FIELD,
                    OUTPUT_DIR,
                    OVERWRITE_OUTPUT_DIR,
                    RESUME_FROM_CHECKPOINT,
                    DRY_RUN,
                    LORA_R,
                    LORA_ALPHA,
                    LORA_DROPOUT,
                    LORA_TARGET_MODULES,
                    EXCLUDE_MODULES,
                    LAYERS_TO_TRANSFORM,
                    USE_RSLORA,
                    RANK_PATTERN,
                    ALPHA_PATTERN,
                    InitOptions.INIT_LORA_WEIGHTS,
                    InitOptions.LOFTQ_ITER,
                    PER_DEVICE_TRAIN_BATCH_SIZE,
                    GRADIENT_ACCUMULATION_STEPS,
                    OPTIM,
                    LEARNING_RATE,
                    LR_SCHEDULER_TYPE,
                    WARMUP_STEPS,
                    WARMUP_RATIO,
                    WEIGHT_DECAY,
                    ADAM_BETA1,
                    ADAM_BETA2,
                    ADAM_EPSILON,
                    MAX_GRAD_NORM,
                    MAX_STEPS,
                    NUM_TRAIN_EPOCHS,
                    MAX_LENGTH,
                    ON_LONG,
                    PACKING,
                    PACKING_STRATEGY,
                    COMPLETION_ONLY_LOSS,
                    ASSISTANT_ONLY_LOSS,
                    ChatOptions.CHAT_TEMPLATE_PATH,
                    ChatOptions.CHAT_TEMPLATE_KWARGS,
                    ChatOptions.TEMPLATE_DATE,
                    GRADIENT_CHECKPOINTING,
                    BF16,
                    SEED,
                    LOGGING_STEPS,
                    EVAL_STRATEGY,
                    EVAL_STEPS,
                    PER_DEVICE_EVAL_BATCH_SIZE,
                    SAVE_STRATEGY,
                    SAVE_STEPS,
                    SAVE_TOTAL_LIMIT,
                    LOAD_BEST_MODEL_AT_END,
                    METRIC_FOR_BEST_MODEL,
                    GREATER_IS_BETTER,
                    THREADS),
            ForeignOptions.list());

    private TrainOptions() {}

    /** Returns a builder without any value. */
    public static Settings.Builder builder() {
        return Settings.builder(TABLE);
    }

    /**
     * Checks what concerns several options at once.
     *
     * @throws OptionException if an option is missing or two do not go together
     */
    public static void check(Settings settings) {
        OptionRules.check(settings);
    }

    /** Returns the precision of the run's products. */
    static Compute compute(Settings settings) {
        return settings.get(BF16) ? Compute.BF16 : Compute.F32;
    }

    /** Returns whether the run goes on from a checkpoint. */
    public static boolean isResumed(Settings settings) {
        return !settings.get(RESUME_FROM_CHECKPOINT).equals("false");
    }
}
