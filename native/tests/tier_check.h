// One comparison for every operation: close to fp64 on ref, the bits of ref on every other tier and number of threads.
#pragma once

#include "support.h"

#include <functional>

namespace l4j {

using Outputs = std::vector<std::pair<const char *, Operand>>;

// What lies between the rows of an output must still be poison.
inline ::testing::AssertionResult gaps_untouched(const Operand &x) {
    const l4j_tensor *t = x.get();
    if (t->ndim < 2 || t->dtype != L4J_F32) return ::testing::AssertionSuccess();
    int64_t used = 1;
    for (int i = 1; i < t->ndim; i++) used += (t->shape[i] - 1) * t->stride[i];
    for (int64_t m = 0; m + 1 < t->shape[0]; m++) {
        for (int64_t n = used; n < t->stride[0]; n++) {
            uint32_t bits;
            memcpy(&bits, static_cast<float *>(t->data) + m * t->stride[0] + n, 4);
            if (bits != 0xFFFFFFFFu) {
                return ::testing::AssertionFailure()
                       << "row " << m << " is written " << n - used + 1 << " past its end";
            }
        }
    }
    return ::testing::AssertionSuccess();
}

// `compute` fills its operands from a fixed seed, runs the operation and returns what it wrote.
inline void check_cpu_tiers(const std::function<Outputs(const Context &, int32_t isa)> &compute, double tolerance,
                            const std::vector<int> &threads = {1, 2, 5}) {
    Outputs exact, ref;
    {
        Context oracle(L4J_ISA_REF64), reference(L4J_ISA_REF);
        exact = compute(oracle, L4J_ISA_REF64);
        ref = compute(reference, L4J_ISA_REF);
    }
    for (size_t i = 0; i < ref.size(); i++) {
        EXPECT_LT(relative_error(ref[i].second.values(), exact[i].second.values()), tolerance) << ref[i].first;
    }
    for (int32_t isa : tiers()) {
        for (int n : threads) {
            Context context(isa, n);
            Outputs got = compute(context, isa);
            for (size_t i = 0; i < ref.size(); i++) {
                ASSERT_TRUE(same_bits(got[i].second.floats(), ref[i].second.floats()))
                    << got[i].first << " on " << tier_name(isa) << " with " << n << " threads";
                ASSERT_TRUE(gaps_untouched(got[i].second)) << got[i].first << " on " << tier_name(isa);
            }
        }
    }
}

// The same, and the GPU close to fp64. `magnitudes`, of outputs that are sums of a few terms, does what `compute` does with the terms'
// absolute values: on a GPU errors are relative to these, as terms that are rounded to 16 bits and cancel leave nothing to be relative to.
inline void check_tiers(const std::function<Outputs(const Context &, int32_t isa)> &compute, double tolerance,
                        const std::vector<int> &threads = {1, 2, 5},
                        const std::function<Outputs(const Context &)> &magnitudes = nullptr) {
    check_cpu_tiers(compute, tolerance, threads);
    if (::testing::Test::HasFatalFailure()) return;
    on_gpu(tolerance, [&](double allowed) {
        Context oracle(L4J_ISA_REF64), context(L4J_ISA_CUDA);
        Outputs exact = compute(oracle, L4J_ISA_REF64), got = compute(context, L4J_ISA_CUDA);
        Outputs scale = magnitudes ? magnitudes(oracle) : exact;
        for (size_t i = 0; i < got.size(); i++) {
            ASSERT_LT(relative_error(got[i].second.values(), exact[i].second.values(), scale[i].second.values()),
                      allowed)
                << got[i].first;
            ASSERT_TRUE(gaps_untouched(got[i].second)) << got[i].first;
        }
    });
}

// The same bits in a hundred runs on the best tier with five threads, and in one with one thread and with two.
inline void check_repeats(const std::function<Outputs(const Context &, int32_t isa)> &compute) {
    Context context(L4J_ISA_AUTO, 5), one(L4J_ISA_AUTO, 1), two(L4J_ISA_AUTO, 2);
    Outputs first = compute(context, L4J_ISA_AUTO);
    for (int run = 1; run <= 101; run++) {
        Outputs again = compute(run < 100 ? context : run == 100 ? one : two, L4J_ISA_AUTO);
        for (size_t i = 0; i < first.size(); i++) {
            ASSERT_TRUE(same_bits(again[i].second.floats(), first[i].second.floats()))
                << first[i].first << " in run " << run;
        }
    }
}

// A copy of a 2-D operand with the other dimension innermost: the same values, stride 1 in dimension 0.
inline Operand transposed_layout(int32_t isa, const Operand &x) {
    int64_t M = x.get()->shape[0], N = x.get()->shape[1];
    Operand y(isa, {N, M});
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) y.set(n * M + m, x.at(m * N + n));
    }
    std::swap(y.mutable_tensor().shape[0], y.mutable_tensor().shape[1]);
    std::swap(y.mutable_tensor().stride[0], y.mutable_tensor().stride[1]);
    return y;
}

// dL/dx of L = Σ dy ⊙ y(x) by central differences against `gradient`; `forward` writes y.
inline void check_gradient(Operand &x, const Operand &gradient, const Operand &y, const Operand &dy,
                           const std::function<void()> &forward, double tolerance = 1e-8) {
    auto loss = [&] {
        forward();
        double sum = 0;
        for (int64_t i = 0; i < y.size(); i++) sum += y.at(i) * dy.at(i);
        return sum;
    };
    for (int64_t i = 0; i < x.size(); i++) {
        double value = x.at(i), step = 1e-5;
        x.set(i, value + step);
        double above = loss();
        x.set(i, value - step);
        double below = loss();
        x.set(i, value);
        ASSERT_NEAR((above - below) / (2 * step), gradient.at(i), tolerance) << i;
    }
}

} // namespace l4j
