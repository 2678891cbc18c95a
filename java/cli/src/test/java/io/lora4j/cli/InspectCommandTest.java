package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class InspectCommandTest {
    @TempDir
    Path dir;

    @Test
    void model() {
        JsonNode json = inspect(Cli.TINY);
        assertThat(json.get("tensor_count").intValue()).isEqualTo(8 * 9 + 2);
        assertThat(json.get("bytes_by_dtype").get("BF16").longValue())
                .isEqualTo(2 * json.get("parameters").longValue());
        assertThat(json.get("config").get("hidden_size").intValue()).isEqualTo(192);
        assertThat(json.get("usable").stringValue()).startsWith("yes");
        JsonNode tensor = json.get("tensors").get(0);
        assertThat(tensor.get("name").stringValue()).isEqualTo("model.embed_tokens.weight");
        assertThat(tensor.get("shape").toString()).isEqualTo("[2048,192]");

        Cli.Result text = Cli.run("inspect", Cli.TINY);
        assertThat(text.out())
                .contains("tensor_count     74", "bytes_by_dtype   BF16 = ")
                .containsPattern("model\\.norm\\.weight +BF16 +\\[192] +384 B");
        assertThat(Cli.run("inspect", "--path", Cli.TINY).out()).isEqualTo(text.out());
        assertThat(inspect(Cli.TINY.resolve("model.safetensors")).get("tensors"))
                .isEqualTo(json.get("tensors"));
    }

    @Test
    void adapter() {
        JsonNode json = inspect(Cli.ADAPTER);
        assertThat(json.get("tensor_count").intValue()).isEqualTo(112);
        assertThat(json.get("config").get("r").intValue()).isEqualTo(8);
        assertThat(json.get("usable").stringValue()).startsWith("yes: an adapter");
    }

    @Test
    void shardedModel() throws IOException {
        Path model = Cli.model(dir.resolve("model"));
        JsonNode whole = inspect(model);
        shard(model);
        JsonNode sharded = inspect(model);
        assertThat(sharded.get("tensors")).isEqualTo(whole.get("tensors"));
        assertThat(sharded.get("usable").stringValue()).startsWith("yes");
        assertThat(inspect(model.resolve("model.safetensors.index.json")).get("tensor_count"))
                .isEqualTo(whole.get("tensor_count"));

        Files.delete(model.resolve("model-2.safetensors"));
        assertRefused(model, "model-2.safetensors");
    }

    /** Two files of the halves of the header; each keeps its own stretch of the data. */
    private static void shard(Path model) throws IOException {
        byte[] bytes = Files.readAllBytes(model.resolve("model.safetensors"));
        int data =
                8 + (int) ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong(0);
        JsonNode header = new JsonMapper().readTree(new String(bytes, 8, data - 8, StandardCharsets.UTF_8));
        List<Map.Entry<String, JsonNode>> tensors = new ArrayList<>();
        header.properties().forEach(e -> {
            if (!e.getKey().equals("__metadata__")) {
                tensors.add(e);
            }
        });
        tensors.sort((a, b) -> Integer.compare(begin(a.getValue()), begin(b.getValue())));
        Map<String, String> index = new LinkedHashMap<>();
        int half = tensors.size() / 2;
        for (int part = 0; part < 2; part++) {
            List<Map.Entry<String, JsonNode>> own =
                    part == 0 ? tensors.subList(0, half) : tensors.subList(half, tensors.size());
            int from = begin(own.getFirst().getValue());
            int to = own.getLast().getValue().get("data_offsets").get(1).intValue();
            Map<String, Object> entries = new LinkedHashMap<>();
            for (Map.Entry<String, JsonNode> tensor : own) {
                JsonNode offsets = tensor.getValue().get("data_offsets");
                entries.put(
                        tensor.getKey(),
                        Map.of(
                                "dtype", tensor.getValue().get("dtype"),
                                "shape", tensor.getValue().get("shape"),
                                "data_offsets",
                                        List.of(
                                                offsets.get(0).intValue() - from,
                                                offsets.get(1).intValue() - from)));
                index.put(tensor.getKey(), "model-" + (part + 1) + ".safetensors");
            }
            byte[] text = new JsonMapper().writeValueAsBytes(entries);
            ByteBuffer file = ByteBuffer.allocate(8 + text.length + to - from).order(ByteOrder.LITTLE_ENDIAN);
            file.putLong(text.length).put(text).put(bytes, data + from, to - from);
            Files.write(model.resolve("model-" + (part + 1) + ".safetensors"), file.array());
        }
        Files.delete(model.resolve("model.safetensors"));
        Files.writeString(
                model.resolve("model.safetensors.index.json"),
                new JsonMapper().writeValueAsString(Map.of("metadata", Map.of("total_size", 1), "weight_map", index)));
    }

    private static int begin(JsonNode tensor) {
        return tensor.get("data_offsets").get(0).intValue();
    }

    @Test
    void gguf() throws IOException {
        Path file = dir.resolve("tiny.gguf");
        byte[] bytes = ggufOfOneTensor();
        Files.write(file, bytes);
        JsonNode json = inspect(file);
        assertThat(json.get("metadata").get("general.architecture").stringValue())
                .isEqualTo("llama");
        assertThat(json.get("tensors").get(0).get("name").stringValue()).isEqualTo("output_norm.weight");
        assertThat(json.get("tensors").get(0).get("dtype").stringValue()).isEqualTo("F32");
        assertThat(json.get("parameters").intValue()).isEqualTo(4);

        Files.write(file, java.util.Arrays.copyOf(bytes, bytes.length - 3));
        assertRefused(file, "output_norm.weight");
        Files.write(file, java.util.Arrays.copyOf(bytes, 30));
        assertRefused(file, "tiny.gguf");
    }

    /** By the format's description: magic, version 3, counts, metadata, tensor infos, padding to 32, data. */
    private static byte[] ggufOfOneTensor() {
        ByteBuffer b = ByteBuffer.allocate(1024).order(ByteOrder.LITTLE_ENDIAN);
        b.put("GGUF".getBytes(StandardCharsets.US_ASCII)).putInt(3).putLong(1).putLong(1);
        string(b, "general.architecture");
        b.putInt(8);
        string(b, "llama");
        string(b, "output_norm.weight");
        b.putInt(1).putLong(4).putInt(0).putLong(0);
        b.position((b.position() + 31) / 32 * 32);
        for (int i = 0; i < 4; i++) {
            b.putFloat(i);
        }
        return java.util.Arrays.copyOf(b.array(), b.position());
    }

    private static void string(ByteBuffer b, String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        b.putLong(bytes.length).put(bytes);
    }

    @Test
    void whatItIsNot() throws IOException {
        assertRefused(dir, "holds no checkpoint; expected model.safetensors");
        assertRefused(dir.resolve("none"), "none: no such file");
        assertRefused(Files.createFile(dir.resolve("empty.safetensors")), "empty.safetensors: has 0 bytes");
        assertRefused(Cli.TINY.resolve("tokenizer.json"), "tokenizer.json");
        Path model = Cli.model(dir.resolve("model"));
        Files.writeString(model.resolve("config.json"), "{");
        assertRefused(model, "config.json");
        Path other = Cli.model(dir.resolve("other"));
        Files.writeString(
                other.resolve("config.json"),
                Files.readString(other.resolve("config.json"))
                        .replace("\"intermediate_size\": 512", "\"intermediate_size\": 513"));
        assertThat(inspect(other).get("usable").stringValue())
                .startsWith("no: ")
                .contains("gate_proj");
    }

    private static void assertRefused(Path path, String message) {
        Cli.Result result = Cli.run("inspect", path);
        assertThat(result.status()).as(result.err()).isEqualTo(1);
        assertThat(result.err()).contains(message).doesNotContain("\tat ", "internal error");
        assertThat(result.out()).isEmpty();
    }

    private static JsonNode inspect(Path path) {
        return Cli.run("inspect", path, "--json").json();
    }
}
