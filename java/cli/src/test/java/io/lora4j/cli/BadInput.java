package io.lora4j.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ArrayNode;
import tools.jackson.databind.node.ObjectNode;

/** What a row of the table of {@link BadInputTest} is, and the ways to damage a training. */
final class BadInput {
    private BadInput() {}

    /** Damages a model, the data, or the options of a training. */
    interface Damage {
        /** Returns options that are put behind the others. */
        List<?> to(Path model, Path data) throws IOException;
    }

    /** A row of the table. */
    record Case(String what, int status, Damage damage, String... said) {
        @Override
        public String toString() {
            return what;
        }
    }

    static Case options(String what, int status, List<?> options, String... said) {
        return new Case(what, status, (model, data) -> options, said);
    }

    static Case weights(String what, Change change, String... said) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    change.make(new SafetensorsEditor(model.resolve("model.safetensors")));
                    return List.of();
                },
                said);
    }

    static Case config(String what, String field, Object value, String... said) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    Path file = model.resolve("config.json");
                    ObjectNode config = (ObjectNode) new JsonMapper().readTree(Files.readString(file));
                    Files.writeString(file, config.putPOJO(field, value).toString());
                    return List.of();
                },
                said);
    }

    static Case rows(String what, String rows, List<?> options, String... said) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    Files.writeString(data, rows);
                    return options;
                },
                said);
    }

    static Case folder(String what, String name) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    Files.delete(model.resolve(name));
                    Files.createDirectory(model.resolve(name));
                    return List.of();
                },
                name + ": is a folder; expected a file");
    }

    static Case index(String what, String index, String... said) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    Files.delete(model.resolve("model.safetensors"));
                    Files.writeString(model.resolve("model.safetensors.index.json"), index);
                    return List.of();
                },
                said);
    }

    static Case adapter(String what, Path from, Change change, String... said) {
        return new Case(
                what,
                1,
                (model, data) -> {
                    Path adapter = Files.createDirectory(model.resolveSibling("adapter"));
                    for (String name : List.of("adapter_config.json", "adapter_model.safetensors")) {
                        Files.copy(from.resolve(name), adapter.resolve(name));
                    }
                    change.make(new SafetensorsEditor(adapter.resolve("adapter_model.safetensors")));
                    return List.of("--adapter", adapter);
                },
                said);
    }

    interface Change {
        void make(SafetensorsEditor file) throws IOException;
    }

    static ObjectNode tensor(ObjectNode header, String name) {
        return (ObjectNode) header.get(name);
    }

    static void offsets(ObjectNode header, String name, long from, long to) {
        ArrayNode offsets = tensor(header, name).putArray("data_offsets");
        offsets.add(from).add(to);
    }
}
