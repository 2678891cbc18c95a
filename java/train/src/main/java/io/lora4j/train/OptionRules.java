package io.lora4j.train;

import io.lora4j.formats.ModuleFilter;
import io.lora4j.train.data.PackingStrategy;
import java.util.List;

/** What concerns several options of {@link TrainOptions} at once. */
final class OptionRules {
    private OptionRules() {}

    static void check(Settings settings) {
        settings.get(TrainOptions.MODEL_NAME_OR_PATH);
        settings.get(TrainOptions.TRAIN_FILE);
        settings.get(TrainOptions.OUTPUT_DIR);
        checkSteps(settings);
        checkData(settings);
        checkEvaluation(settings);
        checkAdapter(settings);
        LoadOptions.fourBit(settings);
        InitOptions.check(settings);
        if (TrainOptions.isResumed(settings) && settings.get(TrainOptions.OVERWRITE_OUTPUT_DIR)) {
            throw new OptionException(
                    "options resume_from_checkpoint and overwrite_output_dir exclude each other: the one"
                            + " keeps the earlier run, the other deletes it");
        }
    }

    private static void checkSteps(Settings settings) {
        if (settings.get(TrainOptions.MAX_STEPS) == 0) {
            throw new OptionException(
                    "option max_steps: found 0, expected a positive number, or -1 to use num_train_epochs");
        }
        if (settings.get(TrainOptions.LR_SCHEDULER_TYPE) == Schedule.Type.CONSTANT) {
            for (Option<? extends Number> warmup : List.of(TrainOptions.WARMUP_STEPS, TrainOptions.WARMUP_RATIO)) {
                Number given = settings.get(warmup);
                if (given.doubleValue() > 0) {
                    throw new OptionException("option " + warmup.name() + ": found " + given
                            + ", but lr_scheduler_type constant has no warm-up; use constant_with_warmup");
                }
            }
        }
    }

    private static void checkData(Settings settings) {
        if (settings.get(TrainOptions.PACKING) && settings.get(TrainOptions.MAX_LENGTH) == 0) {
            throw new OptionException(
                    "option packing: needs max_length, the length of a packed sequence; found max_length 0");
        }
        PackingStrategy strategy = settings.get(TrainOptions.PACKING_STRATEGY);
        if (settings.get(TrainOptions.PACKING)
                && strategy != PackingStrategy.BFD
                && settings.isSet(TrainOptions.ON_LONG)) {
            throw new OptionException("option on_long: packing_strategy " + Option.show(strategy)
                    + " keeps every token of a long row; remove one of the two options");
        }
    }

    private static void checkEvaluation(Settings settings) {
        boolean never = settings.get(TrainOptions.EVAL_STRATEGY) == Milestones.EvalStrategy.NO;
        boolean best = settings.get(TrainOptions.LOAD_BEST_MODEL_AT_END);
        if (never && (best || settings.get(TrainOptions.SAVE_STRATEGY) == Milestones.SaveStrategy.BEST)) {
            throw new OptionException("option " + (best ? "load_best_model_at_end" : "save_strategy")
                    + ": needs evaluations to find the best; found eval_strategy no, expected steps or epoch");
        }
        String metric = settings.get(TrainOptions.METRIC_FOR_BEST_MODEL);
        boolean natural = BestModel.Metric.of(metric).greaterIsBetter();
        if (settings.find(TrainOptions.GREATER_IS_BETTER).orElse(natural) != natural) {
            throw new OptionException("option greater_is_better: found " + !natural + ", but a "
                    + (natural ? "greater" : "smaller") + " " + metric + " is better; remove the option");
        }
    }

    /**
     * Checks what needs evaluation data.
     *
     * @throws OptionException if an option asks for evaluations and there is nothing to evaluate
     */
    static void requireEvalData(Settings settings) {
        if (settings.get(TrainOptions.EVAL_STRATEGY) == Milestones.EvalStrategy.NO) {
            return; // Then the others that would need it are refused by check, or say nothing.
        }
        if (settings.isSet(TrainOptions.EVAL_STRATEGY)) {
            throw nothingToEvaluate(settings, TrainOptions.EVAL_STRATEGY);
        }
        if (settings.isSet(TrainOptions.EVAL_STEPS)) {
            throw nothingToEvaluate(settings, TrainOptions.EVAL_STEPS);
        }
        if (settings.get(TrainOptions.LOAD_BEST_MODEL_AT_END)) {
            throw nothingToEvaluate(settings, TrainOptions.LOAD_BEST_MODEL_AT_END);
        }
        if (settings.get(TrainOptions.SAVE_STRATEGY) == Milestones.SaveStrategy.BEST) {
            throw nothingToEvaluate(settings, TrainOptions.SAVE_STRATEGY);
        }
    }

    private static OptionException nothingToEvaluate(Settings settings, Option<?> option) {
        return new OptionException(
                "option " + option.name() + ": found " + settings.toMap().get(option.name())
                        + ", but there is nothing to evaluate; give an eval_file, or a folder with valid.jsonl as train_file");
    }

    private static void checkAdapter(Settings settings) {
        boolean layers = settings.isSet(TrainOptions.LAYERS_TO_TRANSFORM);
        if (layers && settings.get(TrainOptions.LORA_TARGET_MODULES) instanceof ModuleFilter.Regex) {
            throw new OptionException("option layers_to_transform: lora_target_modules is a regular expression, which"
                    + " PEFT refuses beside it; name the layers in the expression, or the modules in a list");
        }
        if (settings.find(TrainOptions.EXCLUDE_MODULES).orElse(null) instanceof ModuleFilter.AllLinear) {
            throw new OptionException(
                    "option exclude_modules: found all-linear, expected names or a regular expression");
        }
        if (!settings.isSet(TrainOptions.ADAPTER_NAME_OR_PATH)) {
            return;
        }
        for (Option<?> option : List.of(
                TrainOptions.LORA_R,
                TrainOptions.LORA_ALPHA,
                TrainOptions.LORA_TARGET_MODULES,
                TrainOptions.EXCLUDE_MODULES,
                TrainOptions.LAYERS_TO_TRANSFORM,
                TrainOptions.USE_RSLORA,
                TrainOptions.RANK_PATTERN,
                TrainOptions.ALPHA_PATTERN,
                InitOptions.INIT_LORA_WEIGHTS)) {
            if (settings.isSet(option)) {
                throw new OptionException(
                        "option " + option.name() + ": an adapter that is trained further keeps its own; remove"
                                + " the option, or adapter_name_or_path to start a new adapter");
            }
        }
    }
}
