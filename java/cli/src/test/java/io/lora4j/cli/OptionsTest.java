package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.train.Option;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

/** How options are written: flags in every spelling, YAML files, and what is said of wrong ones. */
class OptionsTest {
    @TempDir
    Path dir;

    /** Trains no step: the run is stopped by a mistake that is only seen after all options were read. */
    private static String planned(Object... args) {
        Object[] all = new Object[args.length + 7];
        System.arraycopy(
                new Object[] {"train", "--model", Cli.TINY, "--output_dir", "never", "--train_file", "none.jsonl"},
                0,
                all,
                0,
                7);
        System.arraycopy(args, 0, all, 7, args.length);
        return Cli.run(all).err();
    }

    @ParameterizedTest
    @ValueSource(strings = {"--max_length", "--max-length", "--MAX_Length", "--max-length="})
    void dashesAndCaseOfNamesDoNotMatter(String name) throws IOException {
        Path data = Files.writeString(dir.resolve("d.jsonl"), "{\"text\": \"one day a cat sat on a mat\"}\n");
        Object[] length = name.endsWith("=") ? new Object[] {name + 4} : new Object[] {name, 4};
        Object[] args = new Object[6 + length.length];
        System.arraycopy(new Object[] {"eval", "--model", Cli.TINY, "--data", data, "--json"}, 0, args, 0, 6);
        System.arraycopy(length, 0, args, 6, length.length);
        assertThat(Cli.run(args).json().get("target_tokens").intValue()).isEqualTo(3);
    }

    @Test
    void yamlFileAndFlagsThatWin() throws IOException {
        Path data = Cli.data(dir);
        Path config = Files.writeString(dir.resolve("run.yaml"), """
                # as TRL has it
                model_name_or_path: %s
                data: %s
                output-dir: %s
                lora_r: 2
                lora_target_modules: [q_proj, v_proj]
                rank_pattern: {v_proj: 3}
                learning_rate: 1e-3
                packing: true
                max_steps: 1
                lora_alpha:
                """.formatted(Cli.TINY, data, dir.resolve("file")));
        Cli.Result file = Cli.run("train", "--config", config, "--json");
        assertThat(file.json().get("step").intValue()).isEqualTo(1);
        assertThat(file.err()).contains("adapter   r 2, alpha 32.0, on 16 modules (q_proj, v_proj)");
        JsonNode adapter =
                Cli.run("inspect", dir.resolve("file"), "--json").json().get("config");
        assertThat(adapter.get("rank_pattern").get("v_proj").intValue()).isEqualTo(3);

        Cli.Result flag = Cli.run(
                "train", "--config", config, "--output_dir", dir.resolve("flag"), "--lora-r=5", "--packing", "false");
        assertThat(flag.status()).as(flag.err()).isZero();
        assertThat(flag.err()).contains("adapter   r 5, alpha 32.0, on 16 modules");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "learning_rte: 1     | run.yaml: unknown option learning_rte of train; did you mean learning_rate?",
                "lora_r: many        | run.yaml: option lora_r: found \"many\", expected a whole number",
                "'lora_r: [1]'       | run.yaml: option lora_r: found [1], expected a whole number",
                "packing: 3          | run.yaml: option packing: found 3, expected true or false",
                "- lora_r            | run.yaml: holds a YAML array; expected options by their names",
                "'lora_r: [1'        | run.yaml:1: is not YAML",
                "'{lora_r: 1, lora_r: 2}' | is not YAML: Duplicate Object property \"lora_r\"",
                "'{lora_r: 1, lora-r: 2}' | run.yaml: lora_r and lora-r are the same option; remove one",
                "'{data: a, train_file: b}' | run.yaml: data and train_file are the same option; remove one",
                "fp16: true          | run.yaml: option fp16: found true, which lora4j does not support: it computes in float32",
                "learning_rte:       | run.yaml: unknown option learning_rte of train; did you mean learning_rate?",
            })
    void mistakesInAYamlFile(String text, String message) throws IOException {
        Path config = Files.writeString(dir.resolve("run.yaml"), text);
        Cli.Result result = Cli.run("train", "--config", config);
        assertThat(result.status()).isEqualTo(2);
        assertThat(result.err()).contains("lora4j: " + dir).contains(message);
    }

    @Test
    void yamlFileThatIsNotThere() {
        Cli.Result result = Cli.run("train", "--config", dir.resolve("none.yaml"));
        assertThat(result.status()).isEqualTo(1);
        assertThat(result.err()).contains("none.yaml: no such file; check the path");
    }

    /** In YAML 1.1 "no" is false, in the YAML that is read here it is a word. */
    @Test
    void aStrategyOfNoIsAWord() throws IOException {
        Path config = Files.writeString(
                dir.resolve("run.yaml"), "eval_strategy: no\neval_steps: 5\nmax_length: null\nreport_to: none\n");
        assertThat(planned("--config", config)).contains("none.jsonl: no such file");
    }

    @Test
    void anEmptyYamlFileSetsNothing() throws IOException {
        Path config = Files.writeString(dir.resolve("run.yaml"), "# nothing yet\n");
        Cli.Result result = Cli.run("train", "--config", config);
        assertThat(result.err()).contains("option model_name_or_path is missing");
    }

    @Test
    void flagsAndLists() {
        assertThat(planned("--packing", "--max_length", 0)).contains("option packing: needs max_length");
        assertThat(planned("--packing", "false", "--max_length", 0)).contains("none.jsonl: no such file");
        assertThat(planned("--packing=maybe")).contains("option packing: found \"maybe\", expected true or false");
        assertThat(planned("--lora_target_modules", "q_proj,x_proj")).contains("x_proj");
        assertThat(planned("--lora_target_modules", "q_proj", "x_proj")).contains("x_proj");
        assertThat(planned("--lora-target-modules", ".*layers\\.[01]\\..*(q|v)_proj"))
                .contains("none.jsonl");
        assertThat(planned("--rank_pattern", "{\"q_proj\": 4}")).contains("none.jsonl");
    }

    @Test
    void optionsOfOtherTools() {
        assertThat(planned("--report-to", "none", "--fp16=false", "--dataloader_num_workers", 4))
                .contains("none.jsonl: no such file");
        assertThat(planned("--fp16")).contains("option fp16: found true, which lora4j does not support");
        assertThat(planned("--dataset_name", "trl-lib/Capybara"))
                .contains("option dataset_name: found trl-lib/Capybara");
        assertThat(unwrapped(out("train", "--help"))).doesNotContain("fp16", "deepspeed");
    }

    @Test
    void anOptionGivenTwice() {
        Cli.Result result = Cli.run("train", "--lora_r", 1, "--lora-r", 2);
        assertThat(result.status()).isEqualTo(2);
        assertThat(result.err()).contains("--lora_r", "only once");
    }

    @Test
    void valuesThatLookLikeOtherThings() {
        // @file, which picocli would read; and an equals sign inside a value
        String[] prompts = {"@" + Cli.TINY.resolve("config.json"), "a=b"};
        for (String prompt : prompts) {
            JsonNode json = Cli.run(
                            "generate",
                            "--model",
                            Cli.TINY,
                            "--no_chat_template",
                            "--prompt",
                            prompt,
                            "--max_new_tokens",
                            1,
                            "--json")
                    .json();
            assertThat(json.get("prompt_token_ids").size()).isGreaterThan(2);
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "fine-tune | 2 | unknown command fine-tune; expected one of quickstart, train, eval, generate, verify, quantize, merge, unmerge, export, inspect, doctor",
                "--verbose | 2 | unexpected --verbose",
                "inspect a b | 2 | unexpected b; inspect takes options as --name value; see lora4j inspect --help",
                "inspect | 2 | option path is missing",
                "train extra | 2 | unexpected extra",
                "doctor --jsn | 2 | unknown option --jsn of doctor",
            })
    void wrongUse(String command, int status, String message) {
        Cli.Result result = Cli.run((Object[]) command.split(" "));
        assertThat(result.status()).isEqualTo(status);
        assertThat(result.err()).contains(message);
        assertThat(result.out()).isEmpty();
    }

    @Test
    void helpOfEveryCommandShowsEveryOptionAndItsDefault() {
        Map<String, OptionTable> tables = Map.ofEntries(
                Map.entry("train", new TrainCommand().table()),
                Map.entry("eval", new EvalCommand().table()),
                Map.entry("generate", new GenerateCommand().table()),
                Map.entry("verify", new VerifyCommand().table()),
                Map.entry("quantize", new QuantizeCommand().table()),
                Map.entry("merge", new MergeCommand().table()),
                Map.entry("unmerge", new UnmergeCommand().table()),
                Map.entry("export", new ExportCommand().table()),
                Map.entry("inspect", new InspectCommand().table()),
                Map.entry("doctor", new DoctorCommand().table()),
                Map.entry("quickstart", new QuickstartCommand().table()));
        tables.forEach((command, table) -> {
            String help = unwrapped(out(command, "--help"));
            assertThat(help)
                    .contains(
                            "--config",
                            "--json",
                            "--help",
                            unwrapped("Exit status: 0 done, 1 failed, 2 wrong use, 130"));
            for (Option<?> option : table.options()) {
                assertThat(help).contains("--" + option.name());
                for (String alias : option.aliases()) {
                    assertThat(help).contains("--" + alias);
                }
                assertThat(help).contains(unwrapped(option.help() + " (" + option.describeDefault() + ")"));
            }
            assertThat(unwrapped(out("help", command))).isEqualTo(help);
        });
        assertThat(unwrapped(out("train", "--help")))
                .contains(unwrapped("(default: true; TRL: false, everything is learned)"));
    }

    /** In the C locale Java reads "café" as "caf" and two of these, and would train on or look for that. */
    @Test
    void argumentsThatTheLocaleCannotCarry() {
        Cli.Result result = Cli.run("inspect", "caf\uFFFD\uFFFD");
        assertThat(result.status()).isEqualTo(2);
        assertThat(result.err())
                .contains("an argument has a character that is lost in this locale", "set LC_ALL=C.UTF-8");
    }

    @Test
    void noCommand() {
        Cli.Result result = Cli.run();
        assertThat(result.status()).isEqualTo(2);
        assertThat(result.err()).contains("Commands:", "Begin with: lora4j quickstart");
    }

    @Test
    void topLevelHelpAndVersion() {
        assertThat(out("--help"))
                .contains("quickstart", "train", "eval", "generate", "verify", "inspect", "doctor", "Exit status");
        assertThat(out("--version")).startsWith("lora4j ");
    }

    @Test
    void settingsOfACommandAreThoseOfItsTable() {
        // The list of a single name is the name: a PEFT rule depends on it.
        Settings.Builder settings = Settings.builder(new TrainCommand().table());
        settings.put("lora-target-modules", List.of("q_proj"));
        assertThat(settings.build().toMap()).containsEntry("lora_target_modules", "q_proj");
    }

    /** Help goes to the process's standard output, not through the console. */
    private static String out(String... args) {
        StringWriter out = new StringWriter();
        Console console = new Console(System.in, new PrintWriter(out), new PrintWriter(System.err));
        assertThat(Main.run(args, console)).isZero();
        return out.toString();
    }

    /** Help breaks lines anywhere, also after a dot. */
    private static String unwrapped(String text) {
        return text.replaceAll("\\s+", "");
    }
}
