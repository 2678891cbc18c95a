package io.lora4j.train;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModuleFilter;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Which modules get an adapter, as the options say it and as it is written down. */
class AdapterOptionsTest {
    @TempDir
    Path dir;

    @Test
    void modulesAndLayersCanBeLeftOut() throws IOException {
        Settings.Builder run = Runs.small(Runs.data(dir), dir.resolve("out"))
                .put("exclude_modules", "mlp.up_proj,o_proj")
                .put("layers_to_transform", "1,3");
        TrainPlan plan = Trainer.open(run.build()).plan();
        assertThat(plan.modules())
                .hasSize(2 * 5)
                .allSatisfy(m ->
                        assertThat(m.name()).containsPattern("layers\\.[13]\\.").doesNotContain("up_proj", "o_proj"));
        Runs.run(run.set(TrainOptions.MAX_STEPS, 1));
        AdapterConfig written = AdapterConfig.read(dir.resolve("out"));
        assertThat(written.layersToTransform()).containsExactly(1, 3);
        assertThat(written.excludeModules()).isEqualTo(new ModuleFilter.Names(List.of("mlp.up_proj", "o_proj")));
        assertThat(written.targets(plan.model().modules())).isEqualTo(plan.modules());
    }
}
