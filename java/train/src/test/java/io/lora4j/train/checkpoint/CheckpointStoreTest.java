package io.lora4j.train.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.AtomicFile;
import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointStoreTest {
    @TempDir
    Path dir;

    private CheckpointStore store;

    @BeforeEach
    void open() {
        store = new CheckpointStore(dir, 2);
    }

    private static TrainerState state(int step) {
        return new TrainerState(
                step,
                0.1 * step,
                Map.of("loss", 1.0 / 3),
                Map.of("lora_r", "8"),
                List.of("lora_r"),
                null,
                "/somewhere");
    }

    private final Chain start = Chain.start(new RunIdentity("2026-01-02T03:04:05Z", Map.of()));

    private Path save(int step) throws IOException {
        save(step, start);
        return store.path(step);
    }

    private Chain save(int step, Chain chain) throws IOException {
        return store.save(
                state(step),
                chain,
                12,
                to -> AtomicFile.write(to.resolve("adapter"), new byte[] {1, 2, (byte) step}),
                Map.of(),
                Set.of());
    }

    private static List<String> names(Path dir) throws IOException {
        try (Stream<Path> entries = Files.list(dir)) {
            return entries.map(e -> e.getFileName().toString()).sorted().toList();
        }
    }

    @Test
    void stateComesBackBitForBit() throws Exception {
        CheckpointStore.Saved saved = CheckpointStore.read(save(7));
        TrainerState read = saved.state();
        assertThat(read.progress()).isEqualTo(state(7).progress());
        assertThat(read.epoch()).isEqualTo(0.1 * 7);
        assertThat(read.options()).isEqualTo(state(7).options());
        assertThat(read).isEqualTo(state(7));
        assertThat(saved.chain().files()).containsOnlyKeys("adapter", "trainer_state.json");
        assertThat(saved.chain().identity()).isEqualTo(start.identity());
    }

    @Test
    void keepsTheNewest() throws Exception {
        save(2);
        save(10);
        save(9);
        assertThat(store.list().keySet()).containsExactly(9, 10);
        assertThat(store.newest()).contains(dir.resolve("checkpoint-10"));
        store.dropAfter(9);
        assertThat(store.list().keySet()).containsExactly(9);
    }

    @Test
    void replacesACheckpointOfTheSameStep() throws Exception {
        save(3);
        store.save(state(3), start, 12, to -> AtomicFile.write(to.resolve("other"), new byte[1]), Map.of(), Set.of());
        assertThat(names(dir)).containsExactly("checkpoint-3");
        assertThat(names(dir.resolve("checkpoint-3"))).containsExactly("chain.json", "other", "trainer_state.json");
    }

    @Test
    void aFailedSaveLeavesNothing() throws Exception {
        save(1);
        assertThatThrownBy(() -> store.save(
                        state(2),
                        start,
                        12,
                        to -> {
                            AtomicFile.write(to.resolve("adapter"), new byte[9]);
                            throw new IOException("No space left on device");
                        },
                        Map.of(),
                        Set.of()))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("no space left");
        assertThat(names(dir)).containsExactly("checkpoint-1");
        CheckpointStore.read(dir.resolve("checkpoint-1"));
    }

    @Test
    void aRealFullDisk() throws Exception {
        Path mount = Files.createDirectory(dir.resolve("small"));
        boolean mounted = run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount.toString());
        Assumptions.assumeTrue(mounted, "mounting a small tmpfs needs root");
        try {
            CheckpointStore small = new CheckpointStore(mount, 2);
            small.save(
                    state(1),
                    start,
                    12,
                    to -> AtomicFile.write(to.resolve("adapter"), new byte[8]),
                    Map.of(),
                    Set.of());
            assertThatThrownBy(() -> small.save(
                            state(2),
                            start,
                            12,
                            to -> AtomicFile.write(to.resolve("adapter"), new byte[100_000]),
                            Map.of(),
                            Set.of()))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("no space left");
            assertThat(names(mount)).containsExactly("checkpoint-1");
            CheckpointStore.read(mount.resolve("checkpoint-1"));
        } finally {
            assertThat(run("umount", mount.toString())).isTrue();
        }
    }

    private static boolean run(String... command) throws Exception {
        try {
            return new ProcessBuilder(command).start().waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
    }

    @Test
    void leftoversOfAKilledProcessAreRemoved() throws Exception {
        save(1);
        Files.createDirectories(dir.resolve(".checkpoint-2.tmp-1f/sub"));
        Files.write(dir.resolve(".checkpoint-2.tmp-1f/adapter"), new byte[3]);
        Files.write(dir.resolve(".metrics.jsonl.tmp-ab"), new byte[3]);
        Files.write(dir.resolve(".keep"), new byte[3]);
        store.clean();
        assertThat(names(dir)).containsExactly(".keep", "checkpoint-1");
    }

    @Test
    void aFileThatChangedIsFound() throws Exception {
        Path checkpoint = save(4);
        Files.write(checkpoint.resolve("adapter"), new byte[] {1, 3, 4});
        assertThatThrownBy(() -> CheckpointStore.read(checkpoint))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("adapter: has changed: sha256 was ");
        Files.delete(checkpoint.resolve("adapter"));
        assertThatThrownBy(() -> CheckpointStore.read(checkpoint)).hasMessageContaining("adapter: is missing");
        assertThatThrownBy(() -> CheckpointStore.read(dir.resolve("checkpoint-99")))
                .hasMessageContaining("is not a checkpoint");
        Files.writeString(checkpoint.resolve("trainer_state.json"), "{");
        assertThatThrownBy(() -> CheckpointStore.read(checkpoint)).hasMessageContaining("the checkpoint is damaged");
    }

    @Test
    void metricsGoOnBehindTheStep() throws Exception {
        try (MetricsLog log = MetricsLog.open(dir, 0)) {
            log.flush();
            assertThat(dir.resolve("metrics.jsonl")).doesNotExist();
            for (int step = 1; step <= 4; step++) {
                log.write(Map.of("step", step));
            }
            log.flush();
        }
        Path file = dir.resolve("metrics.jsonl");
        Files.writeString(file, Files.readString(file) + "{\"step\": 2, \"lo");
        try (MetricsLog log = MetricsLog.open(dir, 2)) {
            log.write(Map.of("step", 3));
        }
        assertThat(Files.readString(file)).isEqualTo("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n");
    }

    /** A deleted checkpoint leaves no hole, and the same start and states make the same chain. */
    @Test
    void linksFollowFromEachOther() throws Exception {
        Chain three = save(3, save(2, save(1, start)));
        assertThat(three.links()).extracting(Chain.Link::step).containsExactly(0, 1, 2, 3);
        assertThat(store.list()).containsOnlyKeys(2, 3);
        assertThat(Chain.read(store.path(3))).isEqualTo(three);
        assertThat(Chain.read(store.path(2)).links()).isEqualTo(three.links().subList(0, 3));
        Chain again = save(3, save(2, save(1, start)));
        assertThat(again).isEqualTo(three);
        Chain other = save(3, save(2, start));
        assertThat(other.files()).isEqualTo(three.files());
        assertThat(other.hash()).isNotEqualTo(three.hash());
        Chain elsewhen = Chain.start(new RunIdentity("2026-01-03T03:04:05Z", Map.of()));
        assertThat(elsewhen.hash()).isNotEqualTo(start.hash());
    }

    @Test
    void everyByteOfTheChainCounts() throws Exception {
        Path file = save(2).resolve(Chain.FILE_NAME);
        byte[] good = Files.readAllBytes(file);
        for (int at = 0; at < good.length; at++) {
            byte[] bad = good.clone();
            bad[at] ^= 1;
            Files.write(file, bad);
            assertThatThrownBy(() -> Chain.read(store.path(2)))
                    .as("byte %d", at)
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining("chain.json");
        }
    }

    @Test
    void hashIsThatOfSha256sum() throws Exception {
        Path file = Files.writeString(dir.resolve("f"), "abc");
        String abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assertThat(Sha256.of(file)).isEqualTo(abc);
        assertThat(Sha256.of(List.of(file))).isEqualTo(Sha256.of(abc + "  f\n"));
    }
}
