package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.AtomicDirectory;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.train.model.LoraInit;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Whole runs whose adapter begins with PiSSA or LoftQ: gone on from, verified, and the base left as it is. */
class InitTrainerTest {
    @TempDir
    Path dir;

    private Path data = Path.of("");

    @BeforeEach
    void prepare() throws IOException {
        data = Runs.data(dir);
    }

    private Settings.Builder run(String init, boolean fourBit, Path output) {
        return Runs.small(data, output)
                .put("init_lora_weights", init)
                .set(LoadOptions.LOAD_IN_4BIT, fourBit)
                .set(TrainOptions.LORA_TARGET_MODULES, new ModuleFilter.Names(List.of("q_proj", "v_proj")))
                .set(TrainOptions.MAX_STEPS, 4)
                .set(TrainOptions.SAVE_STEPS, 2)
                .set(TrainOptions.SAVE_TOTAL_LIMIT, 0)
                .set(TrainOptions.MAX_LENGTH, 60);
    }

    @ParameterizedTest
    @CsvSource({"pissa, false", "pissa_niter_3, false", "pissa, true", "loftq, true"})
    void goesOnWithTheSameBits(String init, boolean fourBit) throws IOException {
        byte[] base = Files.readAllBytes(Runs.TINY.resolve("model.safetensors"));
        Path whole = dir.resolve("whole");
        TrainResult result = Runs.run(run(init, fourBit, whole));
        assertThat(result.completed()).isTrue();
        byte[] adapter = Runs.adapter(whole);
        // In the same folder, as after a kill, and in another one.
        AtomicDirectory.delete(whole.resolve("checkpoint-4"));
        Files.delete(whole.resolve("chain.json"));
        Files.delete(whole.resolve("adapter_model.safetensors"));
        Runs.run(run(init, fourBit, whole).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true"));
        assertThat(Runs.adapter(whole)).isEqualTo(adapter);
        Path elsewhere = dir.resolve("elsewhere");
        Runs.run(run(init, fourBit, elsewhere)
                .set(
                        TrainOptions.RESUME_FROM_CHECKPOINT,
                        whole.resolve("checkpoint-2").toString()));
        assertThat(Runs.adapter(elsewhere)).isEqualTo(adapter);
        assertThat(Runs.adapter(whole))
                .isEqualTo(Files.readAllBytes(whole.resolve("checkpoint-4/adapter_model.safetensors")));
        assertThat(Files.readAllBytes(Runs.TINY.resolve("model.safetensors"))).isEqualTo(base);

        Verifier verifier = Verifier.open(whole, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.replay(0, 2, step -> {})).isEmpty();
        assertThat(verifier.replay(2, 4, step -> {})).isEmpty();

        AdapterConfig written = AdapterConfig.read(whole);
        assertThat(written.rank()).isEqualTo(fourBit ? 4 : 8);
        assertThat(written.scaling("model.layers.0.self_attn.q_proj")).isEqualTo(32.0 / 4);
        assertThat(Files.exists(whole.resolve("base_model"))).isEqualTo(fourBit);
        if (fourBit) {
            assertThat(written.baseModel())
                    .isEqualTo(whole.resolve("base_model").toString());
            ownBase(init, whole, elsewhere);
        }
    }

    private void ownBase(String init, Path whole, Path elsewhere) throws IOException {
        // A run that goes on elsewhere makes the same base again.
        Path weights = elsewhere.resolve("base_model/model.safetensors");
        assertThat(weights).hasSameBinaryContentAs(whole.resolve("base_model/model.safetensors"));
        byte[] bytes = Files.readAllBytes(weights);
        bytes[bytes.length - 1] ^= 1;
        Files.write(weights, bytes);
        assertThat(Verifier.open(elsewhere, Map.of()).problems())
                .isNotEmpty()
                .allSatisfy(problem -> assertThat(problem).contains("base_model/model.safetensors", "tensor"));
        Settings.Builder again = run(init, true, elsewhere).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true");
        assertThatThrownBy(() -> Runs.run(again.set(TrainOptions.MAX_STEPS, 8)))
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("was trained on a base that is no longer there")
                .hasMessageContaining("base_model/model.safetensors");
        // An earlier run's base goes with it.
        Runs.run(run("true", false, elsewhere).set(TrainOptions.OVERWRITE_OUTPUT_DIR, true));
        assertThat(elsewhere.resolve("base_model")).doesNotExist();
    }

    @Test
    void oneIsNotTheOther() throws IOException {
        Path pissa = dir.resolve("pissa");
        Runs.run(run("pissa", false, pissa));
        Settings.Builder other = run("true", false, pissa).set(TrainOptions.RESUME_FROM_CHECKPOINT, "true");
        assertThatThrownBy(() -> Runs.run(other)).hasMessageContaining("init_lora_weights was pissa, is true");
    }

    @Test
    void optionsThatDoNotGoTogetherAreRefused() {
        assertThatThrownBy(
                        () -> Trainer.open(run("loftq", false, dir.resolve("x")).build()))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("set load_in_4bit to true with it, or use pissa");
        assertThatThrownBy(() -> Trainer.open(run("pissa", false, dir.resolve("x"))
                        .set(InitOptions.LOFTQ_ITER, 2)
                        .build()))
                .hasMessageContaining("option loftq_iter: has no effect without init_lora_weights loftq");
        assertThatThrownBy(() -> Trainer.open(run("pissa", false, dir.resolve("x"))
                        .set(TrainOptions.ADAPTER_NAME_OR_PATH, dir)
                        .build()))
                .hasMessageContaining("option lora_r");
        for (String wrong : new String[] {"olora", "pissa_niter_", "gaussian", "false", "pissa_niter_99999"}) {
            assertThatThrownBy(() -> TrainOptions.builder().put("init_lora_weights", wrong))
                    .isInstanceOf(OptionException.class)
                    .hasMessage("option init_lora_weights: found \"" + wrong
                            + "\", expected true, pissa, pissa_niter_N or loftq");
        }
        assertThat(TrainOptions.builder().put("init_lora_weights", true).build().get(InitOptions.INIT_LORA_WEIGHTS))
                .isEqualTo(LoraInit.DEFAULT);
        assertThatThrownBy(() -> TrainOptions.builder().put("loftq_config", "{\"loftq_iter\": 5}"))
                .hasMessageContaining("LoftQ's options are loftq_iter and load_in_4bit");
    }

    @Test
    void memoryIsPlannedForWhatIsTakenOut() throws IOException {
        TrainPlan plain =
                Trainer.open(run("true", false, dir.resolve("a")).build()).plan();
        TrainPlan pissa =
                Trainer.open(run("pissa", false, dir.resolve("b")).build()).plan();
        long values = plain.modules().stream()
                .mapToLong(module -> module.inFeatures() * module.outFeatures())
                .sum();
        // Two bytes of the file become four, less what of its header counted for these layers.
        assertThat(pissa.memory().parts().get("weights")
                        - plain.memory().parts().get("weights"))
                .isBetween(2 * values - 20_000, 2 * values);
    }
}
