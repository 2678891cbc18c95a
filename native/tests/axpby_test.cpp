#include "tier_check.h"

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;

struct Call {
    Call(int32_t isa, int64_t M, int64_t N, float alpha, float beta, int64_t pad = 0,
         Guarded::Side side = Guarded::kAfter)
        : x(isa, {M, N}, pad, side), y(isa, {M, N}, pad, side), alpha(alpha), beta(beta) {
        l4j::Random random(1);
        x.fill(random.floats(M * N));
        if (beta != 0) y.fill(random.floats(M * N)); // otherwise poison, which must not be read
        args.struct_size = sizeof args;
        args.alpha = &this->alpha;
        args.beta = &this->beta;
        args.x = x.get();
        args.y = y.get();
    }
    Call(const Call &) = delete;
    void run(const Context &context) { L4J_ASSERT_OK(L4J_RUN(axpby_forward, context.queue(), &args)(error)); }
    Operand x, y;
    float alpha, beta;
    l4j_axpby args = {};
};

TEST(AxpbyTest, EdgesOfBothDimensions) {
    for (int64_t N : {1, 2, 15, 16, 17, 31, 33, 64, 100, 512, 513, 1100}) {
        for (int64_t M : {1, 6}) {
            for (float beta : {0.0f, 1.0f, -0.3f}) {
                l4j::check_tiers(
                    [&](const Context &context, int32_t isa) -> l4j::Outputs {
                        Call call(isa, M, N, 0.7f, beta, beta == 1 ? 3 : 0,
                                  beta == 1 ? Guarded::kBefore : Guarded::kAfter);
                        call.run(context);
                        return {{"y", call.y}};
                    },
                    2e-7, {1, 5});
            }
        }
    }
}

// The same argument struct, other values behind its pointers.
TEST(AxpbyTest, FactorsAreReadWhenItRuns) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        Call call(isa, 2, 20, 2, 0);
        call.run(context);
        for (int64_t i = 0; i < 40; i++) ASSERT_EQ(2 * call.x.at(i), call.y.at(i));
        call.alpha = 1;
        call.beta = 3;
        call.run(context);
        for (int64_t i = 0; i < 40; i++) ASSERT_FLOAT_EQ(7 * call.x.at(i), call.y.at(i));
    }
}

TEST(AxpbyTest, StridedInput) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call plain(isa, 7, 600, 0.5f, 2), strided(isa, 7, 600, 0.5f, 2);
        strided.x = l4j::transposed_layout(isa, strided.x);
        plain.run(context);
        strided.run(context);
        EXPECT_TRUE(l4j::same_bits(strided.y.floats(), plain.y.floats()));
        Call broadcast(isa, 7, 600, 0.5f, 0);
        broadcast.x.mutable_tensor().stride[0] = 0;
        broadcast.run(context);
        for (int64_t i = 0; i < 7 * 600; i++) ASSERT_EQ(0.5 * broadcast.x.at(i % 600), broadcast.y.at(i));
    }
}

// ⟨alpha·x, y⟩ = ⟨x, alpha·y⟩: the map is linear and self-adjoint.
TEST(AxpbyTest, Adjoint) {
    Context context(L4J_ISA_REF64);
    Call forward(L4J_ISA_REF64, 5, 9, 0.7f, 0), back(L4J_ISA_REF64, 5, 9, 0.7f, 0);
    back.x.fill(l4j::Random(3).floats(45));
    forward.run(context);
    back.run(context);
    double left = 0, right = 0;
    for (int64_t i = 0; i < 45; i++) {
        left += forward.y.at(i) * back.x.at(i);
        right += forward.x.at(i) * back.y.at(i);
    }
    EXPECT_NEAR(left, right, 1e-12);
}

TEST(AxpbyTest, AHundredRunsGiveTheSameBits) {
    l4j::check_repeats([&](const Context &context, int32_t isa) -> l4j::Outputs {
        Call call(isa, 61, 700, 0.7f, -0.3f);
        call.run(context);
        return {{"y", call.y}};
    });
}

// Rows from the last to the first and columns from right to left.
TEST(AxpbyTest, NegativeStrides) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call plain(isa, 7, 600, 0.5f, 0), reversed(isa, 7, 600, 0.5f, 0);
        for (int64_t i = 0; i < 7 * 600; i++) reversed.x.set(i, plain.x.at(7 * 600 - 1 - i));
        l4j_tensor &x = reversed.x.mutable_tensor();
        x.data = static_cast<float *>(x.data) + 7 * 600 - 1;
        x.stride[0] = -600;
        x.stride[1] = -1;
        plain.run(context);
        reversed.run(context);
        EXPECT_TRUE(l4j::same_bits(reversed.y.floats(), plain.y.floats()));
    }
}

TEST(AxpbyTest, Messages) {
    Context context(L4J_ISA_AUTO);
    auto expect = [&](const std::function<void(Call &)> &spoil, const std::string &message) {
        Call call(L4J_ISA_AUTO, 3, 4, 1, 1);
        spoil(call);
        l4j_error error = {};
        EXPECT_EQ(L4J_EINVAL, L4J_RUN(axpby_forward, context.queue(), &call.args)(&error));
        EXPECT_EQ("axpby_forward: " + message, error.message);
    };
    expect([](Call &c) { c.args.reserved0 = 1; }, "reserved0 is not zero");
    expect([](Call &c) { c.args.alpha = nullptr; }, "alpha is NULL");
    expect([](Call &c) { c.args.beta = nullptr; }, "beta is NULL");
    expect([](Call &c) { c.args.x = nullptr; }, "x is NULL");
    expect([](Call &c) { c.x.mutable_tensor().ndim = -5; }, "x is F32 [?] with ndim -5, expected F32 [any, any]");
    expect(
        [](Call &c) {
            c.x.mutable_tensor().shape[0] = int64_t{1} << 62;
            c.x.mutable_tensor().stride[0] = 0;
        },
        "x is F32 [4611686018427387904, 4], expected at most 2^40 elements");
    expect([](Call &c) { c.y.mutable_tensor().shape[0] = 2; }, "y is F32 [2, 4], expected F32 [3, 4]");
}

} // namespace
