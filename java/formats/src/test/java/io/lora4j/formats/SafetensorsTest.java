package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class SafetensorsTest {
    private static final Path GOLDEN = TestData.path("formats/files/all_types.safetensors");

    @TempDir
    Path dir;

    @Test
    void readsWhatTheOwnersLibraryWrote() throws IOException {
        try (Checkpoint checkpoint = Checkpoint.open(GOLDEN)) {
            assertThat(checkpoint.metadata()).containsExactly(Map.entry("format", "pt"));
            TensorInfo info = checkpoint.tensor("z.float32");
            assertThat(info.shape()).containsExactly(3L, 5L);
            assertThat(info.dtype()).isEqualTo(DType.F32);
            assertThat(info.elements()).isEqualTo(15);
            assertThat(info.bytes()).isEqualTo(60);
            assertThat(checkpoint.data("scalar").get(ValueLayout.JAVA_FLOAT_UNALIGNED, 0))
                    .isEqualTo(2.5f);
            assertThat(checkpoint.tensor("scalar").shape()).isEmpty();
            assertThat(checkpoint.data("empty").byteSize()).isZero();
            assertThat(checkpoint.tensors()).containsKey("odd \"name\" é 😀 \n");
            MemorySegment data = checkpoint.data("z.float32");
            assertThat(data.isReadOnly()).isTrue();
            assertThat(data.isNative()).isTrue();
        }
    }

    @Test
    void dataDiesWithTheCheckpoint() throws IOException {
        Checkpoint checkpoint = Checkpoint.open(GOLDEN);
        MemorySegment data = checkpoint.data("z.float32");
        checkpoint.close();
        assertThatThrownBy(() -> data.get(ValueLayout.JAVA_BYTE, 0)).isInstanceOf(IllegalStateException.class);
    }

    @Test
    void writesTheOwnersBytesInAnyOrderOfTensors() throws IOException {
        Path copy = dir.resolve("copy.safetensors");
        try (Checkpoint checkpoint = Checkpoint.open(GOLDEN)) {
            List<NamedTensor> tensors = new ArrayList<>();
            for (TensorInfo info : checkpoint.tensors().values()) {
                tensors.add(new NamedTensor(info.name(), info.dtype(), info.shape(), checkpoint.data(info.name())));
            }
            Collections.shuffle(tensors, new Random(7));
            SafetensorsWriter.write(copy, tensors, Map.of());
        }
        assertThat(copy).hasSameBinaryContentAs(GOLDEN);
        try (Stream<Path> files = Files.list(dir)) {
            assertThat(files).hasSize(1);
        }
    }

    @Test
    void sortsMetadataAndPadsTheHeader() throws IOException {
        Path file = dir.resolve("m.safetensors");
        NamedTensor tensor = new NamedTensor("x", DType.U8, List.of(3L), MemorySegment.ofArray(new byte[] {1, 2, 3}));
        SafetensorsWriter.write(file, List.of(tensor), Map.of("b", "2", "a", "1"));
        byte[] bytes = Files.readAllBytes(file);
        long length = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong();
        assertThat(length % 8).isZero();
        assertThat(new String(bytes, 8, (int) length, java.nio.charset.StandardCharsets.UTF_8).stripTrailing())
                .isEqualTo("{\"__metadata__\":{\"a\":\"1\",\"b\":\"2\",\"format\":\"pt\"},"
                        + "\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}");
        assertThat(bytes).endsWith(1, 2, 3);
    }

    @Test
    void refusesTwoTensorsOfOneName() {
        NamedTensor tensor = new NamedTensor("x", DType.U8, List.of(), MemorySegment.ofArray(new byte[1]));
        assertThatThrownBy(() -> SafetensorsWriter.write(dir.resolve("x"), List.of(tensor, tensor), Map.of()))
                .hasMessageContaining("x is taken");
        assertThatThrownBy(() -> new NamedTensor("y", DType.F32, List.of(2L), MemorySegment.ofArray(new byte[4])))
                .hasMessageContaining("takes 8 bytes, but the data has 4");
    }

    private static String entry(String name, String dtype, String shape, String offsets) {
        return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets
                + "}";
    }

    static Stream<Arguments> damaged() {
        return Stream.of(
                Arguments.of("empty", new byte[0], "has 0 bytes, too few"),
                Arguments.of("seven bytes", new byte[7], "has 7 bytes, too few"),
                Arguments.of("header longer than file", cut("{\"a\":1}", 10), "longer than the file"),
                Arguments.of("header over limit", length(100_000_001L), "over the limit"),
                Arguments.of("header length negative", length(-1L), "18446744073709551615"),
                Arguments.of("empty header", Bytes.safetensors("", 0), "does not begin with '{'"),
                Arguments.of("space before header", Bytes.safetensors(" {}", 0), "does not begin with '{'"),
                Arguments.of("not JSON", Bytes.safetensors("{\"a\":", 0), "not valid JSON"),
                Arguments.of("text after header", Bytes.safetensors("{}x", 0), "not valid JSON"),
                Arguments.of(
                        "duplicate name",
                        Bytes.safetensors(
                                "{" + entry("t", "U8", "[1]", "[0,1]") + "," + entry("t", "U8", "[1]", "[0,1]") + "}",
                                1),
                        "Duplicate"),
                Arguments.of(
                        "duplicate field",
                        Bytes.safetensors("{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0),
                        "Duplicate"),
                Arguments.of(
                        "metadata not strings",
                        Bytes.safetensors("{\"__metadata__\":{\"a\":1}}", 0),
                        "entry a is a JSON number"),
                Arguments.of(
                        "metadata a list",
                        Bytes.safetensors("{\"__metadata__\":[]}", 0),
                        "__metadata__ is a JSON array"),
                Arguments.of(
                        "entry of wrong form",
                        Bytes.safetensors("{\"t\":{\"dtype\":\"F32\"}}", 0),
                        "tensor t: header entry"),
                Arguments.of(
                        "entry of many lists",
                        Bytes.safetensors("{\"t\":[" + "[],".repeat(1000) + "[]]}", 0),
                        "tensor t: header entry [[],[],"),
                Arguments.of(
                        "a fourth field", Bytes.safetensors("{\"t\":{\"dtype\":\"U8\",\"x\":1}}", 0), "header entry"),
                Arguments.of("shape no list", one("U8", "{\"a\":[1]}", "[0,1]", 1), "tensor t: header entry"),
                Arguments.of("dtype no text", Bytes.safetensors("{\"t\":{\"dtype\":[]}}", 0), "tensor t: header entry"),
                Arguments.of("three offsets", one("U8", "[1]", "[0,1,1]", 1), "data_offsets has more than 2 entries"),
                Arguments.of("one offset", one("U8", "[1]", "[1]", 1), "tensor t: header entry"),
                Arguments.of(
                        "many sizes",
                        one("U8", "[" + "1,".repeat(64) + "1]", "[0,1]", 1),
                        "shape has more than 64 entries"),
                Arguments.of(
                        "nested too deep",
                        one("U8", "[".repeat(2000), "[0,1]", 1),
                        "tensor t: shape holds [; expected"),
                Arguments.of("two headers", Bytes.safetensors("{}{}", 0), "something follows the value"),
                Arguments.of("unknown dtype", one("F31", "[1]", "[0,4]", 4), "tensor t: unknown dtype F31"),
                Arguments.of("offsets backwards", one("U8", "[1]", "[2,1]", 4), "run backwards"),
                Arguments.of("offset outside", one("U8", "[8]", "[0,8]", 4), "lie outside the file's 4 bytes"),
                Arguments.of("offset huge", one("U8", "[8]", "[0,9223372036854775807]", 4), "lie outside"),
                Arguments.of(
                        "offset not an integer", one("U8", "[8]", "[0,99999999999999999999]", 4), "expected integers"),
                Arguments.of("offset negative", one("U8", "[8]", "[-1,8]", 4), "expected integers"),
                Arguments.of(
                        "shape against bytes",
                        one("F32", "[2]", "[0,4]", 4),
                        "takes 8 bytes, but data_offsets [0,4] hold 4"),
                Arguments.of(
                        "shape overflow",
                        one("F32", "[4294967296,4294967296]", "[0,4]", 4),
                        "more elements than 64 bits"),
                Arguments.of("negative size", one("F32", "[-1]", "[0,4]", 4), "shape holds -1"),
                Arguments.of(
                        "overlap",
                        Bytes.safetensors(
                                "{" + entry("a", "U8", "[3]", "[0,3]") + "," + entry("b", "U8", "[2]", "[2,4]") + "}",
                                4),
                        "tensor b begins at 2 and overlaps a, which ends at 3"),
                Arguments.of(
                        "hole",
                        Bytes.safetensors(
                                "{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("b", "U8", "[2]", "[2,4]") + "}",
                                4),
                        "1 bytes before tensor b belong to no tensor"),
                Arguments.of("bytes after the last", one("U8", "[2]", "[0,2]", 4), "2 bytes after the last tensor"));
    }

    private static byte[] one(String dtype, String shape, String offsets, int data) {
        return Bytes.safetensors("{" + entry("t", dtype, shape, offsets) + "}", data);
    }

    private static byte[] cut(String header, int bytes) {
        return java.util.Arrays.copyOf(Bytes.safetensors(header, 0), bytes);
    }

    private static byte[] length(long value) {
        return ByteBuffer.allocate(16)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(value)
                .array();
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("damaged")
    void refusesDamage(String what, byte[] bytes, String message) throws IOException {
        Path file = Bytes.write(dir.resolve("model.safetensors"), bytes);
        assertThatThrownBy(() -> Checkpoint.open(file))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith(file.toString())
                .hasMessageContaining(message);
    }

    @Test
    void namesWhatIsMissing() throws IOException {
        assertThatThrownBy(() -> Checkpoint.open(dir.resolve("none.safetensors")))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("none.safetensors: no such file");
        assertThatThrownBy(() -> Checkpoint.open(dir))
                .hasMessageContaining(dir + ": holds no checkpoint; expected model.safetensors");
        Bytes.write(dir.resolve("pytorch_model.bin"), "PK\u0003\u0004");
        assertThatThrownBy(() -> Checkpoint.open(dir)).hasMessageContaining("pickled PyTorch file");
        assertThatThrownBy(() -> Checkpoint.open(dir.resolve("pytorch_model.bin")))
                .hasMessageContaining("save_file");
        try (Checkpoint checkpoint = Checkpoint.open(GOLDEN)) {
            assertThatThrownBy(() -> checkpoint.data("nope")).hasMessageContaining("no tensor named nope among its 17");
        }
    }

    @Test
    void aTruncatedFileIsRefusedAtEveryLength() throws IOException {
        byte[] whole = Files.readAllBytes(GOLDEN);
        for (int length = 0; length < whole.length; length++) {
            Path file = Bytes.write(dir.resolve("cut.safetensors"), java.util.Arrays.copyOf(whole, length));
            assertThatThrownBy(() -> Checkpoint.open(file)).isInstanceOf(FormatException.class);
        }
    }
}
