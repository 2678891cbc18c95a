package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.assertj.core.api.AbstractThrowableAssert;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The cache as huggingface_hub lays it out: refs, snapshots of links, blobs. */
class HubCacheTest {
    private static final String OLD = "1111111111111111111111111111111111111111";
    private static final String NEW = "1234567890abcdef1234567890abcdef12345678";

    @TempDir
    Path dir;

    private HubCache cache;
    private Path repository;

    @BeforeEach
    void layOut() throws IOException {
        cache = new HubCache(dir.resolve("hub"));
        repository = dir.resolve("hub/models--org--some.model-1B");
        snapshot(OLD, "config.json", "model.safetensors");
        snapshot(NEW, "config.json", "model.safetensors", "tokenizer.json");
        Bytes.write(Files.createDirectories(repository.resolve("refs")).resolve("main"), NEW + "\n");
        Bytes.write(Files.createDirectories(repository.resolve("refs/refs/pr")).resolve("7"), OLD);
    }

    private void snapshot(String commit, String... files) throws IOException {
        Path blobs = Files.createDirectories(repository.resolve("blobs"));
        Path snapshot = Files.createDirectories(repository.resolve("snapshots").resolve(commit));
        for (String file : files) {
            String blob = "blob-" + commit.substring(0, 4) + "-" + file;
            Bytes.write(blobs.resolve(blob), "{}");
            Files.createSymbolicLink(snapshot.resolve(file), Path.of("../../blobs", blob));
        }
    }

    private Path snapshot(String commit) {
        return repository.resolve("snapshots").resolve(commit);
    }

    private AbstractThrowableAssert<?, ?> refused(String name) {
        return assertThatThrownBy(() -> cache.model(Path.of(name))).isInstanceOf(FormatException.class);
    }

    @ParameterizedTest
    @CsvSource({
        "org/some.model-1B, , " + NEW,
        "org/some.model-1B@main, main, " + NEW,
        "org/some.model-1B@refs/pr/7, refs/pr/7, " + OLD,
        "org/some.model-1B@" + OLD + ", " + OLD + ", " + OLD,
        "org/some.model-1B@12345, 12345, " + NEW
    })
    void findsARevision(String given, String revision, String commit) throws IOException {
        assertThat(cache.model(Path.of(given)))
                .isEqualTo(new HubCache.Source(snapshot(commit), "org/some.model-1B", revision));
    }

    @Test
    void aNameWithoutAnOwner() throws IOException {
        repository = dir.resolve("hub/models--gpt2");
        snapshot(OLD, "config.json", "model.safetensors");
        Bytes.write(Files.createDirectories(repository.resolve("refs")).resolve("main"), OLD);
        assertThat(cache.model(Path.of("gpt2")).dir()).isEqualTo(snapshot(OLD));
    }

    @Test
    void aFolderComesFirstAndKeepsItsPath() throws IOException {
        Path folder = Files.createDirectories(dir.resolve("org/model@v1"));
        assertThat(cache.model(folder)).isEqualTo(new HubCache.Source(folder, folder.toString(), null));
        Path file = Bytes.write(dir.resolve("file"), "");
        refused(file.toString()).hasMessage(file + " is a file; expected the folder that it is in");
    }

    @Test
    void whatIsNotThereIsSaidWithHowToGetIt() {
        refused("org/other")
                .hasMessage("no folder org/other, and no org/other in the Hugging Face cache " + dir.resolve("hub")
                        + "; lora4j downloads nothing: check the path, or fetch it with: hf download org/other");
        refused("org/other@v2").hasMessageEndingWith("hf download org/other --revision v2");
        refused("org/some.model-1B@v9")
                .hasMessageContainingAll(
                        "has no revision v9",
                        OLD,
                        NEW,
                        "[main, refs/pr/7]",
                        "hf download org/some.model-1B --revision v9");
        refused("org/some.model-1B@1").hasMessageContaining("has several commits that begin with 1;");
    }

    @ParameterizedTest
    @ValueSource(strings = {"./org/model", "/no/such/folder", "a/b/c", "../model", "org/a b", "org/m@"})
    void whatIsNoNameIsAPath(String given) {
        refused(given).hasMessageStartingWith("no folder " + Path.of(given) + "; check the path (a repository");
    }

    @Test
    void aRevisionCannotLeaveTheCache() throws IOException {
        Bytes.write(repository.resolve("outside"), NEW);
        refused("org/some.model-1B@../outside").hasMessageContaining("has no revision ../outside");
    }

    @Test
    void anIncompleteDownloadIsRefused() throws IOException {
        Files.delete(repository.resolve("blobs/blob-1234-model.safetensors"));
        refused("org/some.model-1B")
                .hasMessage(
                        snapshot(NEW) + ": is an incomplete download, it has no model.safetensors; fetch the rest with:"
                                + " hf download org/some.model-1B");
        Files.delete(snapshot(NEW).resolve("model.safetensors"));
        Files.delete(snapshot(NEW).resolve("config.json"));
        refused("org/some.model-1B").hasMessageContaining("it has no config.json, model.safetensors;");
        Bytes.write(repository.resolve("refs/main"), "abcd");
        refused("org/some.model-1B").hasMessageContaining("names the commit abcd, which is not in");
    }

    @Test
    void everyShardMustBeThere() throws IOException {
        String index = "model.safetensors.index.json";
        Files.delete(snapshot(NEW).resolve("model.safetensors"));
        Bytes.write(
                snapshot(NEW).resolve(index),
                "{\"weight_map\": {\"a\": \"model-1-of-2.safetensors\", \"b\": \"model-2-of-2.safetensors\"}}");
        Bytes.write(snapshot(NEW).resolve("model-1-of-2.safetensors"), "");
        refused("org/some.model-1B").hasMessageContaining("it has no model-2-of-2.safetensors;");
        Bytes.write(snapshot(NEW).resolve("model-2-of-2.safetensors"), "");
        assertThat(cache.model(Path.of("org/some.model-1B")).dir()).isEqualTo(snapshot(NEW));
        for (String name : new String[] {"\"\\u0000\"", "\"../x\"", "{}"}) {
            Bytes.write(snapshot(NEW).resolve(index), "{\"weight_map\": {\"a\": " + name + "}}");
            refused("org/some.model-1B")
                    .hasMessageStartingWith(snapshot(NEW).resolve(index).toString())
                    .hasMessageContaining("for a; expected the name of a file beside the index");
        }
    }

    @Test
    void anAdapterHasOtherFiles() throws IOException {
        assertThatThrownBy(() -> cache.adapter(Path.of("org/some.model-1B")))
                .hasMessageContaining("it has no adapter_config.json, adapter_model.safetensors;");
        snapshot(NEW, "adapter_config.json", "adapter_model.safetensors");
        assertThat(cache.adapter(Path.of("org/some.model-1B")).dir()).isEqualTo(snapshot(NEW));
    }

    @ParameterizedTest
    @CsvSource({
        "HOME=/h, /h/.cache/huggingface/hub",
        "HOME=/h XDG_CACHE_HOME=/x, /x/huggingface/hub",
        "HOME=/h XDG_CACHE_HOME=/x HF_HOME=~/hf, /h/hf/hub",
        "HOME=/h HF_HOME=/f HUGGINGFACE_HUB_CACHE=/l, /l",
        "HOME=/h HF_HOME=/f HUGGINGFACE_HUB_CACHE=/l HF_HUB_CACHE=$DISK/${SUB}/c DISK=/d SUB=s, /d/s/c"
    })
    void theEnvironmentSaysWhereItIs(String variables, String expected) {
        Map<String, String> environment = new HashMap<>();
        for (String variable : variables.split(" ")) {
            environment.put(variable.split("=")[0], variable.split("=")[1]);
        }
        assertThatThrownBy(() -> HubCache.of(environment).model(Path.of("org/none")))
                .hasMessageContaining("in the Hugging Face cache " + expected + ";");
    }
}
