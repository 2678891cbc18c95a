package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * The tensors of a model or adapter on disk, memory-mapped: one safetensors file, a sharded set of them, or a GGUF file.
 *
 * <p>Opening reads and checks every header, so that a damaged file is refused before any weight is touched. Segments handed
 * out by {@link #data} are read-only views of the mapping and die with {@link #close}. Any number of threads may read a
 * checkpoint; {@code close} fails while another thread is inside a native call on one of its segments.
 */
public interface Checkpoint extends AutoCloseable {

    /** Returns the file, or the index of a sharded checkpoint, that was opened. */
    Path path();

    /** Returns every tensor by name, in the order in which the data lies in the file or files. */
    Map<String, TensorInfo> tensors();

    /**
     * Returns the bytes of a tensor, read-only and without a copy.
     *
     * @throws FormatException if there is no such tensor, or its storage format is one that lora4j does not read
     */
    MemorySegment data(String name) throws FormatException;

    /**
     * As {@link #data(String)}; where the file has the bytes in another order than the model, they are a copy.
     *
     * @param copies where a copy is made
     */
    default MemorySegment data(String name, SegmentAllocator copies) throws FormatException {
        return data(name);
    }

    /** Lets the pages of a tensor leave memory; reading it again reads the file again. */
    default void unload(String name) throws FormatException {
        data(name).unload();
    }

    /** Returns the file's own metadata: {@code __metadata__} of safetensors, the key-value pairs of GGUF. */
    Map<String, String> metadata();

    /** Unmaps the files; every segment from {@link #data} becomes invalid. */
    @Override
    void close();

    /**
     * Returns a tensor's description.
     *
     * @throws FormatException if there is no such tensor
     */
    default TensorInfo tensor(String name) throws FormatException {
        TensorInfo info = tensors().get(name);
        if (info == null) {
            throw new FormatException(path() + ": no tensor named " + name + " among its "
                    + tensors().size() + " tensors; list them with `lora4j inspect`");
        }
        return info;
    }

    /**
     * Opens a checkpoint.
     *
     * @param fileOrDir a {@code .safetensors}, {@code .safetensors.index.json} or {@code .gguf} file, or a directory that
     *     holds {@code model.safetensors}, {@code model.safetensors.index.json}, {@code adapter_model.safetensors} or one
     *     GGUF file (looked for in this order)
     * @throws FormatException if the file is missing, damaged, or of a kind that is not read
     */
    static Checkpoint open(Path fileOrDir) throws IOException {
        Path file = Files.isDirectory(fileOrDir) ? find(fileOrDir) : fileOrDir;
        if (file.toString().endsWith(".json")) {
            return ShardedSafetensors.open(file);
        }
        byte[] magic = head(file);
        if (Arrays.equals(magic, 0, 4, GgufFile.MAGIC, 0, 4)) {
            return GgufFile.open(file);
        }
        boolean zip = magic[0] == 'P' && magic[1] == 'K';
        boolean pickle = magic[0] == (byte) 0x80 && !file.toString().endsWith(".safetensors");
        if (zip || pickle) {
            throw pickled(file);
        }
        return SafetensorsFile.open(file);
    }

    /** Returns the GGUF file that is meant: the path itself, or the one that a directory without safetensors holds. */
    static Optional<Path> gguf(Path fileOrDir) throws IOException {
        Optional<Path> file = Files.isDirectory(fileOrDir) ? findAny(fileOrDir) : Optional.of(fileOrDir);
        return file.filter(path -> path.toString().endsWith(".gguf"));
    }

    /** Returns the first file, in the order of {@link #open}, that a directory has. */
    private static Optional<Path> findAny(Path dir) throws IOException {
        for (String name : List.of("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")) {
            if (Files.exists(dir.resolve(name))) {
                return Optional.of(dir.resolve(name));
            }
        }
        List<Path> ggufs;
        try (Stream<Path> files = Files.list(dir)) {
            ggufs = files.filter(f -> f.toString().endsWith(".gguf")).sorted().toList();
        }
        if (ggufs.size() == 1) {
            return Optional.of(ggufs.getFirst());
        }
        if (ggufs.size() > 1) {
            throw new FormatException(dir + ": holds " + ggufs.size() + " GGUF files ("
                    + ggufs.stream().map(f -> String.valueOf(f.getFileName())).toList() + "); name the one to open");
        }
        return Optional.empty();
    }

    private static Path find(Path dir) throws IOException {
        Optional<Path> any = findAny(dir);
        if (any.isPresent()) {
            return any.get();
        }
        for (String name : List.of("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")) {
            if (Files.exists(dir.resolve(name))) {
                throw pickled(dir.resolve(name));
            }
        }
        Path foreign = dir.resolve("consolidated.safetensors");
        if (Files.exists(foreign)) {
            throw new FormatException(
                    foreign + ": is in the layout of Mistral's own programs, with other tensor names and"
                            + " another order of the heads' rows; use the model in Hugging Face's layout (model*.safetensors)");
        }
        List<Path> shards;
        try (Stream<Path> files = Files.list(dir)) {
            shards = files.filter(f -> f.toString().endsWith(".safetensors"))
                    .sorted()
                    .toList();
        }
        if (!shards.isEmpty()) {
            throw new FormatException(
                    dir + ": holds " + shards.getFirst().getFileName() + " but neither model.safetensors"
                            + " nor model.safetensors.index.json; fetch the index of the shards, or name the file to open");
        }
        throw new FormatException(
                dir + ": holds no checkpoint; expected model.safetensors, model.safetensors.index.json,"
                        + " adapter_model.safetensors or a .gguf file");
    }

    /**
     * Returns the files that {@link #open} reads from a directory: one, or an index and its shards by name.
     *
     * @throws FormatException if one is missing
     */
    static List<Path> files(Path dir) throws IOException {
        Path file = find(dir);
        List<Path> files = file.toString().endsWith(".json") ? ShardedSafetensors.files(file) : List.of(file);
        for (Path each : files) {
            InputFile.require(each);
        }
        return files;
    }

    private static byte[] head(Path file) throws IOException {
        InputFile.require(file);
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            ByteBuffer head = ByteBuffer.allocate(4);
            while (head.hasRemaining() && channel.read(head) >= 0) {}
            return head.array();
        }
    }

    private static FormatException pickled(Path file) {
        return new FormatException(
                file + ": is a pickled PyTorch file, which can run code when it is read and is refused;"
                        + " convert it with safetensors.torch.save_file(torch.load(file, weights_only=True), \"….safetensors\")");
    }
}
