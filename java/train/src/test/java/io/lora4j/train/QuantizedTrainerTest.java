package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.train.model.FourBit;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Whole runs on quantized weights: the base stays as it is, and a run can be gone on from and verified as any other. */
class QuantizedTrainerTest {
    private static final Path GGUF = Path.of(
            System.getProperty("lora4j.root"),
            "java/train/src/test/resources/io/lora4j/train/model/families/gguf_llama/model.gguf");

    @TempDir
    Path dir;

    private Path run = Path.of("");
    private Path data = Path.of("");

    @BeforeEach
    void prepare() throws IOException {
        data = Runs.data(dir);
        run = dir.resolve("out");
    }

    private Settings.Builder small(Path model) {
        return Runs.small(data, run)
                .set(TrainOptions.MODEL_NAME_OR_PATH, model)
                .set(TrainOptions.SAVE_STEPS, 4)
                .set(TrainOptions.MAX_LENGTH, 60);
    }

    @Test
    void trainsOnAGgufFileAndLeavesItAsItIs() throws IOException {
        byte[] bytes = Files.readAllBytes(GGUF);
        Path model = Files.write(dir.resolve("base.gguf"), bytes);
        TrainResult result = Runs.run(small(model));
        assertThat(result.step()).isEqualTo(6);
        assertThat(Files.readAllBytes(model)).isEqualTo(bytes);
        byte[] adapter = Runs.adapter(run);

        Verifier verifier = Verifier.open(run, Map.of());
        assertThat(verifier.problems()).isEmpty();
        assertThat(verifier.replay(4, 6, step -> {})).isEmpty();
        // Another run has the same bits.
        Path again = dir.resolve("again");
        Runs.run(small(model).set(TrainOptions.OUTPUT_DIR, again));
        assertThat(Runs.adapter(again)).isEqualTo(adapter);

        bytes[bytes.length - 1] ^= 1;
        Files.write(model, bytes);
        assertThat(Verifier.open(run, Map.of()).problems())
                .singleElement()
                .asString()
                .contains("base.gguf");
    }

    @Test
    void quantizesWhileItLoads() throws IOException {
        Runs.run(small(Runs.TINY).set(LoadOptions.LOAD_IN_4BIT, true));
        byte[] adapter = Runs.adapter(run);
        Verifier verifier = Verifier.open(run, Map.of());
        assertThat(verifier.replay(0, 6, step -> {})).isEmpty();
        Settings.Builder other = small(Runs.TINY)
                .set(LoadOptions.LOAD_IN_4BIT, true)
                .set(LoadOptions.BNB_4BIT_QUANT_TYPE, FourBit.Type.FP4)
                .set(
                        TrainOptions.RESUME_FROM_CHECKPOINT,
                        run.resolve("checkpoint-4").toString());
        assertThatThrownBy(() -> Runs.run(other)).hasMessageContaining("bnb_4bit_quant_type");
        Path dense = dir.resolve("dense");
        Runs.run(small(Runs.TINY).set(TrainOptions.OUTPUT_DIR, dense));
        assertThat(Runs.adapter(dense)).isNotEqualTo(adapter);
    }

    @Test
    void multipliesInBf16() throws IOException {
        for (boolean quantized : new boolean[] {false, true}) {
            Path narrow = dir.resolve("bf16-" + quantized);
            Path wide = dir.resolve("float32-" + quantized);
            TrainResult result = Runs.run(small(Runs.TINY)
                    .set(TrainOptions.BF16, true)
                    .set(LoadOptions.LOAD_IN_4BIT, quantized)
                    .set(TrainOptions.OUTPUT_DIR, narrow));
            assertThat(Verifier.open(narrow, Map.of()).replay(0, 6, step -> {})).isEmpty();
            TrainResult exact = Runs.run(
                    small(Runs.TINY).set(LoadOptions.LOAD_IN_4BIT, quantized).set(TrainOptions.OUTPUT_DIR, wide));
            assertThat(Runs.adapter(narrow)).isNotEqualTo(Runs.adapter(wide));
            assertThat(result.step()).isEqualTo(exact.step());
            Settings.Builder other = small(Runs.TINY)
                    .set(LoadOptions.LOAD_IN_4BIT, quantized)
                    .set(TrainOptions.OUTPUT_DIR, narrow)
                    .set(
                            TrainOptions.RESUME_FROM_CHECKPOINT,
                            narrow.resolve("checkpoint-4").toString());
            assertThatThrownBy(() -> Runs.run(other)).hasMessageContaining("bf16");
        }
    }

    @Test
    void plansLessMemoryForIt() throws IOException {
        long quantized = weights(small(Runs.TINY).set(LoadOptions.LOAD_IN_4BIT, true));
        long doubled = weights(
                small(Runs.TINY).set(LoadOptions.LOAD_IN_4BIT, true).set(LoadOptions.BNB_4BIT_USE_DOUBLE_QUANT, true));
        // 3,145,728 values of linear layers in bf16, of 4.5 or 4.127 bits; the embedding stays.
        assertThat(weights(small(Runs.TINY)) - quantized).isBetween(4_480_000L, 4_540_000L);
        assertThat(quantized - doubled).isBetween(146_000L, 148_000L);
    }

    private static long weights(Settings.Builder settings) throws IOException {
        return Trainer.open(settings.build()).plan().memory().parts().get("weights");
    }

    @Test
    void anOptionThatHasNoEffectIsRefused() {
        Settings settings = small(Runs.TINY)
                .set(LoadOptions.BNB_4BIT_USE_DOUBLE_QUANT, true)
                .build();
        assertThatThrownBy(() -> Trainer.open(settings))
                .isInstanceOf(OptionException.class)
                .hasMessageContaining("option bnb_4bit_use_double_quant: has no effect without load_in_4bit");
    }
}
