package io.lora4j.formats;

import static org.junit.jupiter.api.Named.named;

import com.code_intelligence.jazzer.junit.FuzzTest;
import io.lora4j.formats.Quantization.Method;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.NumericException;
import io.lora4j.kernels.Weight;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The readers of files from elsewhere, under Jazzer: whatever the bytes, they are read, or refused by a FormatException that names the
 * file; nothing else is thrown, no read leaves the file, nothing takes long. Each test tries the inputs of {@code test-data/fuzz}; with
 * JAZZER_FUZZ set one of them looks for more: see fuzz.sh beside the module's pom.xml.
 */
class ReaderFuzzTest {
    /** The most that an input may take, on a machine that has other things to do. */
    private static final long MAX_NANOS = 20_000_000_000L;

    private static final Path FUZZED = Path.of("fuzzed");
    private static final Method[] METHODS = Method.values();
    /** [out-features, in-features] of the quantized layer. */
    private static final int[][] SHAPES = {{16, 64}, {24, 40}, {20, 48}, {5, 33}, {130, 136}};

    private static final int[] GROUP_SIZES = {0, 16, 20, 32, 128};

    @TempDir
    private static Path dir;

    private static Device device;
    private static Map<String, ModelModule> modules;

    @BeforeAll
    static void open() throws IOException {
        device = Device.cpu();
        modules = ModelConfigReader.read(FUZZED, Json.readObject(TestData.path("fuzz/modelConfig/llama.json")))
                .modules();
        for (String shard : List.of("one", "two")) {
            MemorySegment data = MemorySegment.ofArray(new byte[] {1, 2, 3});
            NamedTensor tensor = new NamedTensor(shard + ".weight", DType.U8, List.of(3L), data);
            SafetensorsWriter.write(dir.resolve(shard + ".safetensors"), List.of(tensor), Map.of());
        }
    }

    @AfterAll
    static void close() {
        device.close();
    }

    // ------------------------------------------------------------------------------------------------------ the
    // targets

    @MethodSource("safetensorsCorpus")
    @FuzzTest
    void safetensors(byte[] bytes) {
        read(FUZZED, () -> {
            try (MappedFile memory = file(bytes)) {
                touch(SafetensorsFile.parse(memory));
            }
        });
    }

    @MethodSource("ggufCorpus")
    @FuzzTest
    void gguf(byte[] bytes) {
        read(FUZZED, () -> {
            try (MappedFile memory = file(bytes)) {
                GgufFile gguf = GgufFile.parse(memory);
                touch(gguf);
                read(FUZZED, () -> {
                    GgufTokenizer tokenizer = new GgufTokenizer(gguf);
                    tokenizer.json();
                    tokenizer.config();
                });
                read(FUZZED, () -> openAll(ModelWeights.of(GgufConfig.read(gguf), new GgufModel(gguf))));
            }
        });
    }

    /** Three bytes choose what config.json says; the rest is the file of a model that is one layer, "m". */
    @MethodSource("quantizedCorpus")
    @FuzzTest
    void quantized(byte[] bytes) {
        if (bytes.length < 3) {
            return;
        }
        int[] shape = SHAPES[Byte.toUnsignedInt(bytes[1]) % SHAPES.length];
        Quantization config = new Quantization(
                METHODS[Byte.toUnsignedInt(bytes[0]) % METHODS.length],
                GROUP_SIZES[Byte.toUnsignedInt(bytes[2]) % GROUP_SIZES.length],
                false,
                List.of());
        read(FUZZED, () -> {
            try (MappedFile memory = file(Arrays.copyOfRange(bytes, 3, bytes.length));
                    Arena copies = Arena.ofConfined()) {
                SafetensorsFile tensors = SafetensorsFile.parse(memory);
                ModelModule module = ModelModule.linear("m", shape[0], shape[1], false);
                borrow(QuantizedLayer.find(config, tensors, module).open(copies));
            }
        });
    }

    /** The index of two shards, one.safetensors and two.safetensors. */
    @MethodSource("shardIndexCorpus")
    @FuzzTest
    void shardIndex(byte[] bytes) throws IOException {
        Path index = Files.write(dir.resolve("model.safetensors.index.json"), bytes);
        read(dir, () -> {
            try (Checkpoint checkpoint = Checkpoint.open(index)) {
                touch(checkpoint);
            }
        });
    }

    @MethodSource("modelConfigCorpus")
    @FuzzTest
    void modelConfig(byte[] bytes) {
        read(FUZZED, () -> {
            ModelConfig config = ModelConfigReader.read(FUZZED, Json.parseObject(bytes, FUZZED.toString()));
            config.parameters();
        });
    }

    @MethodSource("adapterConfigCorpus")
    @FuzzTest
    void adapterConfig(byte[] bytes) {
        read(FUZZED, () -> {
            AdapterConfig config = AdapterConfigJson.read(FUZZED, Json.parseObject(bytes, FUZZED.toString()));
            config.toJson();
            try {
                config.targets(modules);
            } catch (FormatException e) {
                // That of a config without a file: nothing matches.
            }
        });
    }

    @MethodSource("tokenizerCorpus")
    @FuzzTest
    void tokenizer(byte[] bytes) throws IOException {
        Path file = Files.write(dir.resolve("tokenizer.json"), bytes);
        read(file, () -> {
            try (Tokenizer tokenizer = Tokenizer.open(dir)) {
                Encoding encoding = tokenizer.encodeWithOffsets("hello 日本 👍 <|im_end|>", true);
                tokenizer.decode(encoding.ids(), true);
            }
        });
    }

    // ------------------------------------------------------------------------------------------------------ the inputs

    static Stream<Arguments> safetensorsCorpus() throws IOException {
        return corpus("safetensors");
    }

    static Stream<Arguments> ggufCorpus() throws IOException {
        return corpus("gguf");
    }

    static Stream<Arguments> quantizedCorpus() throws IOException {
        return corpus("quantized");
    }

    static Stream<Arguments> shardIndexCorpus() throws IOException {
        return corpus("shardIndex");
    }

    static Stream<Arguments> modelConfigCorpus() throws IOException {
        return corpus("modelConfig");
    }

    static Stream<Arguments> adapterConfigCorpus() throws IOException {
        return corpus("adapterConfig");
    }

    static Stream<Arguments> tokenizerCorpus() throws IOException {
        return corpus("tokenizer");
    }

    private static Stream<Arguments> corpus(String target) throws IOException {
        Stream.Builder<Arguments> inputs = Stream.builder();
        try (Stream<Path> files = Files.list(TestData.path("fuzz/" + target))) {
            for (Path file : files.sorted().toList()) {
                inputs.add(Arguments.of(named(String.valueOf(file.getFileName()), Files.readAllBytes(file))));
            }
        }
        return inputs.build();
    }

    // ----------------------------------------------------------------------------------------------------- the readers

    private interface Reader {
        void read() throws IOException;
    }

    /** Runs a reader, which may refuse the file by its name. */
    private static void read(Path file, Reader reader) {
        long begin = System.nanoTime();
        try {
            reader.read();
        } catch (FormatException e) {
            if (!e.getMessage().startsWith(file.toString())) {
                throw new AssertionError("a message without the file: " + e.getMessage(), e);
            }
        } catch (IOException e) {
            throw new AssertionError(e);
        }
        long taken = System.nanoTime() - begin;
        if (taken > MAX_NANOS) {
            throw new AssertionError("took " + taken / 1_000_000 + " ms");
        }
    }

    /** A file in memory of exactly its size. */
    private static MappedFile file(byte[] bytes) {
        Arena arena = Arena.ofConfined();
        MemorySegment memory = arena.allocate(bytes.length, 64);
        MemorySegment.copy(bytes, 0, memory, ValueLayout.JAVA_BYTE, 0, bytes.length);
        return new MappedFile(FUZZED, memory.asReadOnly(), arena);
    }

    private static void touch(Checkpoint checkpoint) {
        checkpoint.metadata();
        for (TensorInfo info : checkpoint.tensors().values()) {
            info.elements();
            read(checkpoint.path(), () -> {
                MemorySegment data = checkpoint.data(info.name());
                if (data.byteSize() > 0) {
                    data.get(ValueLayout.JAVA_BYTE, data.byteSize() - 1);
                }
            });
        }
    }

    private static void openAll(ModelWeights weights) throws FormatException {
        try (Arena copies = Arena.ofConfined()) {
            for (ModelModule module : weights.config().modules().values()) {
                if (module.inFeatures() > 0 && weights.has(module.name() + ".weight")) {
                    borrow(weights.matrix(module.name(), copies));
                }
            }
        }
    }

    /** The kernels find nothing more to refuse but values that are not finite, which who loads a model reports by the file's name. */
    private static void borrow(StoredWeight stored) {
        try (Weight weight = stored.weight().borrow(device)) {
            weight.rows();
        } catch (NumericException e) {
            // A NaN.
        }
    }
}
