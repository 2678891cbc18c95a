package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.ModuleFilter;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class TrainOptionsTest {
    private static Settings.Builder complete() {
        return TrainOptions.builder()
                .put("model_name_or_path", "m")
                .put("train_file", "d.jsonl")
                .put("output_dir", "out");
    }

    private static Settings checked(Settings.Builder builder) {
        Settings settings = builder.build();
        TrainOptions.check(settings);
        return settings;
    }

    @ParameterizedTest
    @CsvSource({"--lora-r", "lora_r", "LORA_R", "--lora_r", "lora-r"})
    void spellingsAreTheSame(String key) {
        assertThat(complete().put(key, "4").build().get(TrainOptions.LORA_R)).isEqualTo(4);
    }

    @ParameterizedTest
    @CsvSource({
        "adamw_torch, ADAMW_TORCH",
        "adamw_torch_fused, ADAMW_TORCH",
        "adamw_8bit, ADAMW_8BIT",
        "adamw_bnb_8bit, ADAMW_8BIT"
    })
    void optimizersByTheNamesOfTransformers(String name, Optimizer optimizer) {
        assertThat(complete().put("optim", name).build().get(TrainOptions.OPTIM))
                .isEqualTo(optimizer);
        assertThatThrownBy(() -> complete().put("optim", "paged_" + name))
                .isInstanceOf(OptionException.class)
                .hasMessage("option optim: found \"paged_" + name + "\", expected adamw_torch (adamw_torch_fused is the"
                        + " same) or adamw_8bit (adamw_bnb_8bit is the same)");
    }

    @Test
    void shortNames() {
        Settings settings = checked(TrainOptions.builder()
                .put("--model", "m")
                .put("--data", "d")
                .put("output_dir", "o")
                .put("--adapter", "a"));
        assertThat(settings.get(TrainOptions.MODEL_NAME_OR_PATH)).isEqualTo(Path.of("m"));
        assertThat(settings.get(TrainOptions.ADAPTER_NAME_OR_PATH)).isEqualTo(Path.of("a"));
    }

    @ParameterizedTest
    @CsvSource({
        "learning_rat, did you mean learning_rate?",
        "lora_rank, did you mean lora_",
        "num_epochs, did you mean num_train_epochs?",
        "per_device_batch_size, did you mean per_device_",
        "xyzzy, unknown option xyzzy of train (see lora4j train --help)"
    })
    void unknownNamesGetTheNearest(String key, String expected) {
        assertThatThrownBy(() -> complete().put(key, "1"))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("unknown option " + key)
                .hasMessageContaining(expected);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "lora_r; 0; a whole number from 1",
                "lora_r; 2.5; a whole number",
                "lora_dropout; 1; at least 0.0 and below 1.0",
                "lora_dropout; NaN; a finite number",
                "learning_rate; fast; a number",
                "packing; yes; true or false",
                "lr_scheduler_type; polynomial; one of linear|cosine|constant|constant_with_warmup",
                "rank_pattern; [1]; a map of module name to rank",
                "rank_pattern; {\"q_proj\": 1.5}; a map of module name to rank",
                "logging_steps; 0; a whole number of at least 1, or a part of all steps between 0 and 1",
                "save_steps; 1.5; a whole number of at least 0, or a part",
                "warmup_steps; -1; a whole number of at least 0",
                "layers_to_transform; 0,-1; whole numbers from 0",
                "eval_strategy; always; one of no|steps|epoch",
                "on_long; cut; one of error|truncate|drop",
                "packing_strategy; bfd-requeue; one of bfd|bfd_split|wrapped",
                "metric_for_best_model; bleu; eval_loss or eval_mean_token_accuracy",
                "adam_epsilon; 0; a number above 0",
                "chat_template_kwargs; [1]; a map of name to value",
                "chat_template_kwargs; {\"messages\": []}; a map without messages, which is set otherwise",
                "template_date; 7 March; a date as YYYY-MM-DD or YYYY-MM-DDTHH:MM",
                "seed; 1e3; a whole number"
            })
    void wrongValuesNameTheOption(String key, String value, String expected) {
        assertThatThrownBy(() -> complete().put(key, value))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("option " + key + ": found \"" + value + "\", expected ")
                .hasMessageContaining(expected);
    }

    @Test
    void chatOptions() {
        Settings settings = complete()
                .put("chat_template_kwargs", "{\"enable_thinking\": false, \"n\": [1, \"two\"]}")
                .put("template_date", "2026-03-07")
                .build();
        assertThat(settings.get(ChatOptions.CHAT_TEMPLATE_KWARGS))
                .containsExactly(Map.entry("enable_thinking", false), Map.entry("n", List.of(1, "two")));
        assertThat(settings.toMap())
                .containsEntry("chat_template_kwargs", "{\"enable_thinking\":false,\"n\":[1,\"two\"]}");
        assertThat(ChatOptions.clock(settings, Clock.systemUTC())).isEqualTo("2026-03-07T00:00Z");
        assertThat(ChatOptions.clock(
                        complete().put("template_date", "2026-03-07T14:05").build(), Clock.systemUTC()))
                .isEqualTo("2026-03-07T14:05Z");
        Clock now = Clock.fixed(Instant.parse("2026-05-06T07:08:09.5Z"), ZoneOffset.UTC);
        assertThat(ChatOptions.clock(complete().build(), now)).isEqualTo("2026-05-06T07:08:09Z");
    }

    @Test
    void targetModules() {
        assertThat(targets("all-linear")).isEqualTo(new ModuleFilter.AllLinear());
        assertThat(targets("q_proj")).isEqualTo(new ModuleFilter.Names(List.of("q_proj")));
        assertThat(targets("q_proj,v_proj")).isEqualTo(new ModuleFilter.Names(List.of("q_proj", "v_proj")));
        assertThat(targets(List.of("q_proj", "v_proj"))).isEqualTo(new ModuleFilter.Names(List.of("q_proj", "v_proj")));
        assertThat(targets(".*\\.(q|v)_proj")).isEqualTo(new ModuleFilter.Regex(".*\\.(q|v)_proj"));
    }

    private static ModuleFilter targets(Object value) {
        return complete().put("lora_target_modules", value).build().get(TrainOptions.LORA_TARGET_MODULES);
    }

    @Test
    void stepsAreWholeOrAPart() {
        assertThat(complete().put("save_steps", "0.25").build().get(TrainOptions.SAVE_STEPS))
                .isEqualTo(0.25);
        assertThat(complete().put("save_steps", 20.0).build().get(TrainOptions.SAVE_STEPS))
                .isEqualTo(20);
        assertThat(complete().set(TrainOptions.SAVE_STEPS, 7).build().toMap()).containsEntry("save_steps", "7");
        assertThat(complete().build().find(TrainOptions.EVAL_STEPS)).isEmpty();
        assertThat(TrainOptions.EVAL_STEPS.describeDefault()).isEqualTo("default: logging_steps");
    }

    @Test
    void listsOfNumbers() {
        for (Object given : List.of("1,3", "1 3", List.of(1, 3))) {
            Settings settings = complete().put("layers_to_transform", given).build();
            assertThat(settings.get(TrainOptions.LAYERS_TO_TRANSFORM)).containsExactly(1, 3);
            assertThat(settings.toMap()).containsEntry("layers_to_transform", "1,3");
        }
        assertThat(complete()
                        .set(TrainOptions.LAYERS_TO_TRANSFORM, List.of(2))
                        .build()
                        .get(TrainOptions.LAYERS_TO_TRANSFORM))
                .containsExactly(2);
    }

    @Test
    void nullMeansWhatItMeansInTrl() {
        Settings settings = complete()
                .putNull("max_length")
                .putNull("save_total_limit")
                .putNull("lora_r")
                .putNull("deepspeed")
                .build();
        assertThat(settings.get(TrainOptions.MAX_LENGTH)).isZero();
        assertThat(settings.get(TrainOptions.SAVE_TOTAL_LIMIT)).isZero();
        assertThat(settings.get(TrainOptions.LORA_R)).isEqualTo(16);
        assertThatThrownBy(() -> complete().putNull("max_lenght")).hasMessageContaining("did you mean max_length?");
    }

    @Test
    void valuesSetInJavaAreCheckedToo() {
        assertThatThrownBy(() -> complete().set(TrainOptions.LORA_R, -1))
                .hasMessageContaining("option lora_r: found \"-1\"");
        assertThat(complete()
                        .set(TrainOptions.RANK_PATTERN, Map.of("q_proj", 4.0))
                        .build()
                        .get(TrainOptions.RANK_PATTERN))
                .isEqualTo(Map.of("q_proj", 4.0));
        assertThat(complete()
                        .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.COSINE)
                        .build()
                        .get(TrainOptions.LR_SCHEDULER_TYPE))
                .isEqualTo(Schedule.Type.COSINE);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "max_steps=0; option max_steps: found 0",
                "packing=true max_length=0; option packing: needs max_length",
                "lr_scheduler_type=constant warmup_steps=3; use constant_with_warmup",
                "lr_scheduler_type=constant warmup_ratio=0.1; option warmup_ratio: found 0.1",
                "packing=true packing_strategy=wrapped on_long=drop; option on_long: packing_strategy wrapped keeps every token",
                "eval_strategy=no load_best_model_at_end=true; option load_best_model_at_end: needs evaluations",
                "eval_strategy=no save_strategy=best; option save_strategy: needs evaluations",
                "greater_is_better=true; a smaller eval_loss is better",
                "metric_for_best_model=mean_token_accuracy greater_is_better=false; a greater eval_mean_token_accuracy",
                "lora_target_modules=.*q_proj layers_to_transform=0; option layers_to_transform: lora_target_modules is a",
                "exclude_modules=all-linear; option exclude_modules: found all-linear",
                "adapter=a layers_to_transform=1; option layers_to_transform: an adapter that is trained further",
                "resume=true overwrite_output_dir=true; exclude each other",
                "adapter=a lora_r=4; option lora_r: an adapter that is trained further keeps its own"
            })
    void optionsThatDoNotGoTogether(String options, String expected) {
        Settings.Builder builder = complete();
        for (String option : options.split(" ")) {
            builder.put(option.split("=")[0], option.split("=")[1]);
        }
        assertThatThrownBy(() -> TrainOptions.check(builder.build()))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining(expected);
    }

    @Test
    void missingOptions() {
        assertThatThrownBy(() -> TrainOptions.check(TrainOptions.builder().build()))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("option model_name_or_path is missing");
    }

    @Test
    void helpSaysWhereTrlDiffers() {
        assertThat(TrainOptions.ASSISTANT_ONLY_LOSS.describeDefault()).startsWith("default: true; TRL: false");
        assertThat(TrainOptions.LORA_R.describeDefault()).isEqualTo("default: 16");
        assertThat(TrainOptions.LEARNING_RATE.describeDefault()).startsWith("default: 0.0002; TRL: 2e-05");
        assertThat(TrainOptions.ADAM_EPSILON.describeDefault()).isEqualTo("default: 1e-8");
        assertThat(TrainOptions.LORA_ALPHA.describeDefault()).isEqualTo("default: 32");
        assertThat(TrainOptions.OUTPUT_DIR.describeDefault()).isEqualTo("required");
    }
}
