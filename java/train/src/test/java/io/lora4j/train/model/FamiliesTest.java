package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.Checkpoint;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Small random models of each family, variant and format, with an adapter whose B is not zero. Against transformers + PEFT, on the
 * decoded weights where they are quantized: logits, gradients of the first step, losses and norms of five AdamW steps, final adapter;
 * {@code families/make*.py} wrote the numbers and say what the models vary. And bit by bit: packing, checkpointing, the cache.
 */
class FamiliesTest {
    private static final double TOLERANCE = 1e-4;
    private static final Path FAMILIES =
            Path.of(System.getProperty("lora4j.root"), "java/train/src/test/resources/io/lora4j/train/model/families");

    /** Every model of the folder, so that none is forgotten. */
    static List<String> families() throws IOException {
        try (var folders = Files.list(FAMILIES)) {
            List<String> names = folders.filter(Files::isDirectory)
                    .map(folder -> folder.getFileName().toString())
                    .sorted()
                    .toList();
            assertThat(names).hasSizeGreaterThanOrEqualTo(26);
            return names;
        }
    }

    /** A model, its adapter, its rows. */
    private static final class Case implements AutoCloseable {
        final TestModels.Open open;
        final Adapter adapter;
        final Checkpoint expected;
        final JsonNode numbers;
        final List<Batch.Sequence> sequences = new ArrayList<>();
        final Batch batch;
        final Arena arena = Arena.ofConfined();

        Case(String family) throws IOException {
            Path dir = FAMILIES.resolve(family);
            numbers = JsonMapper.shared().readTree(Files.readString(dir.resolve("expected.json")));
            for (int i = 0; i < numbers.get("rows").size(); i++) {
                sequences.add(new Batch.Sequence(
                        ints(numbers.get("rows").get(i)),
                        ints(numbers.get("labels").get(i)),
                        0));
            }
            batch = Batch.of(sequences);
            expected = Checkpoint.open(dir.resolve("expected.safetensors"));
            open = TestModels.open(dir, Isa.AUTO, 2);
            adapter = Adapter.load(open.model(), dir.resolve("adapter"), true);
        }

        double[] expected(String name) throws IOException {
            var info = expected.tensor(name);
            return Tensor.of(expected.data(name), info.dtype(), info.dims()).toDoubleArray();
        }

        /** Returns the logits of every token: [M, V]. */
        Tensor logits(Batch of) {
            int[] every = new int[of.tokens()];
            Arrays.setAll(every, i -> i);
            return open.model().logits(of, adapter, every, arena);
        }

        /** Returns the gradients of batches one after another. */
        float[] gradients(boolean checkpointing, Batch... batches) {
            adapter.gradients().fill(0);
            GradientOptions options = new GradientOptions(1.0 / batch.targetTokens(), checkpointing, 42, 1);
            for (Batch of : batches) {
                open.model().lossAndGradients(of, adapter, options);
            }
            return adapter.gradients().toFloatArray();
        }

        @Override
        public void close() {
            arena.close();
            adapter.close();
            open.close();
            expected.close();
        }
    }

    @ParameterizedTest
    @MethodSource("families")
    void trainsAsPeftDoes(String family) throws IOException {
        try (Case c = new Case(family);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(c.open.model(), c.adapter, 5e-3, 0.01)) {
            for (LoraLinear linear : c.adapter.linears()) {
                assertThat(linear.b().value().toFloatArray()).as("B").doesNotContain(0);
            }
            Tensor logits = c.logits(c.batch);
            for (int b = 0; b < c.batch.sequences(); b++) {
                Tensor rows = logits.rows(c.batch.offsets()[b], c.batch.offsets()[b + 1]);
                String name = "logits." + rows.size(0);
                GoldenAssert.close(name, rows.toDoubleArray(), c.expected(name), TOLERANCE);
            }
            for (int step = 0; step < c.numbers.get("losses").size(); step++) {
                BatchLoss loss = c.open.model()
                        .lossAndGradients(c.batch, c.adapter, TestModels.meanOver(c.batch.targetTokens()));
                double lossOfPeft = c.numbers.get("losses").get(step).doubleValue();
                GoldenAssert.close("loss " + step, loss.meanLoss(), lossOfPeft, TOLERANCE);
                if (step == 0) {
                    for (LoraLinear.Parameter p : c.adapter.parameterList()) {
                        double[] gradient = p.gradient().toDoubleArray();
                        GoldenAssert.close(p.name(), gradient, c.expected("grad." + p.name()), TOLERANCE);
                    }
                }
                double normOfPeft = c.numbers.get("norms").get(step).doubleValue();
                GoldenAssert.close("norm " + step, optimizer.step(), normOfPeft, TOLERANCE);
            }
            for (LoraLinear.Parameter p : c.adapter.parameterList()) {
                GoldenAssert.close(p.name(), p.value().toDoubleArray(), c.expected("final." + p.name()), 1e-3);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("families")
    void aSequenceHasTheSameBitsInEveryBatch(String family) throws IOException {
        try (Case c = new Case(family)) {
            float[] packed = c.logits(c.batch).toFloatArray();
            int vocabulary = c.open.model().config().vocabSize();
            Batch[] alone = new Batch[c.batch.sequences()];
            for (int b = 0; b < alone.length; b++) {
                alone[b] = Batch.of(List.of(c.sequences.get(b)));
                int[] offsets = c.batch.offsets();
                assertThat(Arrays.copyOfRange(packed, offsets[b] * vocabulary, offsets[b + 1] * vocabulary))
                        .as("sequence %s", b)
                        .isEqualTo(c.logits(alone[b]).toFloatArray());
            }
            assertThat(c.gradients(false, alone)).isEqualTo(c.gradients(false, c.batch));
        }
    }

    @ParameterizedTest
    @MethodSource("families")
    void checkpointingChangesNoBit(String family) throws IOException {
        try (Case c = new Case(family)) {
            assertThat(c.gradients(true, c.batch)).isEqualTo(c.gradients(false, c.batch));
        }
    }

    @ParameterizedTest
    @MethodSource("families")
    void aCacheChangesNoBit(String family) throws IOException {
        try (Case c = new Case(family)) {
            int[] ids = c.sequences.get(3).ids();
            int vocabulary = c.open.model().config().vocabSize();
            float[] expected = c.logits(Batch.ofIds(List.of(ids))).toFloatArray();
            try (KvCache cache = new KvCache(c.open.model(), ids.length)) {
                Tensor logits = Tensor.allocate(c.arena, c.open.model().computeType(), 1, vocabulary);
                int at = 0;
                for (int piece : new int[] {1, 1, 15, 1, 4, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1}) {
                    c.open.model().extend(cache, Arrays.copyOfRange(ids, at, at + piece), c.adapter, logits);
                    at += piece;
                    assertThat(logits.toFloatArray())
                            .as("after %s tokens", at)
                            .isEqualTo(Arrays.copyOfRange(expected, (at - 1) * vocabulary, at * vocabulary));
                }
                assertThat(at).isEqualTo(ids.length);
            }
        }
    }

    private static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        Arrays.setAll(values, i -> array.get(i).intValue());
        return values;
    }
}
