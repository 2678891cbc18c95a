package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.train.checkpoint.Chain;
import io.lora4j.train.checkpoint.Forger;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class VerifierTest {
    @TempDir
    Path dir;

    private Path data;
    private Path model;
    private Path run;

    @BeforeEach
    void prepare() throws IOException {
        data = Runs.data(dir);
        model = Runs.model(dir.resolve("model"));
        run = dir.resolve("out");
    }

    private Settings.Builder small() {
        return Runs.small(data, run)
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.EVAL_FILE, data)
                .set(TrainOptions.SAVE_STEPS, 2);
    }

    private static List<String> problems(Path run) throws IOException {
        return Verifier.open(run, Map.of()).problems();
    }

    private static Map<Path, FileTime> snapshot(Path folder) throws IOException {
        Map<Path, FileTime> times = new LinkedHashMap<>();
        try (Stream<Path> all = Files.walk(folder)) {
            for (Path path : all.sorted().toList()) {
                times.put(path, Files.getLastModifiedTime(path));
            }
        }
        return times;
    }

    @Test
    void replaysEverySliceAndWritesNothing() throws Exception {
        TrainResult result = Runs.run(small());
        Map<Path, FileTime> before = snapshot(dir);
        Verifier verifier = Verifier.open(run, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.steps()).containsExactly(4, 6);
        assertThat(verifier.before(6)).isEqualTo(4);
        assertThat(verifier.before(4)).isZero();
        // checkpoint-2 was deleted; its link was not.
        assertThat(verifier.chain().links()).extracting(Chain.Link::step).containsExactly(0, 2, 4, 6);
        assertThat(Chain.read(run).links()).startsWith(verifier.chain().links().toArray(Chain.Link[]::new));
        assertThat(verifier.finished().orElseThrow().hash()).isEqualTo(result.chain());
        for (int[] slice : new int[][] {{0, 4}, {0, 6}, {4, 6}}) {
            List<Integer> steps = new ArrayList<>();
            assertThat(verifier.replay(slice[0], slice[1], steps::add)).isEmpty();
            assertThat(steps).hasSize(slice[1] - slice[0]).endsWith(slice[1]);
        }
        assertThat(snapshot(dir)).isEqualTo(before);
        for (int[] slice : new int[][] {{2, 4}, {4, 5}, {6, 4}, {4, 4}}) {
            assertThatThrownBy(() -> verifier.replay(slice[0], slice[1], step -> {}))
                    .isInstanceOf(OptionException.class)
                    .hasMessageContaining("option steps: found " + slice[0] + ".." + slice[1])
                    .hasMessageContaining("there are [4, 6]");
        }
    }

    /** Options that were not defaults, an adapter to start from, and a run that was made longer: all come from the checkpoint. */
    @Test
    void replaysALongerRunOfAnotherAdapter() throws Exception {
        Runs.run(small().set(TrainOptions.OUTPUT_DIR, dir.resolve("first"))
                .set(TrainOptions.RANK_PATTERN, Map.of("q_proj", 2.0)));
        Settings.Builder second = TrainOptions.builder()
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.ADAPTER_NAME_OR_PATH, dir.resolve("first"))
                .set(TrainOptions.TRAIN_FILE, data)
                .set(TrainOptions.OUTPUT_DIR, run)
                .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 3)
                .set(TrainOptions.LR_SCHEDULER_TYPE, Schedule.Type.COSINE)
                .set(TrainOptions.MAX_STEPS, 3);
        Runs.run(second);
        Runs.run(second.set(TrainOptions.MAX_STEPS, 7)
                .set(TrainOptions.SAVE_STEPS, 5)
                .set(TrainOptions.RESUME_FROM_CHECKPOINT, "true"));
        Verifier verifier = Verifier.open(run, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.chain().links()).extracting(Chain.Link::totalSteps).containsExactly(0, 3, 7, 7);
        assertThat(verifier.replay(0, 7, step -> {})).isEmpty();
        assertThat(verifier.replay(5, 7, step -> {})).isEmpty();

        byte[] adapter = Files.readAllBytes(dir.resolve("first/adapter_model.safetensors"));
        adapter[adapter.length - 7] ^= 1;
        Files.write(dir.resolve("first/adapter_model.safetensors"), adapter);
        assertThat(problems(run)).singleElement().asString().startsWith("adapter: " + dir.resolve("first"));
    }

    @Test
    void anAlteredByteIsFoundAndNamed() throws Exception {
        Runs.run(small());
        Map<Path, String> expected = new LinkedHashMap<>();
        expected.put(model.resolve("config.json"), "base: ");
        expected.put(model.resolve("model.safetensors"), "base: ");
        expected.put(model.resolve("tokenizer.json"), "tokenizer: ");
        expected.put(model.resolve("tokenizer_config.json"), "tokenizer: ");
        expected.put(model.resolve("chat_template.jinja"), "template: ");
        expected.put(data, "data: ");
        for (String checkpoint : List.of("checkpoint-4", "checkpoint-6")) {
            for (String file : List.of(
                    "adapter_config.json",
                    "adapter_model.safetensors",
                    "optimizer.safetensors",
                    "trainer_state.json",
                    "chain.json")) {
                expected.put(run.resolve(checkpoint).resolve(file), "");
            }
        }
        for (String file : List.of(
                "adapter_config.json",
                "adapter_model.safetensors",
                "tokenizer.json",
                "chat_template.jinja",
                "metrics.jsonl",
                "chain.json")) {
            expected.put(run.resolve(file), "");
        }
        for (Map.Entry<Path, String> entry : expected.entrySet()) {
            Path file = entry.getKey();
            byte[] good = Files.readAllBytes(file);
            for (int at : new int[] {0, good.length / 3, good.length / 2, good.length - 1}) {
                byte[] bad = good.clone();
                bad[at] ^= 4;
                Files.write(file, bad);
                List<String> problems = problems(run);
                assertThat(problems)
                        .as("%s, byte %d", file, at)
                        .isNotEmpty()
                        .allMatch(problem -> problem.contains(file.toString())
                                || (file.equals(data) && problem.startsWith("eval: ")));
                assertThat(problems.getFirst()).startsWith(entry.getValue());
                if (file.toString().endsWith(".safetensors")) {
                    assertThat(problems.getFirst())
                            .containsPattern(at == 0 ? "in the header" : "in tensor \\S+\\.weight");
                } else if (file.toString().endsWith(".jsonl")) {
                    assertThat(problems.getFirst()).containsPattern("in line \\d");
                }
            }
            Files.write(file, good);
        }
        assertThat(problems(run)).isEmpty();
    }

    @Test
    void whatIsMissingOrAddedIsNamed() throws Exception {
        Runs.run(small());
        Files.delete(run.resolve("checkpoint-4/optimizer.safetensors"));
        Files.writeString(run.resolve("checkpoint-6/more"), "");
        Files.delete(run.resolve("chain.json"));
        assertThat(problems(run))
                .anyMatch(p -> p.equals(run.resolve("checkpoint-4/optimizer.safetensors") + " is missing"))
                .anyMatch(p -> p.equals(run.resolve("checkpoint-6/more") + ": was not part of the checkpoint"))
                .anyMatch(p -> p.startsWith(run.resolve("adapter_model.safetensors") + ": no link binds it"))
                .hasSize(3);
        assertThatThrownBy(() -> problems(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("has no checkpoint");
    }

    /** Two runs whose files are all right, mixed. */
    @Test
    void aCheckpointOfAnotherRunIsNamed() throws Exception {
        Runs.run(small());
        Path other = dir.resolve("other");
        Runs.run(small().set(TrainOptions.OUTPUT_DIR, other).set(TrainOptions.SEED, 7L));
        for (String name : List.of("checkpoint-4", "adapter_model.safetensors")) {
            Files.move(run.resolve(name), dir.resolve("kept"));
            Files.move(other.resolve(name), run.resolve(name));
            assertThat(problems(run)).isNotEmpty().allMatch(p -> p.contains(name) || p.contains("metrics.jsonl"));
            Files.move(run.resolve(name), other.resolve(name));
            Files.move(dir.resolve("kept"), run.resolve(name));
        }
        assertThat(problems(run)).isEmpty();
    }

    /** Whoever writes a whole new chain over other numbers is found by doing the steps again. */
    @Test
    void aForgedChainIsFoundByTheReplay() throws Exception {
        Runs.run(small());
        Path forged = dir.resolve("forged");
        // The forger trained with another seed and says that it was this one.
        Runs.run(small().set(TrainOptions.OUTPUT_DIR, forged)
                .set(TrainOptions.SEED, 7L)
                .set(TrainOptions.SAVE_STEPS, 0));
        Forger.edit(forged.resolve("checkpoint-6"), state -> state.replace("\"seed\": \"7\"", "\"seed\": \"42\""));
        Files.delete(forged.resolve("chain.json"));
        Files.delete(forged.resolve("adapter_model.safetensors"));
        Verifier verifier = Verifier.open(forged, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.replay(0, 6, step -> {}))
                .isNotEmpty()
                .first()
                .asString()
                .startsWith(forged.resolve("checkpoint-6/adapter_model.safetensors") + ": tensor base_model.model.")
                .contains("is not what the steps come to");
    }

    /** The evaluations choose the final adapter, so their file must be the same; otherwise it may be another one. */
    @Test
    void theEvaluationFileCountsWhereItChoosesTheAdapter() throws Exception {
        Path eval = Files.writeString(dir.resolve("eval.jsonl"), Files.readString(data));
        Settings.Builder best =
                small().set(TrainOptions.EVAL_FILE, eval).set(TrainOptions.LOAD_BEST_MODEL_AT_END, true);
        Runs.run(best);
        Verifier verifier = Verifier.open(run, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.finished().orElseThrow().step()).isEqualTo(6);
        assertThat(verifier.replay(verifier.before(6), 6, step -> {})).isEmpty();

        Files.writeString(eval, Files.readString(eval).replace("owl", "eel"));
        assertThat(problems(run)).singleElement().asString().startsWith("eval: " + eval + " has changed in line 2: ");
        best.set(TrainOptions.RESUME_FROM_CHECKPOINT, "last");
        assertThatThrownBy(() -> Trainer.open(best.build()))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining(
                        "load_best_model_at_end compares evaluations, but eval: " + eval + " has changed");
        Path plain = dir.resolve("plain");
        Runs.run(best.set(TrainOptions.OUTPUT_DIR, plain)
                .set(TrainOptions.RESUME_FROM_CHECKPOINT, "false")
                .set(TrainOptions.LOAD_BEST_MODEL_AT_END, false));
        Files.writeString(eval, Files.readString(eval).replace("eel", "elk"));
        assertThat(Runs.run(best.set(TrainOptions.RESUME_FROM_CHECKPOINT, "last"))
                        .completed())
                .isTrue();
    }

    @Test
    void inputsThatWereMoved() throws Exception {
        Runs.run(small());
        Path moved = Files.move(model, dir.resolve("moved"));
        Path rows = Files.move(data, dir.resolve("rows.jsonl"));
        assertThatThrownBy(() -> problems(run))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("option model_name_or_path: ");
        Verifier verifier = Verifier.open(
                run, Map.of("model", moved.toString(), "data", rows.toString(), "eval_file", rows.toString()));
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.replay(4, 6, step -> {})).isEmpty();
    }
}
