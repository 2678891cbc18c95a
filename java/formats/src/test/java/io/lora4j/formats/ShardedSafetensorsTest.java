package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ShardedSafetensorsTest {
    private static final String ONE = "model-00001-of-00002.safetensors";
    private static final String TWO = "model-00002-of-00002.safetensors";

    @TempDir
    Path dir;

    @BeforeEach
    void writeShards() throws IOException {
        SafetensorsWriter.write(dir.resolve(ONE), List.of(tensor("a", 1), tensor("b", 2)), Map.of());
        SafetensorsWriter.write(dir.resolve(TWO), List.of(tensor("c", 3)), Map.of());
    }

    private static NamedTensor tensor(String name, int value) {
        return new NamedTensor(name, DType.U8, List.of(1L), MemorySegment.ofArray(new byte[] {(byte) value}));
    }

    private void index(String weightMap) throws IOException {
        Bytes.write(dir.resolve("model.safetensors.index.json"), "{\"metadata\":{},\"weight_map\":" + weightMap + "}");
    }

    private static String map(String... pairs) {
        StringBuilder json = new StringBuilder("{");
        for (int i = 0; i < pairs.length; i += 2) {
            json.append(i > 0 ? "," : "").append("\"" + pairs[i] + "\":\"" + pairs[i + 1] + "\"");
        }
        return json.append("}").toString();
    }

    @Test
    void readsAcrossShards() throws IOException {
        index(map("c", TWO, "a", ONE, "b", ONE));
        try (Checkpoint checkpoint = Checkpoint.open(dir)) {
            assertThat(checkpoint.tensors().keySet()).containsExactly("a", "b", "c");
            assertThat(checkpoint.data("c").get(ValueLayout.JAVA_BYTE, 0)).isEqualTo((byte) 3);
            assertThat(checkpoint.metadata()).containsEntry("format", "pt");
        }
    }

    @Test
    void refusesDisagreement() throws IOException {
        index(map("a", ONE, "b", ONE, "c", "model-00003.safetensors"));
        refused("shard model-00003.safetensors is missing (it holds c");
        index(map("a", ONE, "c", TWO));
        refused("tensor b lies in " + ONE + ", but weight_map says nothing of it");
        index(map("a", ONE, "b", TWO, "c", TWO));
        refused("tensor b lies in " + ONE + ", but weight_map says " + TWO);
        index(map("a", ONE, "b", ONE, "c", TWO, "d", TWO));
        refused("weight_map puts tensor d into " + TWO + ", which does not hold it");
        index(map("a", "../" + ONE));
        refused("expected the name of a file beside the index");
        index(map("a", "\\u0000"));
        refused("weight_map gives \"\\u0000\" for a; expected the name of a file beside the index");
        index("[]");
        refused("has no \"weight_map\" object");
        index("{\"a\":1}");
        refused("weight_map gives 1 for a");
    }

    private void refused(String message) {
        assertThatThrownBy(() -> Checkpoint.open(dir))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("model.safetensors.index.json")
                .hasMessageContaining(message);
    }
}
