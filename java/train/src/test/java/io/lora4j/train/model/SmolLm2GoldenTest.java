package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * SmolLM2-135M-Instruct against a training run of transformers + PEFT: losses, norms, logits, greedy tokens. Runs where
 * {@code LORA4J_SMOLLM2} names the model's folder and {@code LORA4J_SMOLLM2_GOLDEN} the one with the reference values.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class SmolLm2GoldenTest {
    private static final double TOLERANCE = 1e-4;
    private static final double NORM_TOLERANCE = 1e-3;

    private TestModels.@Nullable Open open;
    private Path golden = Path.of("");
    private JsonNode numbers = JsonMapper.shared().nullNode();

    @BeforeAll
    void openModel() throws IOException {
        Path dir = TestModels.fromEnvironment("LORA4J_SMOLLM2");
        golden = TestModels.fromEnvironment("LORA4J_SMOLLM2_GOLDEN");
        numbers = JsonMapper.shared().readTree(Files.readString(golden.resolve("reference.json")));
        open = TestModels.open(dir, Isa.AUTO, 0);
    }

    @AfterAll
    void closeModel() {
        if (open != null) {
            open.close();
        }
    }

    private LlamaModel model() {
        assertThat(open).isNotNull();
        return open.model();
    }

    private Batch batch() {
        List<Batch.Sequence> sequences = new ArrayList<>();
        for (int i = 0; i < numbers.get("input_ids").size(); i++) {
            sequences.add(new Batch.Sequence(
                    ints(numbers.get("input_ids").get(i)),
                    ints(numbers.get("labels").get(i)),
                    0));
        }
        return Batch.of(sequences);
    }

    private @Nullable Adapter adapter(String which) throws IOException {
        return which.equals("without") ? null : Adapter.load(model(), golden.resolve("adapter_init"), true);
    }

    @Test
    void tenStepsOfTrainingEqualThoseOfPeft() throws IOException {
        JsonNode settings = numbers.get("optimizer");
        Batch batch = batch();
        assertThat(batch.targetTokens()).isEqualTo(numbers.get("target_tokens").intValue());
        try (Adapter adapter = Adapter.load(model(), golden.resolve("adapter_init"), true);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(
                        model(),
                        adapter,
                        settings.get("learning_rate").doubleValue(),
                        settings.get("weight_decay").doubleValue())) {
            assertThat(numbers.get("loss").size()).isEqualTo(10);
            for (int step = 0; step < 10; step++) {
                BatchLoss loss = model().lossAndGradients(batch, adapter, TestModels.meanOver(batch.targetTokens()));
                if (step == 0) {
                    JsonNode norms = numbers.get("grad_norm_of_each_tensor_step_1");
                    assertThat(norms.size()).isEqualTo(adapter.parameterList().size());
                    for (LoraLinear.Parameter p : adapter.parameterList()) {
                        double expected = norms.get(p.name()).doubleValue();
                        GoldenAssert.close(
                                "gradient norm of " + p.name(), norm(p.gradient()), expected, NORM_TOLERANCE);
                    }
                }
                double norm = optimizer.step();
                GoldenAssert.close("loss " + step, loss.meanLoss(), number("loss", step), TOLERANCE);
                GoldenAssert.close("gradient norm " + step, norm, number("grad_norm", step), NORM_TOLERANCE);
            }
            JsonNode norms = numbers.get("norm_of_each_tensor_after_10_steps");
            for (LoraLinear.Parameter p : adapter.parameterList()) {
                double expected = norms.get(p.name()).doubleValue();
                GoldenAssert.close("norm of " + p.name(), norm(p.value()), expected, NORM_TOLERANCE);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"with", "without"})
    void logitsEqualThoseOfTransformers(String which) throws IOException {
        Batch batch = batch();
        try (Adapter adapter = adapter(which);
                Arena arena = Arena.ofConfined()) {
            Tensor logits = model().logits(batch, adapter, batch.lastRows(), arena);
            for (JsonNode row : numbers.get("logits_" + which + "_adapter")) {
                int b = row.get("row").intValue();
                double[] all = logits.select(b).toDoubleArray();
                double max = Arrays.stream(all).max().orElseThrow();
                double lse = max
                        + Math.log(
                                Arrays.stream(all).map(z -> Math.exp(z - max)).sum());
                GoldenAssert.close(
                        "logsumexp of row " + b, lse, row.get("logsumexp").doubleValue(), TOLERANCE);
                JsonNode top = row.get("top");
                double[] expected = new double[top.size()];
                double[] actual = new double[top.size()];
                for (int i = 0; i < expected.length; i++) {
                    actual[i] = all[top.get(i).get(0).intValue()];
                    expected[i] = top.get(i).get(1).doubleValue();
                }
                GoldenAssert.close("top logits of row " + b, actual, expected, TOLERANCE);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"with", "without"})
    void greedyTokensEqualThoseOfTransformers(String which) throws IOException {
        Batch.Sequence first = new Batch.Sequence(
                ints(numbers.get("input_ids").get(0)),
                ints(numbers.get("labels").get(0)),
                0);
        int prompt = 0;
        while (first.labels()[prompt] == Batch.IGNORE) {
            prompt++;
        }
        int[] expected = ints(numbers.get("greedy_" + which + "_adapter"));
        try (Adapter adapter = adapter(which)) {
            Generation generation = new Generator(model(), adapter)
                    .generate(
                            Arrays.copyOf(first.ids(), prompt), Sampling.GREEDY, Set.of(), expected.length, id -> true);
            assertThat(generation.ids())
                    .containsExactlyElementsOf(Arrays.stream(expected).boxed().toList());
        }
    }

    private double number(String list, int index) {
        return numbers.get(list).get(index).doubleValue();
    }

    private static double norm(Tensor tensor) {
        double sum = 0;
        for (double x : tensor.toDoubleArray()) {
            sum += x * x;
        }
        return Math.sqrt(sum);
    }

    private static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        Arrays.setAll(values, i -> array.get(i).intValue());
        return values;
    }
}
