package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** Every option that TRL and PEFT have is one of ours, changes nothing, or is refused by name. */
class ForeignOptionsTest {
    /** Defaults that are refused: without PEFT nothing is left, and PEFT's r is TRL's lora_r. */
    private static final Set<String> OTHER_DEFAULTS = Set.of("use_peft", "r");

    private static JsonNode golden() throws IOException {
        Path file = Path.of(System.getProperty("lora4j.root"), "test-data", "train", "trl_options.json");
        return new JsonMapper().readTree(Files.readAllBytes(file));
    }

    @TestFactory
    Stream<DynamicTest> everyOptionIsKnownAndItsDefaultIsFine() throws IOException {
        JsonNode golden = golden();
        List<DynamicTest> tests = new ArrayList<>();
        for (String part : List.of("sft_config", "model_config", "script_arguments", "lora_config")) {
            for (String name : golden.get(part).propertyNames()) {
                JsonNode value = golden.get(part).get(name);
                tests.add(DynamicTest.dynamicTest(part + "." + name, () -> {
                    Settings.Builder builder = TrainOptions.builder();
                    if (value.isNull()) {
                        builder.putNull(name);
                    } else if (OTHER_DEFAULTS.contains(name)) {
                        assertThatThrownBy(() -> builder.put(name, value.asString()))
                                .hasMessageContaining("option " + name + ": found " + value.asString());
                    } else {
                        builder.put(name, value.isContainer() ? value.toString() : value.asString());
                    }
                }));
            }
        }
        assertThat(tests).hasSizeGreaterThan(200);
        return tests.stream();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "tf32; true; computes in float32",
                "--fp16; true; computes in float32",
                "report_to; wandb; metrics.jsonl",
                "push_to_hub; true; nothing is uploaded",
                "deepspeed; ds.json; one process",
                "neftune_noise_alpha; 5; no noise",
                "use_dora; true; DoRA is not built",
                "dataset_name; trl-lib/Capybara; local JSONL files",
                "modules_to_save; lm_head; low-rank factors of linear layers",
                "Label-Smoothing-Factor; 0.1; targets are not smoothed",
                "model_revision; v2; owner/name@revision",
                "target_modules; q_proj; the option is lora_target_modules",
                "r; 8; the option is lora_r"
            })
    void refusedByNameWithTheReason(String key, String value, String why) {
        assertThatThrownBy(() -> TrainOptions.builder().put(key, value))
                .isInstanceOf(OptionException.class)
                .hasMessageStartingWith("option "
                        + key.replace("-", "_").replaceFirst("^__", "").toLowerCase() + ": found " + value
                        + ", which lora4j does not support: ")
                .hasMessageContaining(why);
    }

    @ParameterizedTest
    @CsvSource({"report_to, none", "fp16, False", "dataloader_num_workers, 4", "use_peft, true"})
    void valuesThatChangeNothingSetNothing(String key, String value) {
        assertThat(TrainOptions.builder().put(key, value).build().toMap())
                .isEqualTo(TrainOptions.builder().build().toMap());
    }

    @Test
    void noneIsAnOptionOfOurs() {
        List<String> names =
                ForeignOptions.list().stream().map(ForeignOption::name).toList();
        assertThat(names).doesNotHaveDuplicates();
        assertThat(TrainOptions.TABLE.options().stream().map(Option::name)).doesNotContainAnyElementsOf(names);
        assertThat(TrainOptions.TABLE.options().stream().flatMap(o -> o.aliases().stream()))
                .doesNotContainAnyElementsOf(names);
    }

    /** What --help says of TRL is what TRL has. */
    @Test
    void theDefaultsThatDifferAreMarked() throws IOException {
        JsonNode golden = golden();
        List<String> differ = new ArrayList<>();
        for (Option<?> option : TrainOptions.TABLE.options()) {
            JsonNode theirs = StreamSupport.stream(golden.spliterator(), false)
                    .map(part -> part.path(option.name()))
                    .filter(node -> !node.isMissingNode())
                    .findFirst()
                    .orElse(null);
            if (theirs == null || theirs.isContainer() || option.defaultValue() == null) {
                continue;
            }
            String ours = Option.show(option.defaultValue());
            boolean same = theirs.isNumber() && option.defaultValue() instanceof Number n
                    ? n.doubleValue() == theirs.doubleValue()
                    : ours.equals(theirs.isNull() ? "none" : theirs.asString());
            assertThat(option.trlDefault().isEmpty() || !same).as(option.name()).isTrue();
            if (!same && option.trlDefault().isEmpty()) {
                differ.add(option.name());
            }
        }
        // TRL's null means what these say.
        assertThat(differ)
                .containsExactlyInAnyOrder("resume_from_checkpoint", "completion_only_loss", "metric_for_best_model");
    }
}
