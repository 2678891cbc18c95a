package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.model.Generation.Finish;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GeneratorTest {
    private static final int[] PROMPT = {3, 14, 15, 9, 26};
    private static final int CONTEXT = 48;

    @TempDir
    Path dir;

    private TestModels.Open open;
    private Generator generator;

    @BeforeEach
    void openModel() {
        open = TestModels.open(TestModels.randomModel(dir, DType.F32), Isa.AUTO, 2);
        generator = new Generator(open.model(), null);
    }

    @AfterEach
    void closeModel() {
        open.close();
    }

    private Generation greedy(int[] prompt, Set<Integer> stop, int max) {
        return generator.generate(prompt, Sampling.GREEDY, stop, max, id -> true);
    }

    @Test
    void greedyTakesTheLargestLogitOfAFullPass() {
        List<Integer> expected = new ArrayList<>();
        int[] text = PROMPT;
        try (Arena arena = Arena.ofConfined()) {
            for (int i = 0; i < 12; i++) {
                Batch batch = Batch.ofIds(List.of(text));
                float[] logits = open.model()
                        .logits(batch, null, batch.lastRows(), arena)
                        .toFloatArray();
                int best = 0;
                for (int v = 1; v < logits.length; v++) {
                    best = logits[v] > logits[best] ? v : best;
                }
                expected.add(best);
                text = java.util.Arrays.copyOf(text, text.length + 1);
                text[text.length - 1] = best;
            }
        }
        Generation generation = greedy(PROMPT, Set.of(), 12);
        assertThat(generation.ids()).isEqualTo(expected);
        assertThat(generation.finish()).isEqualTo(Finish.MAX_NEW_TOKENS);
    }

    @Test
    void aStopTokenEndsItUnheard() {
        List<Integer> all = greedy(PROMPT, Set.of(), 12).ids();
        int stop = all.get(4);
        List<Integer> heard = new ArrayList<>();
        Generation generation = generator.generate(PROMPT, Sampling.GREEDY, Set.of(stop), 12, heard::add);
        int first = all.indexOf(stop);
        assertThat(generation.ids()).isEqualTo(all.subList(0, first + 1));
        assertThat(generation.finish()).isEqualTo(Finish.STOP_TOKEN);
        assertThat(heard).isEqualTo(all.subList(0, first));
    }

    @Test
    void theListenerCanEndIt() {
        List<Integer> heard = new ArrayList<>();
        Generation generation = generator.generate(PROMPT, Sampling.GREEDY, Set.of(), 12, id -> {
            heard.add(id);
            return heard.size() < 3;
        });
        assertThat(generation.finish()).isEqualTo(Finish.LISTENER);
        assertThat(generation.ids()).hasSize(3).isEqualTo(heard);
    }

    @Test
    void theContextEndsIt() {
        Generation generation = greedy(PROMPT, Set.of(), 1000);
        assertThat(generation.ids()).hasSize(CONTEXT - PROMPT.length);
        assertThat(generation.finish()).isEqualTo(Finish.CONTEXT);
        assertThat(greedy(new int[CONTEXT - 1], Set.of(), 1).ids()).hasSize(1);
        assertThatThrownBy(() -> greedy(new int[CONTEXT], Set.of(), 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("the prompt has 48 tokens")
                .hasMessageContaining("context is 48");
        assertThatThrownBy(() -> greedy(new int[0], Set.of(), 1)).hasMessageContaining("the prompt is empty");
        assertThatThrownBy(() -> greedy(PROMPT, Set.of(), 0)).hasMessageContaining("max_new_tokens is 0");
    }

    @Test
    void samplingRepeatsWithItsSeedAndVariesWithoutIt() {
        Set<List<Integer>> texts = new HashSet<>();
        for (int seed = 0; seed < 8; seed++) {
            Sampling sampling = new Sampling(1.5, 0, 1, seed);
            List<Integer> ids = generator
                    .generate(PROMPT, sampling, Set.of(), 10, id -> true)
                    .ids();
            assertThat(generator
                            .generate(PROMPT, sampling, Set.of(), 10, id -> true)
                            .ids())
                    .isEqualTo(ids);
            texts.add(ids);
        }
        assertThat(texts).hasSizeGreaterThan(4);
        assertThat(generator
                        .generate(PROMPT, new Sampling(1.5, 1, 1, 3), Set.of(), 10, id -> true)
                        .ids())
                .as("top_k 1 leaves the most likely token")
                .isEqualTo(greedy(PROMPT, Set.of(), 10).ids());
        assertThatThrownBy(() -> new Sampling(-1, 0, 1, 0)).hasMessageContaining("temperature");
        assertThatThrownBy(() -> new Sampling(1, -1, 1, 0)).hasMessageContaining("top_k");
        assertThatThrownBy(() -> new Sampling(1, 0, 0, 0)).hasMessageContaining("top_p");
    }

    @Test
    void aLongPromptGoesThroughInPiecesWithTheSameBits() {
        String config = """
                {"architectures": ["LlamaForCausalLM"], "vocab_size": 61, "hidden_size": 36, "intermediate_size": 52,
                 "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
                 "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}
                """;
        int[] prompt = new java.util.SplittableRandom(3).ints(1100, 0, 61).toArray();
        Path model = TestModels.randomModel(dir.resolve("long"), DType.F32, config);
        try (TestModels.Open wide = TestModels.open(model, Isa.AUTO, 2);
                Arena arena = Arena.ofConfined()) {
            Batch batch = Batch.ofIds(List.of(prompt));
            Tensor logits = wide.model().logits(batch, null, batch.lastRows(), arena);
            int best = 0;
            for (int v = 1; v < 61; v++) {
                best = logits.getFloat(0, v) > logits.getFloat(0, best) ? v : best;
            }
            Generation one =
                    new Generator(wide.model(), null).generate(prompt, Sampling.GREEDY, Set.of(), 1, id -> true);
            assertThat(one.ids()).containsExactly(best);
        }
    }
}
