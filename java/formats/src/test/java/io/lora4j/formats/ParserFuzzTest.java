package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Damaged files either open or are refused with a FormatException: no other failure, no endless loop, no huge allocation. */
class ParserFuzzTest {
    private static final Path FAMILIES =
            Path.of(System.getProperty("lora4j.root"), "java/train/src/test/resources/io/lora4j/train/model/families");

    @TempDir
    private static Path dir;

    private interface Trial {
        void run(SplittableRandom random) throws IOException;
    }

    /** Runs a trial with as many seeds; a failure names its seed. */
    private static void fuzz(int tries, Trial trial) {
        for (int seed = 0; seed < tries; seed++) {
            try {
                trial.run(new SplittableRandom(seed));
            } catch (Exception | AssertionError | StackOverflowError | OutOfMemoryError e) {
                throw new AssertionError("seed " + seed + ": " + e, e);
            }
        }
    }

    /** Flips, overwrites, removes or adds some bytes, in at most so many places. */
    private static byte[] mutate(byte[] original, SplittableRandom random, int most) {
        byte[] bytes = original.clone();
        int changes = random.nextInt(1, most + 1);
        for (int i = 0; i < changes; i++) {
            int at = random.nextInt(bytes.length);
            switch (random.nextInt(6)) {
                case 0 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
                case 1 -> bytes[at] = (byte) random.nextInt();
                case 2 -> bytes[at] = (byte) (random.nextBoolean() ? 0xFF : 0);
                case 3 -> bytes[at] = (byte) "0123456789[]{}\":,-".charAt(random.nextInt(18));
                case 4 -> {
                    int length = Math.min(random.nextInt(16), bytes.length - at);
                    byte[] shorter = new byte[Math.max(bytes.length - length, 1)];
                    System.arraycopy(bytes, 0, shorter, 0, Math.min(at, shorter.length));
                    if (shorter.length > at) {
                        System.arraycopy(bytes, at + length, shorter, at, shorter.length - at);
                    }
                    bytes = shorter;
                }
                default -> {
                    byte[] longer = new byte[bytes.length + 1];
                    System.arraycopy(bytes, 0, longer, 0, at);
                    longer[at] = (byte) random.nextInt();
                    System.arraycopy(bytes, at, longer, at + 1, bytes.length - at);
                    bytes = longer;
                }
            }
        }
        return bytes;
    }

    private static void open(byte[] bytes, String name) throws IOException {
        Path file = dir.resolve(name);
        Files.write(file, bytes);
        try (Checkpoint checkpoint = Checkpoint.open(file)) {
            for (TensorInfo info : checkpoint.tensors().values()) {
                if (info.readableType().isPresent()) {
                    checkpoint.data(info.name()).mismatch(checkpoint.data(info.name()));
                }
            }
        } catch (FormatException e) {
            if (!e.getMessage().startsWith(file.toString())) {
                throw new AssertionError("message without the file: " + e.getMessage(), e);
            }
        }
    }

    @Test
    void safetensors() throws IOException {
        byte[] valid = Files.readAllBytes(TestData.path("formats/files/all_types.safetensors"));
        fuzz(800, random -> open(mutate(valid, random, 6), "f.safetensors"));
    }

    @Test
    void gguf() throws IOException {
        byte[] valid = Files.readAllBytes(TestData.path("formats/files/small.gguf"));
        fuzz(800, random -> open(mutate(valid, random, 6), "f.gguf"));
    }

    /** A file whose first bytes are changed and whose rest is not. */
    private static byte[] mutateHead(byte[] original, int head, SplittableRandom random) {
        byte[] changed = mutate(Arrays.copyOf(original, head), random, 3);
        byte[] bytes = Arrays.copyOf(changed, changed.length + original.length - head);
        System.arraycopy(original, head, bytes, changed.length, original.length - head);
        return bytes;
    }

    /** Opens all of a model; what is refused names the file. */
    private static void openModel(Path model, Path file) throws IOException {
        try (ModelWeights weights = ModelWeights.open(model);
                Arena arena = Arena.ofConfined()) {
            for (ModelModule module : weights.config().modules().values()) {
                boolean matrix = module.inFeatures() > 0 && weights.has(module.name() + ".weight");
                if (matrix) {
                    assertThat(weights.matrix(module.name(), arena).parts()).isNotEmpty();
                }
            }
        } catch (FormatException e) {
            assertNamed(e, file);
        }
    }

    @Test
    void ggufModel() throws IOException {
        byte[] valid = Files.readAllBytes(FAMILIES.resolve("gguf_llama/model.gguf"));
        int head;
        try (GgufFile file = GgufFile.open(FAMILIES.resolve("gguf_llama/model.gguf"))) {
            head = (int) file.tensors().values().iterator().next().offset();
        }
        Path file = dir.resolve("model.gguf");
        fuzz(400, random -> {
            Files.write(file, mutateHead(valid, head, random));
            openModel(file, file);
            try (Tokenizer tokenizer = Tokenizer.open(file)) {
                tokenizer.decode(tokenizer.encode("hello 日本 👍 <|im_end|>", true), true);
            } catch (FormatException e) {
                assertNamed(e, file);
            }
        });
    }

    @ParameterizedTest
    @ValueSource(strings = {"nf4_double", "gptq_v2"})
    void quantizedModel(String family) throws IOException {
        Path model = Files.createDirectories(dir.resolve(family));
        Files.copy(FAMILIES.resolve(family).resolve("config.json"), model.resolve("config.json"));
        byte[] valid = Files.readAllBytes(FAMILIES.resolve(family).resolve("model.safetensors"));
        fuzz(300, random -> {
            Files.write(model.resolve("model.safetensors"), mutate(valid, random, 40));
            openModel(model, model);
        });
    }

    @Test
    void garbage() {
        fuzz(200, random -> {
            byte[] bytes = new byte[random.nextInt(256)];
            random.nextBytes(bytes);
            open(bytes, "garbage.safetensors");
            open(bytes, "garbage.gguf");
        });
    }

    @Test
    void adapterConfig() throws IOException {
        Path file = dir.resolve("adapter_config.json");
        byte[] valid = Files.readAllBytes(TestData.path("formats/adapters/patterns/adapter_config.json"));
        fuzz(400, random -> {
            Files.write(file, mutate(valid, random, 6));
            try {
                AdapterConfig.read(file);
            } catch (FormatException e) {
                assertNamed(e, file);
            }
        });
    }

    @Test
    void modelConfig() throws IOException {
        Path file = dir.resolve("config.json");
        String valid =
                TestData.json("formats/configs/llama3_rope.json").get("config").toString();
        fuzz(400, random -> {
            Files.write(file, mutate(valid.getBytes(StandardCharsets.UTF_8), random, 6));
            try {
                ModelConfig.read(file);
            } catch (FormatException e) {
                assertNamed(e, file);
            }
        });
    }

    @ParameterizedTest
    @ValueSource(strings = {"bytes", "spaces"})
    void tokenizer(String name) throws IOException {
        byte[] valid = Files.readAllBytes(TestData.path("tokenizers/" + name + "/tokenizer.json"));
        Path folder = Files.createDirectories(dir.resolve(name));
        Path file = folder.resolve("tokenizer.json");
        fuzz(100, random -> {
            Files.write(file, mutate(valid, random, 3));
            try (Tokenizer tokenizer = Tokenizer.open(folder)) {
                Encoding encoding = tokenizer.encodeWithOffsets("hello 日本 👍 <|im_end|>", true);
                tokenizer.decode(encoding.ids(), true);
            } catch (FormatException e) {
                assertNamed(e, file);
            }
        });
    }

    private static void assertNamed(FormatException e, Path file) {
        if (!e.getMessage().startsWith(file.toString())) {
            throw new AssertionError("message without the file: " + e.getMessage(), e);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"thinking", "expressions", "spaces", "parts", "inst_tools"})
    void chatTemplate(String name) throws IOException {
        byte[] valid = Files.readAllBytes(TestData.path("formats/templates/" + name + ".jinja"));
        List<Message> messages = List.of(new Message("user", "a"), new Message("assistant", "b"));
        fuzz(100, random -> {
            try {
                ChatTemplate.parse(new String(mutate(valid, random, 6), StandardCharsets.UTF_8), "fuzzed")
                        .render(
                                messages,
                                Map.of("bos_token", "<s>", "eos_token", "</s>"),
                                ZonedDateTime.now(ZoneOffset.UTC));
            } catch (FormatException e) {
                if (!e.getMessage().startsWith("fuzzed: ")) {
                    throw new AssertionError("message without the name: " + e.getMessage(), e);
                }
            }
        });
    }
}
