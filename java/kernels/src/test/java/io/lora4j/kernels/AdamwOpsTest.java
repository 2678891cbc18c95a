package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class AdamwOpsTest {
    /** One tensor with its gradient and state, and the same in double. */
    private static final class Parameter {
        final Tensor value;
        final Tensor grad;
        final Tensor m;
        final Tensor v;
        final double[] expected;
        final double[] expectedM;
        final double[] expectedV;

        Parameter(Fixture f, long... shape) {
            value = f.random(shape);
            grad = f.random(shape);
            m = f.zeros(shape);
            v = f.zeros(shape);
            expected = value.toDoubleArray();
            expectedM = new double[expected.length];
            expectedV = new double[expected.length];
        }

        /** The loop of torch.optim.AdamW. */
        void step(double scale, double lr, double beta1, double beta2, double eps, double decay, long t) {
            double[] g = grad.toDoubleArray();
            for (int i = 0; i < g.length; i++) {
                double gradient = g[i] * scale;
                expected[i] *= 1 - lr * decay;
                expectedM[i] = beta1 * expectedM[i] + (1 - beta1) * gradient;
                expectedV[i] = beta2 * expectedV[i] + (1 - beta2) * gradient * gradient;
                double unbiased = Math.sqrt(expectedV[i] / (1 - Math.pow(beta2, t))) + eps;
                expected[i] -= lr / (1 - Math.pow(beta1, t)) * expectedM[i] / unbiased;
            }
        }
    }

    private static double norm(double scale, Parameter... parameters) {
        double sum = 0;
        for (Parameter p : parameters) {
            for (double g : p.grad.toDoubleArray()) {
                sum += g * g * scale * scale;
            }
        }
        return Math.sqrt(sum);
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void threeStepsOfTwoGroupsWithTheSameArguments(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Parameter a = new Parameter(f, 3, 17);
            Parameter b = new Parameter(f, 5);
            Parameter c = new Parameter(f, 4, 4);
            AdamwHyper clipped = AdamwHyper.allocate(f.memory)
                    .maxGradNorm(0.5)
                    .gradScale(0.25)
                    .weightDecay(0.1);
            AdamwHyper free = AdamwHyper.allocate(f.memory).betas(0.8, 0.95).epsilon(1e-6);
            Tensor norm = Tensor.allocate(f.memory, DType.F64, 1);
            Adamw arguments = Adamw.builder(f.arena)
                    .zeroGrads(true)
                    .group(clipped, norm)
                    .parameter(a.value, a.grad, a.m, a.v)
                    .parameter(b.value, b.grad, b.m, b.v)
                    .group(free, null)
                    .parameter(c.value, c.grad, c.m, c.v)
                    .build();
            for (long t = 1; t <= 3; t++) {
                double lr = 0.01 * t;
                clipped.step(t).learningRate(lr);
                free.step(t).learningRate(2 * lr);
                double expectedNorm = norm(0.25, a, b);
                double clip = Math.min(1, 0.5 / (expectedNorm + 1e-6));
                a.step(0.25 * clip, lr, 0.9, 0.999, 1e-8, 0.1, t);
                b.step(0.25 * clip, lr, 0.9, 0.999, 1e-8, 0.1, t);
                c.step(1, 2 * lr, 0.8, 0.95, 1e-6, 0.01, t);
                AdamwOps.step(f.queue, arguments);
                assertThat(norm.getDouble(0)).isCloseTo(expectedNorm, within(1e-6));
                for (Parameter p : new Parameter[] {a, b, c}) {
                    f.assertClose(p.value, p.expected);
                    f.assertClose(p.m, p.expectedM);
                    f.assertClose(p.v, p.expectedV);
                    assertThat(p.grad.toDoubleArray()).containsOnly(0);
                    p.grad.copyFrom(f.random(p.grad.shape()));
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void aGroupWithANonFiniteGradientIsLeftAlone(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            Parameter good = new Parameter(f, 6);
            Parameter first = new Parameter(f, 6);
            Parameter bad = new Parameter(f, 6);
            bad.grad.setFloat(Double.POSITIVE_INFINITY, 2);
            NumericStatus numeric = NumericStatus.allocate(f.memory);
            AdamwHyper hyper = AdamwHyper.allocate(f.memory).step(7);
            AdamwOps.step(
                    f.queue,
                    Adamw.builder(f.arena)
                            .group(hyper, null)
                            .parameter(good.value, good.grad, good.m, good.v)
                            .group(hyper, null)
                            .parameter(first.value, first.grad, first.m, first.v)
                            .parameter(bad.value, bad.grad, bad.m, bad.v)
                            .numeric(numeric)
                            .build());
            assertThat(good.value.toDoubleArray()).isNotEqualTo(good.expected);
            assertThat(first.value.toDoubleArray()).isEqualTo(first.expected);
            assertThat(bad.value.toDoubleArray()).isEqualTo(bad.expected);
            assertThat(bad.m.toDoubleArray()).containsOnly(0);
            assertThat(numeric.isSet()).isTrue();
            assertThat(numeric.operation()).isEqualTo(NumericStatus.Operation.ADAMW);
            assertThat(numeric.group()).isEqualTo(1);
            assertThat(numeric.tensor()).isEqualTo(1);
            assertThat(numeric.step()).isEqualTo(7);
        }
    }

    /** Elements of a block that are all the same, and not negative, are codes for 1: 8 bits hold them exactly. */
    @ParameterizedTest
    @MethodSource("io.lora4j.kernels.Fixture#tiers")
    void eightBitMomentsOfEqualElementsAreThoseOfFloats(Isa isa) {
        try (Fixture f = new Fixture(isa)) {
            int elements = 2 * AdamwMoment.BLOCK + 40;
            Tensor floats = f.random(4, elements / 4);
            Tensor coded = f.zeros(4, elements / 4);
            coded.copyFrom(floats);
            Tensor grad = f.zeros(4, elements / 4);
            Tensor gradOfCoded = f.zeros(4, elements / 4);
            Tensor m = f.zeros(4, elements / 4);
            Tensor v = f.zeros(4, elements / 4);
            AdamwMoment m8 = AdamwMoment.allocate8bit(f.memory, f.dtype, coded.shape());
            AdamwMoment v8 = AdamwMoment.allocate8bit(f.memory, f.dtype, coded.shape());
            assertThat(m8.bytes()).isEqualTo(elements + 3L * f.dtype.bytes());
            AdamwHyper hyper = AdamwHyper.allocate(f.memory);
            Adamw arguments = Adamw.builder(f.arena)
                    .group(hyper, null)
                    .parameter(floats, grad, m, v)
                    .parameter(coded, gradOfCoded, m8, v8)
                    .build();
            float[] gradients = new float[elements];
            for (long t = 1; t <= 3; t++) {
                for (int i = 0; i < elements; i++) {
                    gradients[i] = (float) (t * 0.37 + i / AdamwMoment.BLOCK);
                }
                grad.copyFrom(gradients);
                gradOfCoded.copyFrom(gradients);
                hyper.step(t);
                AdamwOps.step(f.queue, arguments);
            }
            assertThat(coded.toDoubleArray()).isEqualTo(floats.toDoubleArray());
            Tensor scales = m8.scales();
            assertThat(scales).isNotNull();
            for (int block = 0; block < 3; block++) {
                assertThat(scales.getDouble(block)).isEqualTo(m.toDoubleArray()[block * AdamwMoment.BLOCK]);
            }
        }
    }

    @Test
    void refusesWhatDoesNotFit() {
        try (Fixture f = new Fixture(Isa.REF)) {
            AdamwHyper hyper = AdamwHyper.allocate(f.memory);
            Tensor t = f.random(6);
            assertThatThrownBy(() -> Adamw.builder(f.arena)
                            .group(hyper, null)
                            .parameter(t, f.random(7), t, t)
                            .build())
                    .hasMessage("adamw.grads[0]: expected the shape [6], found F32[7]");
            AdamwMoment short8 = AdamwMoment.allocate8bit(f.memory, DType.F32, 300);
            Tensor longer = f.random(600);
            assertThatThrownBy(() -> Adamw.builder(f.arena)
                            .group(hyper, null)
                            .parameter(longer, longer, new AdamwMoment(longer, short8.scales()), short8)
                            .build())
                    .hasMessage("adamw.expAvgSqs[0]: expected the shape [600], found U8[300]");
            assertThatThrownBy(() -> Adamw.builder(f.arena).parameter(t, t, t, t))
                    .isInstanceOf(IllegalStateException.class);
        }
    }
}
