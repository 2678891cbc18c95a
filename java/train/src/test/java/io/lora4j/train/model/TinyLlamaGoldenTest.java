package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.TensorInfo;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** Training, logits and generation of tiny-llama against transformers + PEFT: {@code test-data/golden/tiny-llama}. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class TinyLlamaGoldenTest {
    private static final double TOLERANCE = 1e-4;
    private static final Path DATA = Path.of(System.getProperty("lora4j.root"), "test-data");
    private static final Path GOLDEN = DATA.resolve("golden/tiny-llama");

    private TestModels.Open open = TestModels.open(DATA.resolve("tiny-llama"), Isa.AUTO, 0);
    private JsonNode numbers = JsonMapper.shared().nullNode();
    private final List<Batch.Sequence> rows = new ArrayList<>();

    @BeforeAll
    void read() throws IOException {
        numbers = JsonMapper.shared().readTree(Files.readString(GOLDEN.resolve("reference.json")));
        for (String line : Files.readAllLines(GOLDEN.resolve("rows.jsonl"))) {
            JsonNode row = JsonMapper.shared().readTree(line);
            rows.add(new Batch.Sequence(ints(row.get("input_ids")), ints(row.get("labels")), 1000L * rows.size()));
        }
    }

    @AfterAll
    void close() {
        open.close();
    }

    /** How the rows of a step go through the model. */
    private enum Split {
        TOGETHER(false),
        ONE_BY_ONE(false),
        CHECKPOINTED(true);

        final boolean checkpointing;

        Split(boolean checkpointing) {
            this.checkpointing = checkpointing;
        }

        List<Batch> batches(List<Batch.Sequence> rows) {
            return this == ONE_BY_ONE
                    ? rows.stream().map(row -> Batch.of(List.of(row))).toList()
                    : List.of(Batch.of(rows));
        }
    }

    @ParameterizedTest
    @EnumSource
    void twentyStepsEqualThoseOfPeft(Split split) throws IOException {
        try (Adapter adapter = adapter(0);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(open.model(), adapter, 2e-3, 0.01);
                Checkpoint expected = Checkpoint.open(GOLDEN.resolve("reference.safetensors"))) {
            assertThat(numbers.get("loss").size()).isEqualTo(20);
            for (int step = 0; step < 20; step++) {
                BatchLoss loss = gradients(adapter, split, step);
                if (step == 0) {
                    for (LoraLinear.Parameter p : adapter.parameterList()) {
                        double[] gradient = p.gradient().toDoubleArray();
                        GoldenAssert.close(p.name(), gradient, values(expected, "gradient." + p.name()), TOLERANCE);
                    }
                }
                double norm = optimizer.step();
                GoldenAssert.close("loss " + step, loss.meanLoss(), number("loss", step), TOLERANCE);
                GoldenAssert.close("gradient norm " + step, norm, number("grad_norm", step), TOLERANCE);
            }
            JsonNode norms = numbers.get("norm_of_each_tensor_after_training");
            assertThat(norms.size()).isEqualTo(adapter.parameterList().size());
            for (LoraLinear.Parameter p : adapter.parameterList()) {
                double sum =
                        Arrays.stream(p.value().toDoubleArray()).map(x -> x * x).sum();
                GoldenAssert.close(
                        "norm of " + p.name(),
                        Math.sqrt(sum),
                        norms.get(p.name()).doubleValue(),
                        TOLERANCE);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 0.1})
    void splittingAndCheckpointingChangeNoBit(double dropout) throws IOException {
        float[] expected = train(Split.TOGETHER, dropout);
        assertThat(train(Split.ONE_BY_ONE, dropout)).isEqualTo(expected);
        assertThat(train(Split.CHECKPOINTED, dropout)).isEqualTo(expected);
    }

    /** Returns the parameters after four steps. */
    private float[] train(Split split, double dropout) throws IOException {
        try (Adapter adapter = adapter(dropout);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(open.model(), adapter, 2e-3, 0.01)) {
            for (int step = 0; step < 4; step++) {
                gradients(adapter, split, step);
                assertThat(optimizer.step()).isPositive();
            }
            return adapter.parameters().toFloatArray();
        }
    }

    private BatchLoss gradients(Adapter adapter, Split split, int step) {
        List<Batch> batches = split.batches(rows.subList(step % 2 * 4, step % 2 * 4 + 4));
        int targets = batches.stream().mapToInt(Batch::targetTokens).sum();
        assertThat(targets)
                .isEqualTo(numbers.get("target_tokens_per_step").get(step % 2).intValue());
        GradientOptions options = new GradientOptions(1.0 / targets, split.checkpointing, 3, step + 1);
        return batches.stream()
                .map(batch -> open.model().lossAndGradients(batch, adapter, options))
                .reduce(BatchLoss.NONE, BatchLoss::plus);
    }

    private Adapter adapter(double dropout) throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            PeftAdapter peft = PeftAdapter.read(GOLDEN.resolve("adapter_init"), arena);
            AdapterConfig c = peft.config();
            AdapterConfig config = new AdapterConfig(
                    c.rank(),
                    c.loraAlpha(),
                    dropout,
                    c.targetModules(),
                    null,
                    c.rankPattern(),
                    c.alphaPattern(),
                    c.useRslora(),
                    null,
                    null,
                    null,
                    null,
                    c.taskType());
            return Adapter.of(open.model(), new PeftAdapter(config, peft.modules()), "adapter_init", true);
        }
    }

    @Test
    void logitsEqualThoseOfTransformers() throws IOException {
        try (Adapter adapter = adapter(0);
                Checkpoint expected = Checkpoint.open(GOLDEN.resolve("reference.safetensors"));
                Arena arena = Arena.ofConfined()) {
            for (int row = 0; row < rows.size(); row++) {
                int[] positions = ints(numbers.get("logit_positions").get(row));
                Batch batch = Batch.of(List.of(rows.get(row)));
                String with = "logits_with_adapter." + row;
                String without = "logits_without_adapter." + row;
                double[] adapted =
                        open.model().logits(batch, adapter, positions, arena).toDoubleArray();
                double[] base =
                        open.model().logits(batch, null, positions, arena).toDoubleArray();
                GoldenAssert.close(with, adapted, values(expected, with), TOLERANCE);
                GoldenAssert.close(without, base, values(expected, without), TOLERANCE);
            }
        }
    }

    @Test
    void greedyTokensEqualThoseOfTransformers() throws IOException {
        try (Adapter adapter = adapter(0)) {
            for (JsonNode example : numbers.get("greedy")) {
                int[] prompt = ints(example.get("input_ids"));
                for (boolean adapted : new boolean[] {true, false}) {
                    int[] expected = ints(example.get(adapted ? "with_adapter" : "without_adapter")
                            .get("tokens"));
                    Generation generation = new Generator(open.model(), adapted ? adapter : null)
                            .generate(prompt, Sampling.GREEDY, Set.of(), expected.length, id -> true);
                    assertThat(generation.ids())
                            .containsExactlyElementsOf(
                                    Arrays.stream(expected).boxed().toList());
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"default", "rslora", "rank_pattern", "subset_qv", "target_regex"})
    void adaptersOfPeftGiveItsLogits(String name) throws IOException {
        Path adapters = GOLDEN.resolve("adapters");
        try (Adapter adapter = Adapter.load(open.model(), adapters.resolve(name), false);
                Checkpoint expected = Checkpoint.open(adapters.resolve("logits.safetensors"));
                Arena arena = Arena.ofConfined()) {
            int[] ids = Arrays.stream(expected.data("input_ids").toArray(ValueLayout.JAVA_LONG_UNALIGNED))
                    .mapToInt(Math::toIntExact)
                    .toArray();
            Batch batch = Batch.ofIds(List.of(ids));
            double[] logits =
                    open.model().logits(batch, adapter, batch.lastRows(), arena).toDoubleArray();
            GoldenAssert.close(name, logits, values(expected, name), TOLERANCE);
            double[] base =
                    open.model().logits(batch, null, batch.lastRows(), arena).toDoubleArray();
            GoldenAssert.close("base", base, values(expected, "base"), TOLERANCE);
        }
    }

    private double number(String list, int index) {
        return numbers.get(list).get(index).doubleValue();
    }

    private static double[] values(Checkpoint checkpoint, String name) throws IOException {
        TensorInfo info = checkpoint.tensor(name);
        return Tensor.of(checkpoint.data(name), info.dtype(), info.dims()).toDoubleArray();
    }

    private static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        Arrays.setAll(values, i -> array.get(i).intValue());
        return values;
    }
}
