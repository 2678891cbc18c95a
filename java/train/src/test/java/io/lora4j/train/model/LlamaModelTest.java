package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Lora4jException;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Queue;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class LlamaModelTest {
    @TempDir
    Path dir;

    @BeforeEach
    void write() {
        TestModels.randomModel(dir, DType.F32);
    }

    private static Batch batch(int... lengths) {
        return Batch.of(TestModels.randomSequences(61, lengths));
    }

    @ParameterizedTest
    @CsvSource({
        "true, false, all-linear",
        "true, true, all-linear",
        "true, false, model.layers.1.mlp.up_proj",
        "false, false, all-linear",
    })
    void activationBytesAreWhatAPassTakes(boolean training, boolean checkpointing, String target) throws IOException {
        AdapterConfig config = target.equals("all-linear")
                ? TestModels.allLinear(4, 0)
                : AdapterConfig.of(4, 8, new ModuleFilter.Names(List.of(target)));
        Batch batch = batch(9, 21, 2);
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1);
                Adapter adapter = TestModels.randomAdapter(open.model(), config)) {
            if (training) {
                open.model().lossAndGradients(batch, adapter, new GradientOptions(1, checkpointing, 0, 1));
            } else {
                open.model().loss(batch, adapter);
            }
            assertThat(LlamaModel.activationBytes(open.model().config(), 32, 3, config, training, checkpointing))
                    .isEqualTo(open.model().activationBytesHeld());
        }
    }

    @Test
    void activationsAreKeptFromPassToPass() {
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1)) {
            BatchLoss small = open.model().loss(batch(5), null);
            long few = open.model().activationBytesHeld();
            open.model().loss(batch(20, 20), null);
            long many = open.model().activationBytesHeld();
            assertThat(many).isGreaterThan(few);
            assertThat(open.model().loss(batch(5), null)).isEqualTo(small);
            assertThat(open.model().activationBytesHeld()).isEqualTo(many);
        }
    }

    @Test
    void evaluationSumsOverBatches() {
        List<Batch.Sequence> sequences = TestModels.randomSequences(61, 9, 4, 13);
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 2);
                Adapter adapter = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0.5))) {
            Batch all = Batch.of(sequences);
            List<Batch> parts =
                    sequences.stream().map(s -> Batch.of(List.of(s))).toList();
            BatchLoss base = Evaluator.evaluate(open.model(), parts, null);
            BatchLoss adapted = Evaluator.evaluate(open.model(), parts, adapter);
            assertThat(base.targetTokens()).isEqualTo(all.targetTokens());
            GoldenAssert.close(
                    "loss", base.lossSum(), open.model().loss(all, null).lossSum(), 1e-14);
            GoldenAssert.close(
                    "loss", adapted.lossSum(), open.model().loss(all, adapter).lossSum(), 1e-14);
            assertThat(adapted.lossSum()).isNotEqualTo(base.lossSum());
            assertThat(base.perplexity()).isEqualTo(Math.exp(base.lossSum() / base.targetTokens()));
            assertThat(base.accuracy()).isBetween(0.0, 1.0);
        }
    }

    @Test
    void dropoutIsOffInEvaluation() {
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1);
                Adapter dropping = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0.5));
                Adapter plain = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0))) {
            assertThat(open.model().loss(batch(9), dropping))
                    .isEqualTo(open.model().loss(batch(9), plain));
        }
    }

    @Test
    void aSequenceLongerThanTheContextIsRefused() {
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1)) {
            assertThat(open.model().loss(batch(48), null).lossSum()).isPositive();
            assertThatThrownBy(() -> open.model().loss(batch(3, 49), null))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("49 tokens")
                    .hasMessageContaining("context of 48");
        }
    }

    @Test
    void tokensOutsideTheVocabularyAreRefused() {
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1)) {
            assertThatThrownBy(() -> open.model().loss(Batch.ofIds(List.of(new int[] {1, 61})), null))
                    .isInstanceOf(Lora4jException.class)
                    .hasMessageContaining("61");
            Batch wrongTarget = Batch.of(List.of(new Batch.Sequence(new int[] {1, 2}, new int[] {1, 61}, 0)));
            assertThatThrownBy(() -> open.model().loss(wrongTarget, null))
                    .isInstanceOf(Lora4jException.class)
                    .hasMessageContaining("61");
        }
    }

    @ParameterizedTest
    @CsvSource({
        "model.layers.1.mlp.up_proj.weight, BORROW",
        "model.layers.1.mlp.up_proj.weight, PACK",
        "model.layers.0.input_layernorm.weight, BORROW",
    })
    void aNanAmongTheWeightsIsRefused(String tensor, WeightMode mode) throws IOException {
        Path file = dir.resolve("model.safetensors");
        long start;
        try (Checkpoint checkpoint = Checkpoint.open(file)) {
            start = checkpoint.tensor(tensor).offset();
        }
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
            channel.write(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putFloat(0, Float.NaN), start + 4 * 5);
        }
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, 1)) {
            assertThatThrownBy(() -> LlamaModel.open(dir, queue, mode))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("model.safetensors")
                    .hasMessageContaining(tensor);
        }
    }

    @Test
    void anInfiniteLossNamesItsToken() {
        Batch batch = Batch.of(List.of(new Batch.Sequence(new int[] {1, 2, 3}, new int[] {-100, -100, 3}, 0)));
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 1);
                Adapter adapter = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0))) {
            adapter.linears().getLast().b().value().fill(Float.MAX_VALUE);
            assertThatThrownBy(() -> open.model().lossAndGradients(batch, adapter, new GradientOptions(1, false, 0, 1)))
                    .isInstanceOf(NumericException.class)
                    .hasMessageContaining("token 1 of sequence 0");
            assertThat(adapter.gradients().toFloatArray()).containsOnly(0);
        }
    }

    @Test
    void batchesWhoseArraysDoNotFitAreRefused() {
        int[] two = {0, 0};
        assertThatThrownBy(() -> new Batch(two, two, two, new int[1], new int[] {0, 2}, null))
                .hasMessageContaining("differ in length");
        assertThatThrownBy(() -> new Batch(two, two, two, two, new int[] {0, 1}, null))
                .hasMessageContaining("from 0 to its 2 tokens");
        assertThatThrownBy(() -> new Batch(two, two, two, two, new int[] {0, 0, 2}, null))
                .hasMessageContaining("sequence 0 of a batch is empty");
        assertThatThrownBy(() -> new Batch.Sequence(two, new int[1], 0)).hasMessageContaining("1 labels");
    }

    @Test
    void aFailedOpenLeavesNothingOpen() throws IOException {
        Files.delete(dir.resolve("model.safetensors"));
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, 1)) {
            assertThatThrownBy(() -> LlamaModel.open(dir, queue, WeightMode.BORROW))
                    .isInstanceOf(FormatException.class);
            String config =
                    Files.readString(dir.resolve("config.json")).replace("\"hidden_size\": 36", "\"hidden_size\": 40");
            TestModels.randomModel(dir, DType.F32);
            Files.writeString(dir.resolve("config.json"), config);
            assertThatThrownBy(() -> LlamaModel.open(dir, queue, WeightMode.BORROW))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("shape");
        }
    }
}
