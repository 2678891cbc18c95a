package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Isa;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AdapterTest {
    private static final String FIRST = "model.layers.0.self_attn.q_proj";

    @TempDir
    Path dir;

    private TestModels.Open open;

    @BeforeEach
    void openModel() {
        open = TestModels.open(TestModels.randomModel(dir.resolve("model"), DType.F32), Isa.AUTO, 1);
    }

    @AfterEach
    void closeModel() {
        open.close();
    }

    private static AdapterConfig on(String... names) {
        return AdapterConfig.of(4, 8, new ModuleFilter.Names(List.of(names)));
    }

    @Test
    void beginsAsPeftsDo() throws IOException {
        try (Adapter adapter = Adapter.create(open.model(), TestModels.allLinear(4, 0), 1)) {
            assertThat(adapter.linears()).hasSize(14);
            for (LoraLinear linear : adapter.linears()) {
                double bound = 1 / Math.sqrt(linear.a().value().size(1));
                double[] a = linear.a().value().toDoubleArray();
                assertThat(java.util.Arrays.stream(a).map(Math::abs).max().orElseThrow())
                        .isBetween(0.9 * bound, bound);
                double square = 0;
                for (double x : a) {
                    square += x * x;
                }
                // A uniform distribution has the standard deviation bound / √3.
                assertThat(Math.sqrt(square / a.length))
                        .isBetween(0.8 * bound / Math.sqrt(3), 1.2 * bound / Math.sqrt(3));
                assertThat(linear.b().value().toDoubleArray()).containsOnly(0);
            }
        }
    }

    @Test
    void aModulesNumbersDependOnSeedAndNameAlone() throws IOException {
        try (Adapter all = Adapter.create(open.model(), TestModels.allLinear(4, 0), 1);
                Adapter one = Adapter.create(open.model(), on("layers.1.self_attn.k_proj"), 1);
                Adapter other = Adapter.create(open.model(), on("layers.1.self_attn.k_proj"), 2)) {
            LoraLinear among = all.linears().get(8);
            LoraLinear alone = one.linears().getFirst();
            assertThat(among.module()).isEqualTo(alone.module()).isEqualTo("model.layers.1.self_attn.k_proj");
            assertThat(among.a().value().toFloatArray())
                    .isEqualTo(alone.a().value().toFloatArray());
            assertThat(among.moduleId()).isEqualTo(alone.moduleId()).isEqualTo(8);
            assertThat(other.parameters().toFloatArray())
                    .isNotEqualTo(one.parameters().toFloatArray());
            assertThat(all.linears().get(7).a().value().toFloatArray())
                    .isNotEqualTo(among.a().value().toFloatArray());
        }
    }

    @Test
    void theFlatBuffersAreTheMatricesInOrder() throws IOException {
        try (Adapter adapter = Adapter.create(open.model(), on("v_proj", "down_proj"), 1)) {
            assertThat(adapter.linears())
                    .extracting(LoraLinear::module)
                    .containsExactly(
                            "model.layers.0.self_attn.v_proj",
                            "model.layers.0.mlp.down_proj",
                            "model.layers.1.self_attn.v_proj",
                            "model.layers.1.mlp.down_proj");
            long at = 0;
            for (LoraLinear.Parameter p : adapter.parameterList()) {
                long size = p.value().elements();
                assertThat(adapter.parameters().rows(at, at + size).toFloatArray())
                        .isEqualTo(p.value().toFloatArray());
                p.gradient().fill(at + 1);
                assertThat(adapter.gradients().rows(at, at + size).toFloatArray())
                        .containsOnly(at + 1f);
                at += size;
            }
            assertThat(at).isEqualTo(adapter.parameters().elements());
            assertThat(at).isEqualTo(Adapter.parameterCount(open.model().config(), adapter.config()));
            assertThat(adapter.bytes()).isEqualTo(4 * 4 * at);
        }
    }

    @Test
    void ranksAndScalingsFollowThePatterns() throws IOException {
        AdapterConfig config = new AdapterConfig(
                4,
                8,
                0,
                new ModuleFilter.AllLinear(),
                null,
                Map.of("layers.1.self_attn.q_proj", 9),
                Map.of("k_proj", 2.0),
                true,
                null,
                null,
                null,
                null,
                "CAUSAL_LM");
        try (Adapter adapter = Adapter.create(open.model(), config, 1)) {
            assertThat(adapter.linears().get(0).rank()).isEqualTo(4);
            assertThat(adapter.linears().get(0).scaling()).isEqualTo(4);
            assertThat(adapter.linears().get(1).scaling()).isEqualTo(1);
            assertThat(adapter.linears().get(7).rank()).isEqualTo(9);
            assertThat(adapter.linears().get(7).scaling()).isEqualTo(8 / 3.0);
        }
    }

    @Test
    void savingAndLoadingKeepsEveryBitAndByte() throws IOException {
        Path first = dir.resolve("first");
        Path second = dir.resolve("second");
        try (Adapter adapter = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0.25))) {
            adapter.save(first);
            try (Adapter loaded = Adapter.load(open.model(), first, false)) {
                assertThat(loaded.parameters().toFloatArray())
                        .isEqualTo(adapter.parameters().toFloatArray());
                assertThat(loaded.config().loraDropout()).isEqualTo(0.25);
                assertThat(loaded.config().targetModules())
                        .isEqualTo(new ModuleFilter.Names(
                                List.of("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")));
                loaded.save(second);
            }
        }
        for (String file : List.of("adapter_config.json", "adapter_model.safetensors")) {
            assertThat(Files.readAllBytes(second.resolve(file)))
                    .as(file)
                    .isEqualTo(Files.readAllBytes(first.resolve(file)));
        }
    }

    @Test
    void anAdapterForUseHasNoGradients() throws IOException {
        try (Adapter made = Adapter.create(open.model(), on("q_proj"), 1)) {
            made.save(dir.resolve("adapter"));
        }
        try (Adapter adapter = Adapter.load(open.model(), dir.resolve("adapter"), false)) {
            assertThat(adapter.trainable()).isFalse();
            assertThatThrownBy(adapter::gradients)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("for use only");
            LoraLinear.Parameter a = adapter.linears().getFirst().a();
            assertThatThrownBy(a::gradient)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining(FIRST);
        }
    }

    @Test
    void targetsThatDoNotFitAreRefused() {
        assertThatThrownBy(() -> Adapter.create(open.model(), on("q_proj", "qkv_proj"), 1))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("qkv_proj")
                .hasMessageContaining("gate_proj");
        assertThatThrownBy(() -> Adapter.create(open.model(), on("q_proj", "lm_head"), 1))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("lm_head")
                .hasMessageContaining("not supported");
    }

    @Test
    void anAdapterOfAnotherBaseIsRefused() throws IOException {
        try (Adapter made = Adapter.create(open.model(), on("q_proj"), 1)) {
            made.save(dir.resolve("adapter"));
        }
        String config = Files.readString(dir.resolve("model/config.json"))
                .replace("\"hidden_size\": 36", "\"hidden_size\": 40");
        Path other = TestModels.randomModel(dir.resolve("other"), DType.F32, config);
        try (TestModels.Open wide = TestModels.open(other, Isa.AUTO, 1)) {
            assertThatThrownBy(() -> Adapter.load(wide.model(), dir.resolve("adapter"), true))
                    .isInstanceOf(FormatException.class)
                    .hasMessageContaining(dir.resolve("adapter").toString())
                    .hasMessageContaining(FIRST)
                    .hasMessageContaining("another base model");
        }
    }
}
