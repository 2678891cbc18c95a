package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Queue;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * tiny-llama, quantized while it is loaded, against PyTorch on what bitsandbytes makes of its weights: {@code load_in_4bit/make.py}
 * wrote the numbers.
 */
class LoadIn4BitTest {
    private static final double TOLERANCE = 1e-4;
    private static final Path ROOT = Path.of(System.getProperty("lora4j.root"));
    private static final Path TINY = ROOT.resolve("test-data/tiny-llama");
    private static final Path GOLDEN = ROOT.resolve("java/train/src/test/resources/io/lora4j/train/model/load_in_4bit");

    private static FourBit fourBit(String run) {
        return new FourBit(run.startsWith("nf4") ? FourBit.Type.NF4 : FourBit.Type.FP4, run.endsWith("_double"));
    }

    private static JsonNode numbers() throws IOException {
        return JsonMapper.shared().readTree(Files.readString(GOLDEN.resolve("expected.json")));
    }

    private static Batch batch(JsonNode numbers) {
        List<Batch.Sequence> sequences = new ArrayList<>();
        for (int i = 0; i < numbers.get("rows").size(); i++) {
            sequences.add(new Batch.Sequence(
                    ints(numbers.get("rows").get(i)), ints(numbers.get("labels").get(i)), 0));
        }
        return Batch.of(sequences);
    }

    @ParameterizedTest
    @ValueSource(strings = {"nf4", "nf4_double", "fp4", "fp4_double"})
    void trainsAsPyTorchDoesOnTheSameCodes(String run) throws IOException {
        JsonNode numbers = numbers();
        JsonNode expected = numbers.get("runs").get(run);
        Batch batch = batch(numbers);
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, 2);
                LlamaModel model = LlamaModel.open(
                        TINY, queue, ModelForm.of(WeightMode.PACK).withFourBit(fourBit(run)));
                Adapter adapter = Adapter.load(model, GOLDEN.resolve("adapter"), true);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(model, adapter, 2e-3, 0.01)) {
            assertThat(expected.get("losses").size()).isEqualTo(20);
            for (int step = 0; step < 20; step++) {
                BatchLoss loss = model.lossAndGradients(batch, adapter, TestModels.meanOver(batch.targetTokens()));
                GoldenAssert.close(
                        "loss " + step,
                        loss.meanLoss(),
                        expected.get("losses").get(step).doubleValue(),
                        TOLERANCE);
                GoldenAssert.close(
                        "norm " + step,
                        optimizer.step(),
                        expected.get("norms").get(step).doubleValue(),
                        1e-3);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(FourBit.Type.class)
    void heldOrPackedItHasTheSameBitsAndLessMemory(FourBit.Type type) throws IOException {
        Batch batch = batch(numbers());
        float[] logits = null;
        for (WeightMode mode : WeightMode.values()) {
            for (Isa isa : new Isa[] {Isa.REF, Isa.AUTO}) {
                try (Device device = Device.cpu(isa);
                        Queue queue = Queue.create(device, 2);
                        Arena arena = Arena.ofConfined();
                        LlamaModel model =
                                LlamaModel.open(TINY, queue, ModelForm.of(mode).withFourBit(new FourBit(type, true)))) {
                    float[] now =
                            model.logits(batch, null, batch.lastRows(), arena).toFloatArray();
                    assertThat(now).isEqualTo(logits == null ? now : logits);
                    logits = now;
                    if (mode == WeightMode.PACK) {
                        // 3.1 million values of 4.13 bits, and an embedding of 0.4 million in bf16.
                        assertThat(model.weightBytesHeld()).isBetween(2_300_000L, 3_300_000L);
                    }
                }
            }
        }
    }

    @Test
    void aQuantizedModelIsRefused() throws IOException {
        Path nf4 = ROOT.resolve("java/train/src/test/resources/io/lora4j/train/model/families/nf4");
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, 1)) {
            assertThatThrownBy(() -> LlamaModel.open(
                            nf4, queue, ModelForm.of(WeightMode.PACK).withFourBit(fourBit("nf4"))))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("tensor model.layers.0.self_attn.q_proj.weight is quantized already (NF4);"
                            + " load_in_4bit is for dense models");
        }
    }

    private static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        Arrays.setAll(values, i -> array.get(i).intValue());
        return values;
    }
}
