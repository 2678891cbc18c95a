package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Scheme;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GgufTest {
    private static final Path GOLDEN = TestData.path("formats/files/small.gguf");

    @TempDir
    Path dir;

    @Test
    void readsEveryMetadataType() throws IOException {
        try (GgufFile file = GgufFile.open(GOLDEN)) {
            assertThat(file.version()).isEqualTo(3);
            assertThat(file.values())
                    .containsEntry("general.architecture", "llama")
                    .containsEntry("test.u8", 255L)
                    .containsEntry("test.i8", -128L)
                    .containsEntry("test.u16", 65535L)
                    .containsEntry("test.i16", -32768L)
                    .containsEntry("test.u32", 4294967295L)
                    .containsEntry("test.i32", -2147483648L)
                    .containsEntry("test.f32", 1.5)
                    .containsEntry("test.u64", Long.MIN_VALUE + 1)
                    .containsEntry("test.i64", Long.MIN_VALUE)
                    .containsEntry("test.f64", 0.1)
                    .containsEntry("test.yes", true)
                    .containsEntry("test.text", "grüße 😀")
                    .containsEntry("test.numbers", List.of(1L, -2L, 3L));
            assertThat(file.metadata().get("test.words")).isEqualTo("[w0, w1, w2, w3, w4, w5, w6, w7, …] (20 entries)");
        }
    }

    @Test
    void readsTensorsInPyTorchsOrderOfSizes() throws IOException {
        try (Checkpoint file = Checkpoint.open(GOLDEN)) {
            assertThat(file.tensors().keySet()).containsExactly("f32", "f16", "bf16", "q4_0");
            assertThat(file.tensor("f32").shape()).containsExactly(2L, 3L);
            assertThat(file.tensor("f16").dtype()).isEqualTo(DType.F16);
            assertThat(file.tensor("bf16").shape()).containsExactly(3L, 2L);
            assertThat(file.data("f32").byteSize()).isEqualTo(24);
            assertThat(file.data("f32").isReadOnly()).isTrue();
            TensorInfo quantized = file.tensor("q4_0");
            assertThat(quantized.typeName()).isEqualTo("Q4_0");
            assertThat(quantized.bytes()).isEqualTo(2 * 2 * 18);
            assertThat(quantized.readableType()).isEmpty();
            assertThat(quantized.scheme()).contains(Scheme.GGUF_Q4_0);
            assertThat(file.data("q4_0").byteSize()).isEqualTo(quantized.bytes());
            assertThatThrownBy(quantized::dtype).hasMessageContaining("no plain element type");
        }
    }

    @Test
    void aTruncatedFileIsRefusedAtEveryLength() throws IOException {
        byte[] whole = Files.readAllBytes(GOLDEN);
        // The last tensor's padding may be missing.
        int needed = whole.length - 24;
        for (int length = 4; length < needed; length++) {
            Path file = Bytes.write(dir.resolve("cut.gguf"), Arrays.copyOf(whole, length));
            assertThatThrownBy(() -> Checkpoint.open(file)).isInstanceOf(FormatException.class);
        }
    }

    /** A file with the given metadata and tensor descriptions. */
    private Path file(int version, long tensors, long values, byte[]... parts) throws IOException {
        int size = 24 + Arrays.stream(parts).mapToInt(part -> part.length).sum();
        ByteBuffer b = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
        b.put("GGUF".getBytes(StandardCharsets.US_ASCII))
                .putInt(version)
                .putLong(tensors)
                .putLong(values);
        for (byte[] part : parts) {
            b.put(part);
        }
        return Bytes.write(dir.resolve("x.gguf"), done(b));
    }

    private static ByteBuffer buffer() {
        return ByteBuffer.allocate(1 << 17).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static byte[] done(ByteBuffer b) {
        byte[] bytes = new byte[b.position()];
        b.get(0, bytes);
        return bytes;
    }

    private static byte[] tensor(String name, long[] ne, int type, long offset) {
        ByteBuffer b = buffer().putLong(name.length()).put(name.getBytes(StandardCharsets.US_ASCII));
        b.putInt(ne.length);
        for (long n : ne) {
            b.putLong(n);
        }
        return done(b.putInt(type).putLong(offset));
    }

    private static byte[] array(String key, int type, long count, byte... entries) {
        ByteBuffer b = buffer().putLong(key.length()).put(key.getBytes(StandardCharsets.US_ASCII));
        return done(b.putInt(9).putInt(type).putLong(count).put(entries));
    }

    private static byte[] value(String key, int type, long bits) {
        ByteBuffer b = buffer().putLong(key.length()).put(key.getBytes(StandardCharsets.US_ASCII));
        return done(b.putInt(type).putLong(bits));
    }

    private static byte[] padding(int headerParts, int data) {
        return new byte[(32 - (24 + headerParts) % 32) % 32 + data];
    }

    private void refused(Path file, String message) {
        assertThatThrownBy(() -> Checkpoint.open(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file.toString())
                .hasMessageContaining(message);
    }

    @Test
    void refusesDamage() throws IOException {
        refused(file(1, 0, 0), "is GGUF version 1; read are versions 2 and 3");
        refused(file(Integer.reverseBytes(3), 0, 0), "is a big-endian file");
        refused(file(3, 1L << 40, 0), "more than its 24 bytes can hold");
        refused(file(3, -1, 0), "which no file can hold");
        refused(file(3, 0, 1L << 40), "more than its 24 bytes can hold");
        refused(
                file(3, 1 << 17, 0, new byte[24 << 17]),
                "131072 tensors and 0 metadata entries, more than any model has");
        refused(file(3, 0, 1 << 17, new byte[13 << 17]), "0 tensors and 131072 metadata entries, more than any model");
        refused(
                file(3, 0, 1, value("k".repeat(1 << 16), 10, 1)),
                "has a length of 65536 bytes; expected at most 65535");
        refused(file(3, 0, 1, value("k", 13, 0)), "metadata k has the unknown value type 13");
        refused(file(3, 0, 1, value("k", 7, 2)), "is a bool of value 2");
        refused(file(3, 0, 1, value("k", 8, 1L << 50)), "k has a length of 1125899906842624 bytes; expected at most");
        refused(file(3, 0, 1, array("k", 8, 1L << 40, new byte[64])), "more than any model needs");
        refused(file(3, 0, 1, array("k", 8, 9, new byte[64])), "has 9 entries, more than the file has bytes left");
        refused(file(3, 0, 1, array("k", 9, 6, new byte[64])), "has 6 entries, more than the file has bytes left");
        refused(file(3, 0, 1, array("k", 7, 3, new byte[] {1, 0, 2})), "k is a bool of value 2; expected 0 or 1");
        refused(file(3, 0, 1, array("k", 77, 0)), "metadata k has the unknown value type 77");
        refused(file(3, 0, 2, value("k", 10, 1), value("k", 10, 1)), "metadata key k occurs twice");
        refused(file(3, 0, 1, value("general.alignment", 10, 3)), "general.alignment is 3; expected a power of two");
        byte[] two = tensor("t", new long[] {4}, 0, 0);
        refused(file(3, 1, 0, tensor("t", new long[] {4}, 0, 8)), "not a multiple of the alignment 32");
        refused(file(3, 1, 0, tensor("t", new long[] {1, 1, 1, 1, 1}, 0, 0)), "has 5 dimensions");
        refused(file(3, 1, 0, tensor("t", new long[] {1L << 62, 1L << 62}, 0, 0)), "larger than any file");
        refused(file(3, 1, 0, tensor("t", new long[] {1L << 62, 1L << 62}, 99, 0)), "larger than any file");
        refused(
                file(3, 1, 0, tensor("t", new long[] {4}, 0, 1L << 62)),
                "takes 16 bytes of the data from 4611686018427387904 on");
        refused(file(3, 1, 0, tensor("t", new long[] {33}, 2, 0)), "do not divide into Q4_0 blocks of 32");
        refused(file(3, 1, 0, two), "truncated or damaged");
        refused(file(3, 2, 0, two, two, padding(2 * two.length, 64)), "inside the tensor before it");
        refused(
                file(3, 2, 0, two, tensor("t", new long[] {4}, 0, 32), padding(2 * two.length, 64)),
                "tensor t is described twice");
    }

    @Test
    void readsArraysOfEveryType() throws IOException {
        byte[] ones = new byte[24];
        Arrays.fill(ones, (byte) 0xFF);
        Object[] last = {255L, -1L, 65535L, -1L, 4294967295L, -1L, Double.NaN, null, null, null, -1L, -1L, Double.NaN};
        int[] widths = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
        for (int type = 0; type <= 12; type++) {
            boolean scalar = last[type] != null;
            byte[] entries = scalar ? Arrays.copyOf(ones, 3 * widths[type]) : new byte[3 * widths[type]];
            entries[0] = (byte) (type == 7 ? 1 : entries[0]);
            try (GgufFile file = GgufFile.open(file(3, 0, 1, array("k", type, 3, entries)))) {
                List<?> list = (List<?>) file.values().get("k");
                assertThat(list).as("type %d", type).hasSize(3);
                assertThat(list.getLast())
                        .isEqualTo(type == 7 ? (Object) false : type == 8 ? "" : type == 9 ? List.of() : last[type]);
                assertThat(type == 7 ? list.getFirst() : true).isEqualTo(true);
                assertThatThrownBy(() -> list.get(3)).isInstanceOf(IndexOutOfBoundsException.class);
            }
        }
        refused(
                file(3, 0, 1, array("k", 10, 3, Arrays.copyOf(ones, 23))),
                "has 3 entries, more than the file has bytes left");
    }

    /** Metadata that goes on for 200 MB is refused without being read: the file is full of holes. */
    @Test
    void refusesAHeaderOfAbsurdSize() throws IOException {
        Path file = dir.resolve("absurd.gguf");
        try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
            out.write(done(buffer().put(GgufFile.MAGIC).putInt(3).putLong(0).putLong(50)));
            for (int i = 0; i < 50; i++) {
                out.write(array("key" + i, 0, 1 << 22));
                out.seek(out.getFilePointer() + (1 << 22));
            }
            out.setLength(out.getFilePointer());
        }
        refused(file, "metadata key31 ends beyond byte 134217728 of the header");
    }

    @Test
    void listsTypesThatItDoesNotKnow() throws IOException {
        byte[] unknown = tensor("t", new long[] {4}, 99, 0);
        try (Checkpoint file = Checkpoint.open(file(2, 1, 0, unknown, padding(unknown.length, 40)))) {
            assertThat(file.tensors()).containsOnlyKeys("t");
            assertThat(file.tensor("t").typeName()).isEqualTo("ggml type 99");
            assertThat(file.tensor("t").bytes()).isEqualTo(40);
            assertThat(file.metadata()).isEqualTo(Map.of());
            assertThatThrownBy(() -> file.data("t")).hasMessageContaining("ggml type 99");
        }
    }
}
