package io.lora4j.formats;

import io.lora4j.formats.template.ChatTemplate;
import io.lora4j.formats.template.Message;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import net.jqwik.api.Assume;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.lifecycle.AfterContainer;
import net.jqwik.api.lifecycle.BeforeContainer;

/** Damaged files either open or are refused with a FormatException: no other failure, no endless loop, no huge allocation. */
class ParserFuzzTest {
    private static Path dir;

    @BeforeContainer
    static void makeDirectory() throws IOException {
        dir = Files.createTempDirectory("lora4j-fuzz");
    }

    @AfterContainer
    static void removeDirectory() throws IOException {
        try (var files = Files.list(dir)) {
            for (Path file : files.toList()) {
                Files.delete(file);
            }
        }
        Files.delete(dir);
    }

    /** Flips, overwrites, removes or doubles some bytes. */
    private static byte[] mutate(byte[] original, long seed, int changes) {
        Random random = new Random(seed);
        byte[] bytes = original.clone();
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

    @Property(tries = 800)
    void safetensors(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int changes) throws IOException {
        open(
                mutate(Files.readAllBytes(TestData.path("formats/files/all_types.safetensors")), seed, changes),
                "f.safetensors");
    }

    @Property(tries = 800)
    void gguf(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int changes) throws IOException {
        byte[] bytes = mutate(Files.readAllBytes(TestData.path("formats/files/small.gguf")), seed, changes);
        Assume.that(bytes.length >= 4);
        open(bytes, "f.gguf");
    }

    @Property(tries = 200)
    void garbage(@ForAll byte[] bytes) throws IOException {
        open(bytes, "garbage.safetensors");
        open(bytes, "garbage.gguf");
    }

    @Property(tries = 400)
    void adapterConfig(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int changes) throws IOException {
        Path file = dir.resolve("adapter_config.json");
        byte[] valid = Files.readAllBytes(TestData.path("formats/adapters/patterns/adapter_config.json"));
        Files.write(file, mutate(valid, seed, changes));
        try {
            AdapterConfig.read(file);
        } catch (FormatException e) {
            assertNamed(e, file);
        }
    }

    @Property(tries = 400)
    void modelConfig(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int changes) throws IOException {
        Path file = dir.resolve("config.json");
        String valid =
                TestData.json("formats/configs/llama3_rope.json").get("config").toString();
        Files.write(file, mutate(valid.getBytes(StandardCharsets.UTF_8), seed, changes));
        try {
            ModelConfig.read(file);
        } catch (FormatException e) {
            assertNamed(e, file);
        }
    }

    @Property(tries = 200)
    void tokenizer(@ForAll long seed, @ForAll @IntRange(min = 1, max = 3) int changes) throws IOException {
        Path folder = Files.createDirectories(dir.resolve("tokenizer"));
        String name = seed % 2 == 0 ? "bytes" : "spaces";
        byte[] valid = Files.readAllBytes(TestData.path("tokenizers/" + name + "/tokenizer.json"));
        Path file = Files.write(folder.resolve("tokenizer.json"), mutate(valid, seed, changes));
        try (Tokenizer tokenizer = Tokenizer.open(folder)) {
            Encoding encoding = tokenizer.encodeWithOffsets("hello 日本 👍 <|im_end|>", true);
            tokenizer.decode(encoding.ids(), true);
        } catch (FormatException e) {
            assertNamed(e, file);
        } finally {
            Files.delete(file);
            Files.delete(folder);
        }
    }

    private static void assertNamed(FormatException e, Path file) {
        if (!e.getMessage().startsWith(file.toString())) {
            throw new AssertionError("message without the file: " + e.getMessage(), e);
        }
    }

    @Property(tries = 400)
    void chatTemplate(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int changes) throws IOException {
        List<String> names = List.of("thinking", "expressions", "spaces", "parts", "inst_tools");
        Path source = TestData.path("formats/templates/" + names.get((int) Math.floorMod(seed, 5L)) + ".jinja");
        byte[] bytes = mutate(Files.readAllBytes(source), seed, changes);
        List<Message> messages = List.of(new Message("user", "a"), new Message("assistant", "b"));
        try {
            ChatTemplate.parse(new String(bytes, StandardCharsets.UTF_8), "fuzzed")
                    .render(messages, Map.of("bos_token", "<s>", "eos_token", "</s>"), false);
        } catch (FormatException e) {
            if (!e.getMessage().startsWith("fuzzed: ")) {
                throw new AssertionError("message without the name: " + e.getMessage(), e);
            }
        }
    }
}
