package io.lora4j.formats;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.node.ObjectNode;

/**
 * Several safetensors files under one {@code model.safetensors.index.json}, whose {@code weight_map} gives the file of each
 * tensor. Opening checks every shard and that the map and the shards agree in both directions.
 */
final class ShardedSafetensors implements Checkpoint {
    private final Path index;
    private final Map<String, SafetensorsFile> shards;
    private final Map<String, SafetensorsFile> shardOf = new LinkedHashMap<>();
    private final Map<String, TensorInfo> tensors = new LinkedHashMap<>();
    private final Map<String, String> metadata = new LinkedHashMap<>();

    private ShardedSafetensors(Path index, Map<String, SafetensorsFile> shards) {
        this.index = index;
        this.shards = shards;
    }

    static ShardedSafetensors open(Path index) throws IOException {
        Map<String, String> weightMap = weightMap(index);
        ShardedSafetensors checkpoint = new ShardedSafetensors(index, new TreeMap<>());
        try {
            checkpoint.openShards(weightMap);
            return checkpoint;
        } catch (IOException | RuntimeException e) {
            checkpoint.close();
            throw e;
        }
    }

    private static Map<String, String> weightMap(Path index) throws IOException {
        ObjectNode json = Json.readObject(index);
        JsonNode map = json.path("weight_map");
        if (!map.isObject() || map.isEmpty()) {
            throw new FormatException(
                    index + ": has no \"weight_map\" object; expected {\"weight_map\":{tensor: file}}");
        }
        Map<String, String> weightMap = new LinkedHashMap<>();
        for (Map.Entry<String, JsonNode> entry : map.properties()) {
            String shard = entry.getValue().isString() ? entry.getValue().stringValue() : "";
            if (!isFileName(shard)) {
                throw new FormatException(index + ": weight_map gives " + entry.getValue() + " for " + entry.getKey()
                        + "; expected the name of a file beside the index");
            }
            weightMap.put(entry.getKey(), shard);
        }
        return weightMap;
    }

    /** A shard lies beside its index: a path would let an index reach any file of the machine. */
    private static boolean isFileName(String shard) {
        if (shard.isEmpty() || shard.contains("/") || shard.contains("\\") || shard.startsWith(".")) {
            return false;
        }
        try {
            return !Path.of(shard).isAbsolute();
        } catch (InvalidPathException e) {
            return false; // A zero byte, or a character that the system's names cannot have.
        }
    }

    /** Returns the shards of an index by name; they may be missing. */
    static Set<String> shardNames(Path index) throws IOException {
        return new TreeSet<>(weightMap(index).values());
    }

    /** Returns the index and its shards by name. */
    static List<Path> files(Path index) throws IOException {
        List<Path> files = new ArrayList<>(List.of(index));
        Map<String, String> weightMap = weightMap(index);
        for (String name : new TreeSet<>(weightMap.values())) {
            files.add(index.resolveSibling(name));
        }
        for (Map.Entry<String, String> entry : weightMap.entrySet()) {
            requireShard(index, entry);
        }
        return files;
    }

    private static Path requireShard(Path index, Map.Entry<String, String> entry) throws FormatException {
        Path file = index.resolveSibling(entry.getValue());
        if (!Files.exists(file)) {
            throw new FormatException(index + ": shard " + entry.getValue() + " is missing (it holds " + entry.getKey()
                    + " and others); fetch the checkpoint again");
        }
        return file;
    }

    private void openShards(Map<String, String> weightMap) throws IOException {
        for (Map.Entry<String, String> entry : weightMap.entrySet()) {
            String name = entry.getValue();
            if (!shards.containsKey(name)) {
                shards.put(name, SafetensorsFile.open(requireShard(index, entry)));
            }
        }
        for (Map.Entry<String, SafetensorsFile> shard : shards.entrySet()) {
            metadata.putAll(shard.getValue().metadata());
            for (TensorInfo info : shard.getValue().tensors().values()) {
                String mapped = weightMap.get(info.name());
                if (!shard.getKey().equals(mapped)) {
                    throw new FormatException(index + ": tensor " + info.name() + " lies in " + shard.getKey()
                            + ", but weight_map says " + (mapped == null ? "nothing of it" : mapped)
                            + "; index and shards are of different checkpoints");
                }
                tensors.put(info.name(), info);
                shardOf.put(info.name(), shard.getValue());
            }
        }
        for (Map.Entry<String, String> entry : weightMap.entrySet()) {
            if (!tensors.containsKey(entry.getKey())) {
                throw new FormatException(index + ": weight_map puts tensor " + entry.getKey() + " into "
                        + entry.getValue() + ", which does not hold it; index and shards are of different checkpoints");
            }
        }
    }

    @Override
    public Path path() {
        return index;
    }

    @Override
    public Map<String, TensorInfo> tensors() {
        return Collections.unmodifiableMap(tensors);
    }

    @Override
    public MemorySegment data(String name) throws FormatException {
        tensor(name);
        SafetensorsFile shard = shardOf.get(name);
        if (shard == null) {
            throw new IllegalStateException("tensor " + name + " has no shard");
        }
        return shard.data(name);
    }

    @Override
    public Map<String, String> metadata() {
        return Collections.unmodifiableMap(metadata);
    }

    @Override
    public void close() {
        shards.values().forEach(SafetensorsFile::close);
    }
}
