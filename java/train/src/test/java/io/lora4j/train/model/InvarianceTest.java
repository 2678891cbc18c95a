package io.lora4j.train.model;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.DType;
import io.lora4j.kernels.Isa;
import io.lora4j.kernels.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What must not change a bit: checkpointing, accumulation, packing, threads, tiers, layout of the weights, the cache. */
class InvarianceTest {
    private static final int[] LENGTHS = {11, 3, 17, 1};

    @TempDir
    Path dir;

    private List<Batch.Sequence> sequences = List.of();

    @BeforeEach
    void write() {
        TestModels.randomModel(dir, DType.F32);
        sequences = TestModels.randomSequences(61, LENGTHS);
    }

    /** What a step leaves: losses, then all gradients. */
    private record Result(List<BatchLoss> losses, float[] gradients) {
        @Override
        public boolean equals(Object other) {
            return other instanceof Result r && losses.equals(r.losses) && Arrays.equals(gradients, r.gradients);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(gradients);
        }

        double lossSum() {
            return losses.stream().mapToDouble(BatchLoss::lossSum).sum();
        }
    }

    private Result step(
            Isa isa, int threads, WeightMode mode, double dropout, boolean checkpointing, List<Batch> batches) {
        try (TestModels.Open open = TestModels.open(dir, isa, threads, mode);
                Adapter adapter = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, dropout))) {
            int targets = batches.stream().mapToInt(Batch::targetTokens).sum();
            GradientOptions options = new GradientOptions(1.0 / targets, checkpointing, 42, 7);
            List<BatchLoss> losses = new ArrayList<>();
            for (Batch batch : batches) {
                losses.add(open.model().lossAndGradients(batch, adapter, options));
            }
            float[] gradients = adapter.gradients().toFloatArray();
            assertThat(gradients).as("gradients").doesNotContain(Float.NaN);
            for (float g : gradients) {
                assertThat(g).as("a gradient").isFinite();
            }
            return new Result(losses, gradients);
        }
    }

    private Result step(double dropout, boolean checkpointing, List<Batch> batches) {
        return step(Isa.AUTO, 2, WeightMode.BORROW, dropout, checkpointing, batches);
    }

    private List<Batch> together() {
        return List.of(Batch.of(sequences));
    }

    private List<Batch> oneByOne() {
        return sequences.stream().map(s -> Batch.of(List.of(s))).toList();
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 0.1})
    void checkpointingChangesNothing(double dropout) {
        assertThat(step(dropout, true, together())).isEqualTo(step(dropout, false, together()));
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 0.1})
    void accumulatingSequencesEqualsPackingThem(double dropout) {
        Result packed = step(dropout, false, together());
        Result accumulated = step(dropout, false, oneByOne());
        assertThat(accumulated.gradients).isEqualTo(packed.gradients);
        GoldenAssert.close("loss", accumulated.lossSum(), packed.lossSum(), 1e-14);
    }

    @Test
    void dropoutDropsSomething() {
        assertThat(step(0.1, false, together()).gradients).isNotEqualTo(step(0, false, together()).gradients);
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 0.1})
    void threadsTiersAndLayoutsChangeNothing(double dropout) {
        Result expected = step(Isa.REF, 1, WeightMode.BORROW, dropout, false, together());
        for (Isa isa : List.of(Isa.REF, Isa.AVX2, Isa.AVX512)) {
            for (int threads : new int[] {1, 2, 5}) {
                for (WeightMode mode : WeightMode.values()) {
                    assertThat(step(isa, threads, mode, dropout, false, together()))
                            .as("%s, %s threads, %s", isa, threads, mode)
                            .isEqualTo(expected);
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"BF16", "F16"})
    void narrowWeightsCountAsWhatTheyWidenTo(DType dtype) {
        TestModels.randomModel(dir, dtype);
        Result expected = step(Isa.REF, 1, WeightMode.BORROW, 0, false, together());
        assertThat(step(0, false, together())).isEqualTo(expected);
        assertThat(step(Isa.AUTO, 2, WeightMode.PACK, 0, true, together())).isEqualTo(expected);
    }

    @Test
    void aSequenceHasTheSameLogitsInEveryBatch() {
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 2);
                Arena arena = Arena.ofConfined()) {
            Batch all = Batch.of(sequences);
            float[] packed =
                    open.model().logits(all, null, all.lastRows(), arena).toFloatArray();
            for (int b = 0; b < all.sequences(); b++) {
                Batch alone = Batch.of(List.of(sequences.get(b)));
                float[] logits = open.model()
                        .logits(alone, null, alone.lastRows(), arena)
                        .toFloatArray();
                assertThat(Arrays.copyOfRange(packed, b * 61, (b + 1) * 61))
                        .as("sequence %s", b)
                        .isEqualTo(logits);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"BORROW", "PACK"})
    void aCacheChangesNothing(WeightMode mode) {
        int[] ids = sequences.get(2).ids();
        try (TestModels.Open open = TestModels.open(dir, Isa.AUTO, 2, mode);
                Adapter adapter = TestModels.randomAdapter(open.model(), TestModels.allLinear(4, 0.1));
                KvCache cache = new KvCache(open.model(), ids.length);
                Arena arena = Arena.ofConfined()) {
            Batch whole = Batch.ofIds(List.of(ids));
            int[] every = new int[ids.length];
            Arrays.setAll(every, i -> i);
            float[] expected = open.model().logits(whole, adapter, every, arena).toFloatArray();
            Tensor logits = Tensor.allocate(arena, DType.F32, 1, 61);
            int at = 0;
            for (int piece : new int[] {5, 1, 1, 4, 1, 2, 1, 1, 1}) {
                open.model().extend(cache, Arrays.copyOfRange(ids, at, at + piece), adapter, logits);
                at += piece;
                assertThat(logits.toFloatArray())
                        .as("after %s tokens", at)
                        .isEqualTo(Arrays.copyOfRange(expected, (at - 1) * 61, at * 61));
            }
            assertThat(at).isEqualTo(ids.length);
        }
    }

    @Test
    void rowWeightsScaleLossesAndGradients() {
        Batch plain = Batch.of(sequences);
        float[] twos = new float[plain.tokens()];
        Arrays.fill(twos, 2);
        Batch doubled =
                new Batch(plain.ids(), plain.targets(), plain.positions(), plain.tokenIndex(), plain.offsets(), twos);
        Result expected = step(0, false, List.of(plain));
        Result actual = step(0, false, List.of(doubled));
        assertThat(actual.lossSum()).isEqualTo(2 * expected.lossSum());
        for (int i = 0; i < expected.gradients.length; i++) {
            assertThat(actual.gradients[i]).isEqualTo(2 * expected.gradients[i]);
        }
    }
}
