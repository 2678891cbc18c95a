#include "tier_check.h"

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;

struct Call {
    Call(int32_t isa, int64_t M, int64_t H, int64_t D, int64_t half, uint32_t flags = 0, int64_t pad = 0,
         Guarded::Side side = Guarded::kAfter)
        : src(isa, {M, H, D}, pad, side), dst(isa, {M, H, D}, pad, side), cosine(isa, {50, half}, pad, side),
          sine(isa, {50, half}, pad, side) {
        src.fill(l4j::Random(1).floats(src.size()));
        for (int64_t p = 0; p < 50; p++) {
            for (int64_t i = 0; i < half; i++) {
                double angle =
                    static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
                cosine.set(p * half + i, static_cast<float>(std::cos(angle))); // one table for every tier
                sine.set(p * half + i, static_cast<float>(std::sin(angle)));
            }
        }
        for (int64_t m = 0; m < M; m++) positions.push_back(static_cast<int32_t>(m * 7 % 50));
        args.struct_size = sizeof args;
        args.flags = flags;
        args.src = src.get();
        args.dst = dst.get();
        args.cosine = cosine.get();
        args.sine = sine.get();
        args.positions = positions.data();
    }
    Call(const Call &) = delete;
    void forward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(rope_forward, context.queue(), &args)(error)); }
    void backward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(rope_backward, context.queue(), &args)(error)); }
    Operand src, dst, cosine, sine;
    std::vector<int32_t> positions;
    l4j_rope args = {};
};

TEST(RopeTest, EdgesOfEveryDimension) {
    for (auto [D, half] : {std::pair<int64_t, int64_t>{1, 0},
                           {2, 1},
                           {8, 4},
                           {20, 10},
                           {20, 3},
                           {33, 16},
                           {34, 17},
                           {64, 32},
                           {80, 40},
                           {96, 20},
                           {128, 64},
                           {256, 128}}) {
        for (uint32_t flags : {0, static_cast<int>(L4J_ROPE_INTERLEAVED)}) {
            for (bool backward : {false, true}) {
                SCOPED_TRACE("D=" + std::to_string(D) + " half=" + std::to_string(half));
                l4j::check_tiers(
                    [&, D = D, half = half](const Context &context, int32_t isa) -> l4j::Outputs {
                        Call call(isa, 6, 3, D, half, flags, backward ? 5 : 0,
                                  backward ? Guarded::kBefore : Guarded::kAfter);
                        backward ? call.backward(context) : call.forward(context);
                        return {{"dst", call.dst}};
                    },
                    2e-7, {1, 5});
            }
        }
    }
}

// Straight from the definition.
TEST(RopeTest, TurnsPairs) {
    Context context(L4J_ISA_REF64);
    for (uint32_t flags : {0, static_cast<int>(L4J_ROPE_INTERLEAVED)}) {
        Call call(L4J_ISA_REF64, 4, 2, 10, 4, flags);
        call.forward(context);
        for (int64_t row = 0; row < 8; row++) {
            for (int64_t i = 0; i < 4; i++) {
                int64_t a = row * 10 + (flags ? 2 * i : i), b = row * 10 + (flags ? 2 * i + 1 : i + 4);
                int64_t at = call.positions[static_cast<size_t>(row / 2)] * 4 + i;
                double c = call.cosine.at(at), s = call.sine.at(at);
                EXPECT_NEAR(call.src.at(a) * c - call.src.at(b) * s, call.dst.at(a), 1e-15);
                EXPECT_NEAR(call.src.at(b) * c + call.src.at(a) * s, call.dst.at(b), 1e-15);
            }
            for (int64_t d = 8; d < 10; d++) EXPECT_EQ(call.src.at(row * 10 + d), call.dst.at(row * 10 + d));
        }
    }
}

TEST(RopeTest, InPlaceAndStrided) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        for (uint32_t flags : {0, static_cast<int>(L4J_ROPE_INTERLEAVED)}) {
            Call plain(isa, 5, 2, 50, 20, flags), in_place(isa, 5, 2, 50, 20, flags), strided(isa, 5, 2, 50, 20, flags);
            plain.forward(context);
            in_place.args.dst = in_place.args.src;
            in_place.forward(context);
            EXPECT_TRUE(l4j::same_bits(in_place.src.floats(), plain.dst.floats()));
            Operand wide(isa, {5, 2, 100}); // every other element
            for (int64_t i = 0; i < 500; i++) wide.set(2 * i, plain.src.at(i));
            wide.mutable_tensor().shape[2] = 50;
            wide.mutable_tensor().stride[2] = 2;
            strided.src = wide;
            strided.args.src = strided.src.get();
            strided.forward(context);
            EXPECT_TRUE(l4j::same_bits(strided.dst.floats(), plain.dst.floats()));
        }
    }
}

// ⟨forward(x), y⟩ = ⟨x, backward(y)⟩, and backward undoes forward as far as cos² + sin² = 1.
TEST(RopeTest, Adjoint) {
    Context context(L4J_ISA_REF64);
    for (uint32_t flags : {0, static_cast<int>(L4J_ROPE_INTERLEAVED)}) {
        Call x(L4J_ISA_REF64, 6, 2, 20, 8, flags), y(L4J_ISA_REF64, 6, 2, 20, 8, flags);
        y.src.fill(l4j::Random(5).floats(240));
        x.forward(context);
        y.backward(context);
        double left = 0, right = 0;
        for (int64_t i = 0; i < 240; i++) {
            left += x.dst.at(i) * y.src.at(i);
            right += x.src.at(i) * y.dst.at(i);
        }
        EXPECT_NEAR(left, right, 1e-12);
        std::vector<double> before = x.src.values();
        x.args.src = x.args.dst;
        x.backward(context);
        EXPECT_LT(l4j::relative_error(x.dst.values(), before), 1e-6); // the table is rounded to fp32
    }
}

TEST(RopeTest, FiniteDifferences) {
    Context context(L4J_ISA_REF64);
    for (uint32_t flags : {0, static_cast<int>(L4J_ROPE_INTERLEAVED)}) {
        Call x(L4J_ISA_REF64, 4, 2, 10, 4, flags), gradient(L4J_ISA_REF64, 4, 2, 10, 4, flags);
        gradient.src.fill(l4j::Random(7).floats(gradient.src.size()));
        gradient.backward(context);
        l4j::check_gradient(x.src, gradient.dst, x.dst, gradient.src, [&] { x.forward(context); });
    }
}

TEST(RopeTest, AHundredRunsGiveTheSameBits) {
    for (bool backward : {false, true}) {
        l4j::check_repeats([&](const Context &context, int32_t isa) -> l4j::Outputs {
            Call call(isa, 47, 3, 64, 32);
            backward ? call.backward(context) : call.forward(context);
            return {{"dst", call.dst}};
        });
    }
}

TEST(RopeTest, Messages) {
    Context context(L4J_ISA_AUTO);
    auto expect = [&](const std::function<void(Call &)> &spoil, const std::string &message) {
        Call call(L4J_ISA_AUTO, 3, 2, 10, 4);
        spoil(call);
        l4j_error error = {};
        EXPECT_EQ(L4J_EINVAL, L4J_RUN(rope_forward, context.queue(), &call.args)(&error));
        EXPECT_EQ(message, error.message);
        for (double v : call.dst.values()) ASSERT_TRUE(std::isnan(v));
    };
    std::string f = "rope_forward: ";
    expect([](Call &c) { c.args.flags = 2; }, f + "flags are 0x2, expected L4J_ROPE_INTERLEAVED or 0");
    expect([](Call &c) { c.args.reserved[0] = 2; }, f + "reserved[0] is not zero");
    expect([](Call &c) { c.args.src = nullptr; }, f + "src is NULL");
    expect([](Call &c) { c.src.mutable_tensor().ndim = 2; }, f + "src is F32 [3, 2], expected F32 [any, any, any]");
    expect([](Call &c) { c.dst.mutable_tensor().shape[1] = 1; }, f + "dst is F32 [3, 1, 10], expected F32 [3, 2, 10]");
    expect([](Call &c) { c.cosine.mutable_tensor().shape[1] = 6; },
           f + "cosine has 6 columns, expected at most 5, half of the head dimension 10");
    expect([](Call &c) { c.sine.mutable_tensor().shape[0] = 49; }, f + "sine is F32 [49, 4], expected F32 [50, 4]");
    expect([](Call &c) { c.args.positions = nullptr; }, f + "positions is NULL");
    for (int32_t isa : l4j::tiers()) {
        Context tier(isa);
        Call call(isa, 3, 2, 10, 4);
        call.positions[2] = 50;
        l4j_error error = {};
        EXPECT_EQ(L4J_EINVAL, L4J_RUN(rope_backward, tier.queue(), &call.args)(&error));
        EXPECT_STREQ("rope: positions[2] is 50, expected 0 to 49, the rows of cosine and sine", error.message);
        call.positions[2] = -1;
        EXPECT_EQ(L4J_EINVAL, L4J_RUN(rope_backward, tier.queue(), &call.args)(&error));
        EXPECT_STREQ("rope: positions[2] is -1, expected 0 to 49, the rows of cosine and sine", error.message);
    }
}

TEST(RopeTest, NoRows) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call call(isa, 0, 2, 10, 4);
        call.forward(context);
    }
}

} // namespace
