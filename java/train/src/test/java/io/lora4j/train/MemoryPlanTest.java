package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.GradientOptions;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.WeightMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MemoryPlanTest {
    @TempDir
    Path dir;

    @Test
    void readsWhatIsAvailable() throws Exception {
        Path meminfo = Files.writeString(dir.resolve("meminfo"), "MemTotal: 9 kB\nMemAvailable:   1234 kB\n");
        assertThat(MemoryPlan.memAvailable(meminfo)).isEqualTo(1234 * 1024);
        assertThat(MemoryPlan.memAvailable(dir.resolve("none"))).isEqualTo(Long.MAX_VALUE);
    }

    @Test
    void takesTheTightestControlGroup() throws Exception {
        Path self = Files.writeString(dir.resolve("cgroup"), "0::/a/b\n");
        Path b = Files.createDirectories(dir.resolve("v2/a/b"));
        Files.writeString(b.resolve("memory.max"), "max\n");
        Files.writeString(b.resolve("memory.current"), "100\n");
        Files.writeString(b.getParent().resolve("memory.max"), "1000\n");
        Files.writeString(b.getParent().resolve("memory.current"), "900\n");
        Files.writeString(b.getParent().resolve("memory.stat"), "anon 800\ninactive_file 50\n");
        assertThat(MemoryPlan.cgroupHeadroom(self, dir.resolve("v2"))).isEqualTo(150);

        Files.writeString(self, "5:cpu:/x\n4:memory:/y\n");
        Path y = Files.createDirectories(dir.resolve("v1/memory/y"));
        Files.writeString(y.resolve("memory.limit_in_bytes"), "5000");
        Files.writeString(y.resolve("memory.usage_in_bytes"), "6000");
        assertThat(MemoryPlan.cgroupHeadroom(self, dir.resolve("v1"))).isZero();
        assertThat(MemoryPlan.cgroupHeadroom(dir.resolve("none"), dir)).isEqualTo(Long.MAX_VALUE);
    }

    @Test
    void takesTheLimitOfTheAddressSpace() throws Exception {
        Path limits = Files.writeString(dir.resolve("limits"), """
                Limit                     Soft Limit           Hard Limit           Units
                Max cpu time              unlimited            unlimited            seconds
                Max address space         3000000              unlimited            bytes
                """);
        Path status =
                Files.writeString(dir.resolve("status"), "Name:\tjava\nVmPeak:\t 9999 kB\nVmSize:\t    1000 kB\n");
        assertThat(MemoryPlan.addressSpaceHeadroom(limits, status, 500)).isEqualTo(3_000_000 - 1_024_000 + 500);
        Files.writeString(limits, "Max address space         unlimited            unlimited            bytes\n");
        assertThat(MemoryPlan.addressSpaceHeadroom(limits, status, 500)).isEqualTo(Long.MAX_VALUE);
        assertThat(MemoryPlan.addressSpaceHeadroom(dir.resolve("none"), status, 0))
                .isEqualTo(Long.MAX_VALUE);
    }

    @Test
    void refusesWhatCannotFit() {
        Map<String, Long> parts = new LinkedHashMap<>();
        parts.put("weights", 700L << 20);
        parts.put("activations", 400L << 20);
        MemoryPlan plan = new MemoryPlan(parts, 1L << 30, "test", 400L << 20, Long.MAX_VALUE);
        assertThat(plan.peak()).isEqualTo(1100L << 20);
        assertThatThrownBy(plan::requireFits)
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("does not fit")
                .hasMessageContaining("700.0 MiB")
                .hasMessageContaining("1,100.0 MiB")
                .hasMessageContaining("lower per_device_train_batch_size");
        assertThat(plan.fits()).isFalse();
        MemoryPlan enough = new MemoryPlan(parts, 1100L << 20, "test", 400L << 20, 400L << 20);
        enough.requireFits();
        assertThat(enough.fits()).isTrue();
        assertThatThrownBy(() -> new MemoryPlan(parts, 1100L << 20, "test", 400L << 20, 300L << 20).requireFits())
                .isInstanceOf(TrainException.class)
                .hasMessageContaining("needs 400.0 MiB off the Java heap, but this JVM allows itself 300.0 MiB")
                .hasMessageContaining("-XX:MaxDirectMemorySize=401m");
    }

    @Test
    void planCoversWhatIsReallyAllocated() throws Exception {
        Path data = Runs.data(dir);
        for (boolean checkpointing : new boolean[] {false, true}) {
            // The tokens' memory and the optimizer's do not depend on one another.
            Optimizer optimizer = checkpointing ? Optimizer.ADAMW_8BIT : Optimizer.ADAMW_TORCH;
            TrainPlan plan = Trainer.open(Runs.small(data, dir.resolve("out"))
                            .set(TrainOptions.PER_DEVICE_TRAIN_BATCH_SIZE, 7)
                            .set(TrainOptions.GRADIENT_CHECKPOINTING, checkpointing)
                            .set(TrainOptions.OPTIM, optimizer)
                            .build())
                    .plan();
            try (Device device = Device.cpu();
                    Queue queue = Queue.create(device, 2);
                    LlamaModel model = LlamaModel.open(Runs.TINY, queue, WeightMode.BORROW);
                    Adapter adapter = Adapter.create(model, plan.adapter(), 1, optimizer.state())) {
                model.lossAndGradients(
                        plan.batches().epoch(0).step(0).getFirst().batch(),
                        adapter,
                        new GradientOptions(1, checkpointing, 1, 1));
                Map<String, Long> parts = plan.memory().parts();
                long activations = parts.entrySet().stream()
                        .filter(part -> part.getKey().startsWith("activations"))
                        .mapToLong(Map.Entry::getValue)
                        .sum();
                assertThat(activations).isEqualTo(model.activationBytesHeld());
                assertThat(parts.get("adapter, gradients, optimizer, copy"))
                        .isEqualTo(adapter.bytes() + adapter.parameters().bytes());
                assertThat(parts.get("logits chunk and workspace")).isGreaterThanOrEqualTo(queue.workspaceBytes());
            }
        }
    }
}
