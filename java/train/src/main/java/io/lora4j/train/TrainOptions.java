package io.lora4j.train;

import io.lora4j.formats.ModuleFilter;
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
                    "Folder of the base model in Hugging Face layout (config.json, model.safetensors, tokenizer.json). It is"
                            + " only read.")
            .alias("model")
            .changeable();
    public static final Option<Path> ADAPTER_NAME_OR_PATH = Option.ofPath(
                    "adapter_name_or_path",
                    "Folder of an adapter to go on training. Its rank, alpha and targets come from its own"
                            + " adapter_config.json; giving other ones is refused.")
            .alias("adapter")
            .changeable();
    public static final Option<Path> TRAIN_FILE = Option.ofPath(
                    "train_file",
                    "JSONL file: in every line an object with text, or prompt and completion, or messages.")
            .alias("data")
            .changeable();
    public static final Option<Path> EVAL_FILE = Option.ofPath(
                    "eval_file", "JSONL file to compute the loss of at every save and at the end.")
            .changeable();
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
    public static final Option<Schedule.Type> LR_SCHEDULER_TYPE = Option.ofEnum(
            "lr_scheduler_type",
            Schedule.Type.class,
            Schedule.Type.LINEAR,
            "How the learning rate goes on after warm-up: down to 0 on a line or a half cosine, or constant.");
    public static final Option<Integer> WARMUP_STEPS = Option.ofInt(
            "warmup_steps", 0, 0, "Steps over which the learning rate rises from 0. Not used by constant.");
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
                    "max_steps", -1, -1, "Optimizer steps of the run; -1 leaves it to num_train_epochs.")
            .changeable();
    public static final Option<Double> NUM_TRAIN_EPOCHS = Option.ofDouble(
                    "num_train_epochs",
                    3,
                    Double.MIN_VALUE,
                    1e9,
                    false,
                    "Passes over the data, if max_steps does not say it; may be a fraction.")
            .changeable();
    public static final Option<Long> SEED = Option.ofLong(
            "seed", 42, "Determines the adapter's first values, the row order of every epoch and the dropout.");

    public static final Option<Integer> MAX_LENGTH = Option.ofInt(
            "max_length",
            1024,
            0,
            "Rows are cut at the end to this many tokens; 0 never cuts. With packing, also the length of a packed sequence.");
    public static final Option<Boolean> PACKING = Option.ofBoolean(
            "packing",
            false,
            "Put several rows into one sequence of at most max_length tokens. Rows never see each other, and nothing is"
                    + " ever padded, so this only changes how many rows a step has.");
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
            .changeable();

    public static final Option<Integer> LOGGING_STEPS = Option.ofInt(
                    "logging_steps", 10, 1, "Steps between two lines of metrics.")
            .changeable();
    public static final Option<Integer> SAVE_STEPS = Option.ofInt(
                    "save_steps",
                    500,
                    0,
                    "Steps between two checkpoints; 0 saves at the end only. The newest two checkpoints are kept.")
            .trl("500, and every checkpoint is kept")
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
                    ADAPTER_NAME_OR_PATH,
                    TRAIN_FILE,
                    EVAL_FILE,
                    OUTPUT_DIR,
                    OVERWRITE_OUTPUT_DIR,
                    RESUME_FROM_CHECKPOINT,
                    LORA_R,
                    LORA_ALPHA,
                    LORA_DROPOUT,
                    LORA_TARGET_MODULES,
                    USE_RSLORA,
                    RANK_PATTERN,
                    ALPHA_PATTERN,
                    PER_DEVICE_TRAIN_BATCH_SIZE,
                    GRADIENT_ACCUMULATION_STEPS,
                    LEARNING_RATE,
                    LR_SCHEDULER_TYPE,
                    WARMUP_STEPS,
                    WEIGHT_DECAY,
                    ADAM_BETA1,
                    ADAM_BETA2,
                    ADAM_EPSILON,
                    MAX_GRAD_NORM,
                    MAX_STEPS,
                    NUM_TRAIN_EPOCHS,
                    MAX_LENGTH,
                    PACKING,
                    COMPLETION_ONLY_LOSS,
                    ASSISTANT_ONLY_LOSS,
                    ChatOptions.CHAT_TEMPLATE_PATH,
                    ChatOptions.CHAT_TEMPLATE_KWARGS,
                    ChatOptions.TEMPLATE_DATE,
                    GRADIENT_CHECKPOINTING,
                    SEED,
                    LOGGING_STEPS,
                    SAVE_STEPS,
                    THREADS));

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
        settings.get(MODEL_NAME_OR_PATH);
        settings.get(TRAIN_FILE);
        settings.get(OUTPUT_DIR);
        if (settings.get(MAX_STEPS) == 0) {
            throw new OptionException(
                    "option max_steps: found 0, expected a positive number, or -1 to use num_train_epochs");
        }
        if (settings.get(PACKING) && settings.get(MAX_LENGTH) == 0) {
            throw new OptionException(
                    "option packing: needs max_length, the length of a packed sequence; found max_length 0");
        }
        Schedule.Type type = settings.get(LR_SCHEDULER_TYPE);
        if (type == Schedule.Type.CONSTANT && settings.get(WARMUP_STEPS) > 0) {
            throw new OptionException("option warmup_steps: found " + settings.get(WARMUP_STEPS)
                    + ", but lr_scheduler_type constant has no warm-up; use constant_with_warmup");
        }
        if (isResumed(settings) && settings.get(OVERWRITE_OUTPUT_DIR)) {
            throw new OptionException(
                    "options resume_from_checkpoint and overwrite_output_dir exclude each other: the one"
                            + " keeps the earlier run, the other deletes it");
        }
        if (settings.isSet(ADAPTER_NAME_OR_PATH)) {
            for (Option<?> option :
                    List.of(LORA_R, LORA_ALPHA, LORA_TARGET_MODULES, USE_RSLORA, RANK_PATTERN, ALPHA_PATTERN)) {
                if (settings.isSet(option)) {
                    throw new OptionException(
                            "option " + option.name() + ": an adapter that is trained further keeps its own; remove"
                                    + " the option, or adapter_name_or_path to start a new adapter");
                }
            }
        }
    }

    /** Returns whether the run goes on from a checkpoint. */
    public static boolean isResumed(Settings settings) {
        return !settings.get(RESUME_FROM_CHECKPOINT).equals("false");
    }
}
