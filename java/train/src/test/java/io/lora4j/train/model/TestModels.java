package io.lora4j.train.model;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.formats.NamedTensor;
import io.lora4j.formats.SafetensorsWriter;
import io.lora4j.kernels.Adamw;
import io.lora4j.kernels.AdamwHyper;
import io.lora4j.kernels.AdamwOps;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/** Models, batches and adapters for tests. */
final class TestModels {
    private TestModels() {}

    /** A model with its own device and queue. */
    record Open(Device device, Queue queue, LlamaModel model) implements AutoCloseable {
        @Override
        public void close() {
            model.close();
            queue.close();
            device.close();
        }
    }

    static Open open(Path dir, Isa isa, int threads) {
        return open(dir, isa, threads, WeightMode.BORROW);
    }

    static Open open(Path dir, Isa isa, int threads, WeightMode mode) {
        Device device = Device.cpu(isa);
        Queue queue = Queue.create(device, threads);
        try {
            return new Open(device, queue, LlamaModel.open(dir, queue, mode));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A folder that an environment variable names; without it the test is skipped. */
    static Path fromEnvironment(String variable) {
        String value = System.getenv(variable);
        assumeTrue(value != null, "skipped: the environment variable " + variable + " is not set");
        return Path.of(value);
    }

    /** Writes a random two-layer model: sizes that no vector width divides, weights large enough to matter. */
    static Path randomModel(Path dir, DType dtype) {
        return randomModel(dir, dtype, """
                {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61, "hidden_size": 36,
                 "intermediate_size": 52, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
                 "head_dim": 10, "max_position_embeddings": 48, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                 "tie_word_embeddings": true}
                """);
    }

    static Path randomModel(Path dir, DType dtype, String config) {
        try (Arena arena = Arena.ofConfined()) {
            Files.createDirectories(dir);
            Files.writeString(dir.resolve("config.json"), config);
            SplittableRandom random = new SplittableRandom(7);
            List<NamedTensor> tensors = new ArrayList<>();
            ModelConfig.read(dir).expectedTensors().forEach((name, shape) -> {
                long[] dims = shape.stream().mapToLong(Long::longValue).toArray();
                Tensor tensor = Tensor.allocate(arena, dtype, dims);
                float[] values = new float[(int) tensor.elements()];
                for (int i = 0; i < values.length; i++) {
                    float x = (float) random.nextDouble(-1, 1);
                    values[i] = name.contains("norm") ? 1 + 0.5f * x : x * 0.5f;
                }
                tensor.copyFrom(values);
                tensors.add(new NamedTensor(name, dtype, shape, tensor.data()));
            });
            SafetensorsWriter.write(dir.resolve("model.safetensors"), tensors, Map.of());
            return dir;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Sequences of these lengths with random tokens, a third of them not targets. */
    static List<Batch.Sequence> randomSequences(int vocabulary, int... lengths) {
        SplittableRandom random = new SplittableRandom(11);
        List<Batch.Sequence> sequences = new ArrayList<>();
        long index = 100;
        for (int length : lengths) {
            int[] ids = random.ints(length, 0, vocabulary).toArray();
            int[] labels = Arrays.stream(ids)
                    .map(id -> random.nextInt(3) == 0 ? Batch.IGNORE : id)
                    .toArray();
            sequences.add(new Batch.Sequence(ids, labels, index));
            index += length;
        }
        return sequences;
    }

    static AdapterConfig allLinear(int rank, double dropout) {
        return new AdapterConfig(
                rank,
                2 * rank,
                dropout,
                new ModuleFilter.AllLinear(),
                null,
                Map.of(),
                Map.of(),
                false,
                null,
                null,
                null,
                null,
                "CAUSAL_LM");
    }

    /** An adapter whose B is not zero, so that every gradient is there. */
    static Adapter randomAdapter(LlamaModel model, AdapterConfig config) {
        try {
            Adapter adapter = Adapter.create(model, config, 5);
            SplittableRandom random = new SplittableRandom(13);
            for (LoraLinear linear : adapter.linears()) {
                Tensor b = linear.b().value();
                for (long n = 0; n < b.size(0); n++) {
                    for (long r = 0; r < b.size(1); r++) {
                        b.setFloat((float) random.nextDouble(-0.3, 0.3), n, r);
                    }
                }
            }
            return adapter;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static GradientOptions meanOver(int targetTokens) {
        return new GradientOptions(1.0 / targetTokens, false, 42, 1);
    }

    static int targetTokens(List<Batch.Sequence> sequences) {
        return Batch.of(sequences).targetTokens();
    }

    /** AdamW over an adapter with settings that stay the same. */
    static final class Optimizer implements AutoCloseable {
        private final Arena arena = Arena.ofConfined();
        private final AdamwHyper hyper = AdamwHyper.allocate(arena);
        private final Tensor norm = Tensor.allocate(arena, DType.F64, 1);
        private final Adamw arguments;
        private final Queue queue;
        private int steps;

        Optimizer(LlamaModel model, Adapter adapter, double learningRate, double weightDecay) {
            queue = model.queue();
            hyper.learningRate(learningRate)
                    .betas(0.9, 0.999)
                    .epsilon(1e-8)
                    .weightDecay(weightDecay)
                    .maxGradNorm(0)
                    .gradScale(1);
            Adamw.Builder builder = Adamw.builder(arena).group(hyper, norm).zeroGrads(true);
            adapter.parameterList().forEach(p -> builder.parameter(p.value(), p.gradient(), p.expAvg(), p.expAvgSq()));
            arguments = builder.build();
        }

        /** Returns the norm of all gradients. */
        double step() {
            hyper.step(++steps);
            AdamwOps.step(queue, arguments);
            return norm.getDouble(0);
        }

        @Override
        public void close() {
            arena.close();
        }
    }
}
