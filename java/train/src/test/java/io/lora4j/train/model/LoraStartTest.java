package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.LoraWeights;
import io.lora4j.formats.LowRankUpdate;
import io.lora4j.formats.MergedValues;
import io.lora4j.formats.ModelValues;
import io.lora4j.formats.ModelWriter;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.StoredValues;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** PiSSA and LoftQ against PEFT's: where training begins, how it goes on, and what is written of it. */
class LoraStartTest {
    private static final Path ROOT = Path.of(System.getProperty("lora4j.root"), "test-data");
    private static final Path TINY = ROOT.resolve("tiny-llama");
    private static final Path GOLDEN = ROOT.resolve("golden/init");
    private static final double TOLERANCE = 1e-4;

    @TempDir
    Path dir;

    private final Arena arena = Arena.ofShared();
    private Device device;
    private Queue queue;
    private JsonNode golden;

    @BeforeEach
    void open() throws IOException {
        device = Device.cpu(Isa.AUTO);
        queue = Queue.create(device, 2);
        golden = JsonMapper.shared().readTree(Files.readString(GOLDEN.resolve("reference.json")));
    }

    @AfterEach
    void close() {
        queue.close();
        device.close();
        arena.close();
    }

    /** The config of a case, as a run would have it: without what says how it began. */
    private AdapterConfig config(JsonNode reference) throws IOException {
        Map<String, Object> json = new LinkedHashMap<>();
        reference.get("config").properties().forEach(entry -> json.put(entry.getKey(), entry.getValue()));
        json.keySet().removeAll(List.of("init_lora_weights", "loftq_config"));
        json.put("peft_type", "LORA");
        json.put("task_type", "CAUSAL_LM");
        Path file = dir.resolve("adapter_config.json");
        Files.writeString(file, JsonMapper.shared().writeValueAsString(json));
        return AdapterConfig.read(file);
    }

    private LoraStart start(String name, JsonNode reference) throws IOException {
        JsonNode config = reference.get("config");
        LoraInit init = LoraInit.of(config.get("init_lora_weights").stringValue());
        if (name.startsWith("loftq")) {
            init = new LoraInit(
                    init.kind(), config.get("loftq_config").get("loftq_iter").intValue());
        }
        FourBit fourBit = name.startsWith("loftq") ? new FourBit(FourBit.Type.NF4, false) : null;
        return LoraStart.compute(TINY, config(reference), init, fourBit, queue, arena);
    }

    /** Opens the base that belongs to a start. */
    private LlamaModel base(String name, LoraStart start) throws IOException {
        ModelForm form = ModelForm.of(WeightMode.PACK);
        if (!name.startsWith("loftq")) {
            return LlamaModel.open(TINY, queue, form.withLess(start.subtracted()));
        }
        Path base = dir.resolve("base");
        try (ModelValues values = MergedValues.less(StoredValues.open(TINY, queue), start.subtracted(), queue)) {
            FourBit fourBit = new FourBit(FourBit.Type.NF4, false);
            ModelWriter.bitsAndBytes(
                    base, values, TINY, fourBit.toBitsAndBytes("bfloat16"), queue, (model, reports) -> {});
        }
        return LlamaModel.open(base, queue, form);
    }

    private double[] logits(LlamaModel model, @Nullable Adapter adapter) {
        int[] prompt = ints(golden.get("prompt"));
        Batch batch = Batch.ofIds(List.of(prompt));
        double[] all =
                model.logits(batch, adapter, batch.lastRows(), arena).select(0).toDoubleArray();
        double[] some = new double[all.length / 8];
        for (int i = 0; i < some.length; i++) {
            some[i] = all[8 * i];
        }
        return some;
    }

    private static Batch batch(List<JsonNode> rows) {
        List<Batch.Sequence> sequences = new ArrayList<>();
        for (JsonNode row : rows) {
            sequences.add(new Batch.Sequence(ints(row.get("input_ids")), ints(row.get("labels")), sequences.size()));
        }
        return Batch.of(sequences);
    }

    @ParameterizedTest
    @ValueSource(strings = {"pissa", "pissa_rslora", "pissa_patterns", "loftq", "loftq_iter_3"})
    void beginsAndTrainsAsPeftDoes(String name) throws IOException {
        JsonNode reference = golden.get("cases").get(name);
        LoraStart start = start(name, reference);
        // A number that rounding takes across the middle of two codes is quantized otherwise, and counts for all that
        // follows.
        double tolerance = name.equals("loftq_iter_3") ? 20 * TOLERANCE : TOLERANCE;
        start.adapter().modules().forEach((module, w) -> {
            double expected = reference
                    .get("norm_of_each_product")
                    .get("base_model.model." + module)
                    .doubleValue();
            GoldenAssert.close("‖B·A‖ of " + module, productNorm(w), expected, tolerance);
        });
        List<JsonNode> rows = new ArrayList<>();
        for (String line : Files.readAllLines(ROOT.resolve("golden/tiny-llama/rows.jsonl"))) {
            rows.add(JsonMapper.shared().readTree(line));
        }
        List<Batch> batches = List.of(batch(rows.subList(0, 4)), batch(rows.subList(4, 8)));
        boolean difference = !name.startsWith("loftq");
        try (LlamaModel model = base(name, start);
                Adapter adapter = difference
                        ? Adapter.ofDifference(
                                model, start.adapter(), start.subtracted(), "start", OptimizerState.FLOAT)
                        : Adapter.of(model, start.adapter(), "start", true);
                TestModels.Optimizer optimizer = new TestModels.Optimizer(model, adapter, 2e-3, 0.01)) {
            GoldenAssert.close(
                    "logits at the start",
                    logits(model, adapter),
                    doubles(reference.get("logits_at_start")),
                    tolerance);
            double[] losses = doubles(reference.get("loss"));
            double[] norms = doubles(reference.get("grad_norm"));
            for (int step = 0; step < losses.length; step++) {
                Batch batch = batches.get(step % 2);
                double loss = model.lossAndGradients(batch, adapter, TestModels.meanOver(batch.targetTokens()))
                        .meanLoss();
                GoldenAssert.close("loss of step " + step, loss, losses[step], tolerance);
                GoldenAssert.close("gradient norm of step " + step, optimizer.step(), norms[step], 10 * tolerance);
            }
            double[] after = doubles(reference.get("logits_after"));
            GoldenAssert.close("logits after training", logits(model, adapter), after, tolerance);
            adapter.save(dir.resolve("saved"));
            // What is written belongs to the base as it was, or to the quantized one that lies beside it.
            Path base = difference ? TINY : dir.resolve("base");
            try (LlamaModel plain = LlamaModel.open(base, queue, WeightMode.BORROW);
                    Adapter saved = Adapter.load(plain, dir.resolve("saved"), false)) {
                GoldenAssert.close("logits of what was written", logits(plain, saved), after, tolerance);
                int times = difference ? 2 : 1;
                assertThat(saved.config().rank())
                        .isEqualTo(times * adapter.config().rank());
                saved.linears()
                        .forEach(linear -> assertThat(linear.scaling())
                                .isCloseTo(adapter.config().scaling(linear.module()), within(1e-12)));
            }
            if (difference) {
                halvesComeBack(adapter, start);
            }
        }
    }

    private void halvesComeBack(Adapter adapter, LoraStart start) throws IOException {
        List<PeftAdapter> halves = PeftAdapter.read(dir.resolve("saved"), arena).split(adapter.config(), arena);
        for (LoraLinear linear : adapter.linears()) {
            LoraWeights trained = at(halves.getFirst(), linear.module());
            LoraWeights begun = at(halves.getLast(), linear.module());
            LoraWeights expected = at(start.subtracted(), linear.module());
            assertThat(trained.a().mismatch(linear.a().value().data())).isEqualTo(-1);
            assertThat(trained.b().mismatch(linear.b().value().data())).isEqualTo(-1);
            assertThat(begun.a().mismatch(expected.a())).isEqualTo(-1);
            assertThat(begun.b().mismatch(expected.b())).isEqualTo(-1);
        }
    }

    private static LoraWeights at(PeftAdapter adapter, String module) {
        return Objects.requireNonNull(adapter.modules().get(module));
    }

    /** The other way: what PEFT has converted is a plain adapter of the base. */
    @ParameterizedTest
    @ValueSource(strings = {"pissa", "pissa_patterns"})
    void readsWhatPeftConverted(String name) throws IOException {
        try (LlamaModel model = LlamaModel.open(TINY, queue, WeightMode.BORROW);
                Adapter adapter = Adapter.load(model, GOLDEN.resolve(name + "_converted"), false)) {
            JsonNode reference = golden.get("cases").get(name);
            GoldenAssert.close("logits", logits(model, adapter), doubles(reference.get("logits_converted")), TOLERANCE);
            GoldenAssert.close("logits", logits(model, adapter), doubles(reference.get("logits_after")), TOLERANCE);
        }
        assertThatThrownBy(() -> AdapterConfig.read(GOLDEN.resolve("pissa_as_trained")))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(
                        "\"init_lora_weights\" is \"pissa\", whose adapter belongs to a modified base model")
                .hasMessageContaining("path_initial_model_for_weight_conversion");
    }

    /** With s = 2 too, which PEFT leaves out of account: quantized base and adapter together come nearer to the weights, the more so with more turns. */
    @Test
    void loftqIsNearerToTheBaseThanQuantizationAlone() throws IOException {
        AdapterConfig config = AdapterConfig.of(8, 16, new ModuleFilter.AllLinear());
        double one = distance(new LoraInit(LoraInit.Kind.LOFTQ, 1), config, true);
        double quantized = distance(new LoraInit(LoraInit.Kind.LOFTQ, 1), config, false);
        double five = distance(new LoraInit(LoraInit.Kind.LOFTQ, 5), config, true);
        assertThat(one).isLessThan(0.95 * quantized);
        assertThat(five).isLessThan(0.98 * one);
    }

    /** ‖W − Q − s·B·A‖ over all layers. */
    private double distance(LoraInit init, AdapterConfig config, boolean withAdapter) throws IOException {
        LoraStart start = LoraStart.compute(TINY, config, init, new FourBit(FourBit.Type.NF4, false), queue, arena);
        base("loftq", start).close();
        double sum = 0;
        try (ModelValues dense = StoredValues.open(TINY, queue);
                ModelValues quantized = StoredValues.open(dir.resolve("base"), queue)) {
            for (Map.Entry<String, LoraWeights> module :
                    start.adapter().modules().entrySet()) {
                LoraWeights w = module.getValue();
                Tensor before = Tensor.allocate(arena, DType.F32, w.outFeatures(), w.inFeatures());
                Tensor after = Tensor.allocate(arena, DType.F32, w.outFeatures(), w.inFeatures());
                dense.read(module.getKey() + ".weight", 0, before);
                quantized.read(module.getKey() + ".weight", 0, after);
                if (withAdapter) {
                    LowRankUpdate.add(queue, w, config.scaling(module.getKey()), 0, after);
                }
                float[] x = before.toFloatArray();
                float[] y = after.toFloatArray();
                for (int i = 0; i < x.length; i++) {
                    sum += ((double) x[i] - y[i]) * ((double) x[i] - y[i]);
                }
            }
        }
        return Math.sqrt(sum);
    }

    @Test
    void tiersAndThreadsAgree() throws IOException {
        AdapterConfig config = AdapterConfig.of(3, 5, new ModuleFilter.Names(List.of("v_proj", "k_proj")));
        LoraInit rough = LoraInit.of("pissa_niter_2");
        LoraStart here = LoraStart.compute(TINY, config, rough, null, queue, arena);
        FourBit fourBit = new FourBit(FourBit.Type.FP4, true);
        LoraInit twice = new LoraInit(LoraInit.Kind.LOFTQ, 2);
        LoraStart loftq = LoraStart.compute(TINY, config, twice, fourBit, queue, arena);
        try (Device other = Device.cpu(Isa.REF);
                Queue one = Queue.create(other, 1)) {
            requireSame(here, LoraStart.compute(TINY, config, rough, null, one, arena));
            requireSame(loftq, LoraStart.compute(TINY, config, twice, fourBit, one, arena));
        }
        LoraStart exact = LoraStart.compute(TINY, config, LoraInit.of("pissa"), null, queue, arena);
        assertThat(at(exact.adapter(), "model.layers.0.self_attn.k_proj")
                        .a()
                        .mismatch(at(here.adapter(), "model.layers.0.self_attn.k_proj")
                                .a()))
                .isNotEqualTo(-1);
    }

    private static void requireSame(LoraStart one, LoraStart other) {
        assertThat(other.adapter().modules().keySet())
                .isEqualTo(one.adapter().modules().keySet());
        one.adapter().modules().forEach((module, w) -> {
            assertThat(at(other.adapter(), module).a().mismatch(w.a()))
                    .as(module)
                    .isEqualTo(-1);
            assertThat(at(other.adapter(), module).b().mismatch(w.b()))
                    .as(module)
                    .isEqualTo(-1);
        });
    }

    @Test
    void refusesQuantizedWeightsAndTooLargeRanks() throws IOException {
        Path quantized = dir.resolve("nf4");
        FourBit fourBit = new FourBit(FourBit.Type.NF4, false);
        try (ModelValues values = StoredValues.open(TINY, queue)) {
            ModelWriter.bitsAndBytes(
                    quantized, values, TINY, fourBit.toBitsAndBytes("float32"), queue, (model, reports) -> {});
        }
        AdapterConfig config = AdapterConfig.of(65, 65, new ModuleFilter.AllLinear());
        assertThatThrownBy(() -> LoraStart.compute(quantized, config, LoraInit.of("pissa"), null, queue, arena))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("q_proj.weight is quantized (NF4)");
        assertThatThrownBy(() -> LoraStart.compute(TINY, config, LoraInit.of("pissa"), null, queue, arena))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining(
                        "k_proj.weight is [64, 192] and has 64 singular values, but the adapter's rank there is 65");
    }

    private static double productNorm(LoraWeights w) {
        double sum = 0;
        for (long n = 0; n < w.outFeatures(); n++) {
            for (long k = 0; k < w.inFeatures(); k++) {
                double value = 0;
                for (int r = 0; r < w.rank(); r++) {
                    value += (double) w.b().getAtIndex(ValueLayout.JAVA_FLOAT, n * w.rank() + r)
                            * w.a().getAtIndex(ValueLayout.JAVA_FLOAT, r * w.inFeatures() + k);
                }
                sum += value * value;
            }
        }
        return Math.sqrt(sum);
    }

    private static int[] ints(JsonNode array) {
        return array.values().stream().mapToInt(JsonNode::intValue).toArray();
    }

    private static double[] doubles(JsonNode array) {
        return array.values().stream().mapToDouble(JsonNode::doubleValue).toArray();
    }
}
