// The two functions of the numeric contract. exp is one polynomial on every tier, so sampling the scalar form bounds all of them;
// that the vector forms have its bits is shown through swiglu.
#include "tier_check.h"

#include "cpu/math.h"

namespace {

float from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

double ulp(double exact) { return std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23); }

// Every 997th float: 4.3 million of them, of both signs and all exponents.
template <typename Visit> void sample_floats(Visit visit) {
    for (uint64_t u = 0; u <= 0xFFFFFFFFull; u += 997) visit(from_bits(static_cast<uint32_t>(u)));
}

TEST(MathTest, ExpIsWithinOneUlp) {
    double worst = 0;
    auto visit = [&](float x) {
        float y = l4j_exp(x);
        if (std::isnan(x)) {
            ASSERT_TRUE(std::isnan(y));
        } else if (x < L4J_EXP_LOW) {
            ASSERT_EQ(0, y);
        } else if (x > L4J_EXP_HIGH) {
            ASSERT_EQ(INFINITY, y);
        } else {
            double exact = std::exp(static_cast<double>(x));
            worst = std::max(worst, std::fabs(y - exact) / ulp(exact));
        }
    };
    sample_floats(visit);
    for (int i = -87336544; i <= 88722839; i += 101) visit(static_cast<float>(i) * 1e-6f); // dense where it matters
    RecordProperty("worst_ulp_times_1000", static_cast<int>(worst * 1000));
    EXPECT_LT(worst, 1.05);
    EXPECT_GT(worst, 0.5);
    EXPECT_EQ(1, l4j_exp(0));
    EXPECT_EQ(1, l4j_exp(-0.0f));
    EXPECT_EQ(INFINITY, l4j_exp(L4J_EXP_HIGH)); // the exact value rounds to it
    EXPECT_TRUE(std::isfinite(l4j_exp(std::nextafter(L4J_EXP_HIGH, 0.0f))));
    EXPECT_GT(l4j_exp(L4J_EXP_LOW), 0);
}

// Correct to the last bit but for the rarest ties: the fp64 steps leave about 1e-15 before the one rounding.
TEST(MathTest, LogIsRoundedOnce) {
    double worst = 0;
    auto visit = [&](float x) {
        float y = l4j_log(x);
        if (std::isnan(x) || x < 0) {
            ASSERT_TRUE(std::isnan(y)) << x;
        } else if (x == 0) {
            ASSERT_EQ(-INFINITY, y);
        } else if (std::isinf(x)) {
            ASSERT_EQ(INFINITY, y);
        } else {
            double exact = std::log(static_cast<double>(x));
            worst = std::max(worst,
                             exact == 0 ? std::fabs(static_cast<double>(y)) * 1e9 : std::fabs(y - exact) / ulp(exact));
        }
    };
    sample_floats(visit);
    for (int i = 1; i < 4000000; i += 3) visit(static_cast<float>(i) * 1e-6f); // around 1
    EXPECT_LT(worst, 0.5001);
    EXPECT_EQ(0, l4j_log(1));
}

// swiglu with up = 1 is g / (1 + exp(−g)): over all floats every tier has the bits of ref, so the vector exp those of l4j_exp.
TEST(MathTest, VectorExpHasTheSameBits) {
    std::vector<float> gates;
    for (uint64_t u = 0; u <= 0xFFFFFFFFull; u += 4999) gates.push_back(from_bits(static_cast<uint32_t>(u)));
    for (int i = -90000; i <= 90000; i += 3) gates.push_back(static_cast<float>(i) * 1e-3f);
    for (float edge : {L4J_EXP_LOW, L4J_EXP_HIGH}) {
        for (int step = -3; step <= 3; step++) gates.push_back(-std::nextafter(edge, step < 0 ? -1e9f : 1e9f));
        gates.push_back(-edge);
    }
    int64_t N = static_cast<int64_t>(gates.size());
    std::vector<float> expected;
    for (int32_t isa : l4j::tiers()) {
        l4j::Context context(isa);
        l4j::Operand gate(isa, {1, N}), up(isa, {1, N}), out(isa, {1, N});
        gate.fill(gates);
        up.fill(1.0);
        l4j_swiglu args = {};
        args.struct_size = sizeof args;
        args.gate = gate.get();
        args.up = up.get();
        args.out = out.get();
        L4J_ASSERT_OK(L4J_RUN(swiglu_forward, context.queue(), &args)(error));
        std::vector<float> got = out.floats();
        for (int64_t i = 0; i < N; i++) {
            float g = gates[static_cast<size_t>(i)], want = g * (1 / (1 + l4j_exp(-g))),
                  y = got[static_cast<size_t>(i)];
            if (std::isnan(want)) {
                ASSERT_TRUE(std::isnan(y)) << g;
            } else {
                ASSERT_EQ(0, memcmp(&want, &y, 4)) << g << " on " << l4j::tier_name(isa);
            }
        }
    }
}

} // namespace
