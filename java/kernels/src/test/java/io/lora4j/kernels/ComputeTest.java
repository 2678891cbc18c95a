package io.lora4j.kernels;

import static io.lora4j.kernels.Reference.multiply;
import static io.lora4j.kernels.Reference.transpose;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Products of {@link Compute#BF16}: what they multiply, and that their bits depend on neither tier nor threads. */
class ComputeTest {
    private static final int M = 37;
    private static final int K = 70;
    private static final int N = 50;
    private static final int R = 4;

    /** The fp32 tiers, and the processor's own instruction for bf16 if it has one. */
    static List<Isa> tiers() {
        return Stream.concat(Fixture.fp32Tiers().stream(), Stream.of(Isa.AUTO)).toList();
    }

    private static Tensor rounded(Fixture f, Tensor t) {
        Tensor rounded = Tensor.allocate(f.memory, DType.BF16, t.size(0), t.size(1));
        rounded.copyFrom(t.toFloatArray());
        return rounded;
    }

    @ParameterizedTest
    @MethodSource("tiers")
    void bothOperandsAreRounded(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Tensor x = f.random(M, K);
            Tensor dy = f.random(M, N);
            Tensor w = f.random(N, K);
            Tensor y = f.poisoned(M, N);
            Tensor dx = f.poisoned(M, K);
            try (Weight packed = Weight.pack(f.queue, w, Compute.BF16)) {
                for (Weight weight : List.of(packed, f.pack(w), f.borrow(w))) {
                    Lora lora = Lora.builder(f.arena)
                            .x(x)
                            .dx(dx)
                            .projection(weight)
                            .y(y)
                            .dy(dy)
                            .compute(Compute.BF16)
                            .build();
                    LoraOps.forward(f.queue, lora);
                    LoraOps.backward(f.queue, lora);
                    double[] narrow = rounded(f, w).toDoubleArray();
                    f.assertClose(y, multiply(rounded(f, x).toDoubleArray(), transpose(narrow, N, K), M, K, N));
                    f.assertClose(dx, multiply(rounded(f, dy).toDoubleArray(), narrow, M, N, K));
                    // Unrounded operands give other values: it was bf16 that ran.
                    double[] wide = multiply(x.toDoubleArray(), transpose(w.toDoubleArray(), N, K), M, K, N);
                    double[] got = y.toDoubleArray();
                    double most = 0;
                    for (int i = 0; i < got.length; i++) {
                        most = Math.max(most, Math.abs(got[i] - wide[i]));
                    }
                    assertThat(most).isBetween(0.005, 0.5);
                    y.fill(Double.NaN);
                    dx.fill(Double.NaN);
                }
            }
        }
    }

    @Test
    void bitsDependOnNeitherTierNorThreads() {
        List<List<float[]>> results = new ArrayList<>();
        for (Isa isa : tiers()) {
            for (int threads : new int[] {1, 3}) {
                results.add(step(isa, threads));
            }
        }
        for (List<float[]> result : results) {
            for (int i = 0; i < result.size(); i++) {
                assertThat(result.get(i)).containsExactly(results.getFirst().get(i));
            }
        }
    }

    /** y, s, dx, dA, dB of one adapted linear layer, and the loss and dx of a head. */
    private static List<float[]> step(Isa isa, int threads) {
        try (Fixture f = new Fixture(isa, threads)) {
            Tensor y = f.poisoned(M, N);
            Tensor s = f.poisoned(M, R);
            Tensor dx = f.poisoned(M, K);
            Tensor da = f.zeros(R, K);
            Tensor db = f.zeros(N, R);
            Tensor loss = f.poisoned(M);
            Tensor dh = f.poisoned(M, N);
            try (Weight w = Weight.pack(f.queue, f.random(N, K), Compute.BF16);
                    Weight head = Weight.pack(f.queue, f.random(80, N), Compute.BF16)) {
                Lora lora = Lora.builder(f.arena)
                        .x(f.random(M, K))
                        .dx(dx)
                        .scaling(Tensor.ofFloats(f.memory, 2))
                        .dropout(
                                0.25,
                                Tensor.ofLongs(f.memory, 7),
                                Tensor.ofLongs(f.memory, 1),
                                Tensor.ofInts(f.memory, new int[M]),
                                0)
                        .projection(w)
                        .y(y)
                        .dy(f.random(M, N))
                        .adapter(f.random(R, K), f.random(N, R), 3)
                        .s(s)
                        .gradients(da, db)
                        .compute(Compute.BF16)
                        .build();
                LoraOps.forward(f.queue, lora);
                LoraOps.backward(f.queue, lora);
                LinearCrossEntropyOps.forward(
                        f.queue,
                        LinearCrossEntropy.builder(f.arena)
                                .x(y)
                                .weight(head)
                                .targets(Tensor.ofInts(f.memory, new int[M]))
                                .loss(loss)
                                .lse(f.poisoned(M))
                                .dx(dh)
                                .compute(Compute.BF16)
                                .build());
            }
            return Stream.of(y, s, dx, da, db, loss, dh)
                    .map(Tensor::toFloatArray)
                    .toList();
        }
    }
}
