// L4J_COMPUTE_INT8: exact sums of integers by an independent reading of the contract, the same bits on every tier, close to fp32.
#include "quant_case.h"
#include "tier_check.h"
#include "tiles/tiles.h"

#include <cmath>

namespace {

using l4j::Context;
using l4j::Operand;
using l4j::Outputs;
using l4j::Parts;

struct Shape {
    int64_t M, N, K, R;
    bool bias;
};

std::vector<float> bias_of(const Shape &s) { return l4j::Random(22).floats(s.N); }

// y of one projection; x as given, the rest from a fixed seed.
Outputs forward(const Context &context, int32_t isa, const l4j_weight *weight, const Shape &s,
                const std::vector<float> &values, int32_t compute = L4J_COMPUTE_INT8, l4j_status expected = L4J_OK,
                const char *refusal = "") {
    l4j::Random random(21);
    Operand x(isa, {s.M, s.K}, 3), a(isa, {s.R, s.K}), b(isa, {s.N, s.R}), bias(isa, {s.N}), y(isa, {s.M, s.N}, 5),
        low(isa, {s.M, s.R});
    x.fill(values);
    a.fill(random.floats(s.R * s.K));
    b.fill(random.floats(s.N * s.R));
    bias.fill(bias_of(s));
    float scaling = 0.5f;
    l4j_lora args = {};
    args.struct_size = sizeof args;
    args.compute = compute;
    args.projection_count = 1;
    args.adapter_count = s.R > 0;
    args.x = x.get();
    args.weights = &weight;
    args.biases = s.bias ? bias.get() : nullptr;
    args.a = a.get();
    args.b = b.get();
    args.scaling = &scaling;
    args.y = y.get();
    args.s = low.get();
    l4j_error error = {};
    EXPECT_EQ(L4J_RUN(lora_forward, context.queue(), &args)(&error), expected) << error.message;
    EXPECT_STREQ(refusal, expected == L4J_OK ? "" : error.message);
    return {{"y", y}};
}

class Int8Test : public ::testing::TestWithParam<std::pair<int32_t, const char *>> {};

// Every mode and shape: against the same sums in fp64, and the bits of ref on every tier.
TEST_P(Int8Test, TiersAgree) {
    const Shape shapes[] = {{1, 16, 256, 0, false},
                            {1, 195, 1280, 3, true},
                            {2, 1, 256, 0, true},
                            {9, 37, 2304, 0, false},
                            {45, 33, 512, 5, true}};
    for (const Shape &s : shapes) {
        Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 4);
        std::vector<float> x = l4j::Random(5).floats(s.M * s.K);
        for (int64_t k = 0; k < 64; k++) x[static_cast<size_t>(k)] = k < 32 ? 0.0f : 1e-38f; // both become zeros
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            SCOPED_TRACE(std::to_string(s.M) + "x" + std::to_string(s.K) + "x" + std::to_string(s.N) + " mode " +
                         std::to_string(mode));
            l4j::check_cpu_tiers(
                [&](const Context &context, int32_t isa) {
                    l4j::QuantWeight weight(context, parts, mode);
                    return forward(context, isa, weight.get(), s, x);
                },
                2e-6, {1, 2, 3});
        }
    }
}

TEST(Int8GpuTest, RefusedByName) {
    if (!l4j::has_gpu()) GTEST_SKIP() << l4j::gpu().missing;
    const Shape s = {2, 16, 256, 0, false};
    Parts parts = l4j::random_parts(L4J_SCHEME_GGUF_Q8_0, s.N, s.K, 4);
    Context context(L4J_ISA_CUDA, 0);
    l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
    forward(context, L4J_ISA_CUDA, weight.get(), s, l4j::Random(5).floats(s.M * s.K), L4J_COMPUTE_INT8, L4J_ENOTSUP,
            "lora_forward: compute is L4J_COMPUTE_INT8; expected L4J_COMPUTE_F32 on a GPU");
}

// Without a cap the device takes what instructions there are for bytes.
TEST_P(Int8Test, InstructionsAgree) {
    for (int64_t M : {1, 11, 64, 101}) {
        const Shape s = {M, 70, 1280, 3, true};
        Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 6);
        std::vector<float> x = l4j::Random(7).floats(s.M * s.K);
        Context all(L4J_ISA_AUTO, 2), capped(L4J_ISA_AVX512, 2);
        l4j::QuantWeight a(all, parts, L4J_WEIGHT_PACK), b(capped, parts, L4J_WEIGHT_PACK);
        EXPECT_TRUE(l4j::same_bits(forward(all, L4J_ISA_AUTO, a.get(), s, x)[0].second.floats(),
                                   forward(capped, L4J_ISA_AVX512, b.get(), s, x)[0].second.floats()));
    }
}

#if defined(L4J_TEST_TILES)
// The kernel of AMX, its instructions in software, for all rows of a panel and for some; codes that lie in panels and in rows.
TEST_P(Int8Test, TilesAgree) {
    if (l4j::tiers().back() < L4J_ISA_AVX2) GTEST_SKIP() << "no AVX2, whose vectors the model uses";
    const Shape shapes[] = {{16, 16, 256, 0, false}, {21, 37, 1280, 0, true}, {32, 20, 2304, 0, true}};
    for (const Shape &s : shapes) {
        Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 11);
        std::vector<float> x = l4j::Random(12).floats(s.M * s.K);
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            Context context(L4J_ISA_AVX2);
            l4j::QuantWeight weight(context, parts, mode);
            std::vector<float> expected = forward(context, L4J_ISA_AVX2, weight.get(), s, x)[0].second.floats();
            std::vector<float> bias = s.bias ? bias_of(s) : std::vector<float>(), y(expected.size());
            tiles_int8(weight.get(), s.M, x.data(), s.bias ? bias.data() : nullptr, y.data());
            EXPECT_TRUE(l4j::same_bits(y, expected)) << s.M << "x" << s.K << "x" << s.N << " mode " << mode;
        }
    }
}
#endif

// x that is exactly representable in bytes: then nothing is rounded but the sums, and the decoded weight gives the same product.
TEST_P(Int8Test, BytesAreExact) {
    const Shape s = {3, 20, 512, 0, false};
    Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 7);
    l4j::Random random(8);
    std::vector<float> x(static_cast<size_t>(s.M * s.K));
    for (size_t i = 0; i < x.size(); i++)
        x[i] = i % 32 == 3 ? 127.0f : static_cast<float>(static_cast<int64_t>(random.below(255)) - 127);
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
        std::vector<float> w = l4j::dequantized(context, isa, weight.get(), 0, s.N, s.K).floats();
        std::vector<double> expected, got = forward(context, isa, weight.get(), s, x)[0].second.values();
        for (int64_t m = 0; m < s.M; m++) {
            for (int64_t n = 0; n < s.N; n++) {
                double sum = 0;
                for (int64_t k = 0; k < s.K; k++)
                    sum += static_cast<double>(x[static_cast<size_t>(m * s.K + k)]) *
                           static_cast<double>(w[static_cast<size_t>(n * s.K + k)]);
                expected.push_back(sum);
            }
        }
        EXPECT_LT(l4j::relative_error(got, expected), 1e-6) << l4j::tier_name(isa);
    }
}

// The greatest sums: x of one sign, and blocks of one byte again and again, which has the greatest and least codes and finite scales.
TEST_P(Int8Test, SumsDoNotOverflow) {
    const Shape s = {4, 16, 512, 0, false};
    for (int byte : {0x00, 0x33, 0x3F, 0x80, 0xF3}) {
        Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 7);
        l4j_tensor &codes = parts.of(L4J_ROLE_VALUES);
        memset(codes.data, byte, static_cast<size_t>(codes.shape[0] * codes.shape[1]));
        for (float value : {127.0f, -127.0f}) {
            std::vector<float> x(static_cast<size_t>(s.M * s.K), value);
            std::vector<int32_t> tiers = l4j::tiers();
            tiers.push_back(L4J_ISA_AUTO);
            for (int32_t isa : tiers) {
                Context context(isa);
                l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
                std::vector<float> w = l4j::dequantized(context, isa, weight.get(), 0, s.N, s.K).floats();
                double sum = 0;
                for (int64_t k = 0; k < s.K; k++)
                    sum += static_cast<double>(value) * static_cast<double>(w[static_cast<size_t>(k)]);
                if (std::fabs(sum) > 1e38) continue; // MXFP4's scale is a whole byte
                for (double y : forward(context, isa, weight.get(), s, x)[0].second.values())
                    ASSERT_NEAR(y, sum, 2e-6 * std::fabs(sum)) << byte << " " << l4j::tier_name(isa);
            }
        }
    }
}

// Against fp32: no more than the rounding of x to bytes, 127 steps to the largest of 32, costs.
TEST_P(Int8Test, IsCloseToF32) {
    const Shape s = {4, 64, 4096, 0, false};
    Parts parts = l4j::random_parts(GetParam().first, s.N, s.K, 9);
    std::vector<float> x = l4j::Random(10).floats(s.M * s.K);
    Context context(L4J_ISA_AUTO);
    l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
    std::vector<double> exact = forward(context, L4J_ISA_AUTO, weight.get(), s, x, L4J_COMPUTE_F32)[0].second.values();
    std::vector<double> got = forward(context, L4J_ISA_AUTO, weight.get(), s, x)[0].second.values();
    double error = l4j::relative_error(got, exact);
    EXPECT_LT(error, 1e-2);
    EXPECT_GT(error, 1e-5) << "the activations were not rounded";
}

INSTANTIATE_TEST_SUITE_P(Schemes, Int8Test, ::testing::ValuesIn([] {
                             std::vector<std::pair<int32_t, const char *>> gguf;
                             for (auto &s : l4j::schemes())
                                 if (s.first >= L4J_SCHEME_GGUF_Q4_0) gguf.push_back(s);
                             return gguf;
                         }()),
                         [](const auto &info) { return std::string(info.param.second); });

// NaN and Inf come out as NaN, in their row alone.
TEST(Int8, NotFinite) {
    const Shape s = {5, 17, 256, 0, false};
    Parts parts = l4j::random_parts(L4J_SCHEME_GGUF_Q4_0, s.N, s.K, 3);
    std::vector<float> x = l4j::Random(4).floats(s.M * s.K);
    x[static_cast<size_t>(1 * s.K + 77)] = NAN;
    x[static_cast<size_t>(3 * s.K + 5)] = INFINITY;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
        std::vector<float> y = forward(context, isa, weight.get(), s, x)[0].second.floats();
        for (int64_t i = 0; i < s.M * s.N; i++)
            EXPECT_EQ(std::isnan(y[static_cast<size_t>(i)]), i / s.N == 1 || i / s.N == 3) << i;
    }
}

// What it does not do is refused by name.
TEST(Int8, Refusals) {
    Context context(L4J_ISA_AUTO);
    Operand x(L4J_ISA_AUTO, {2, 64}), y(L4J_ISA_AUTO, {2, 4});
    l4j_lora args = {};
    args.struct_size = sizeof args;
    args.compute = L4J_COMPUTE_INT8;
    args.projection_count = 1;
    args.x = x.get();
    args.y = y.get();
    args.dy = y.get();
    args.dx = x.get();
    l4j_error error = {};
    size_t bytes = 0;
    l4j::TestWeight dense(context, 4, 64, std::vector<float>(256));
    l4j::QuantWeight nf4(context, l4j::random_parts(L4J_SCHEME_NF4, 4, 64, 2), L4J_WEIGHT_PACK);
    l4j::QuantWeight q4(context, l4j::random_parts(L4J_SCHEME_GGUF_Q4_0, 4, 64, 2), L4J_WEIGHT_PACK);
    const l4j_weight *weight = dense.get();
    args.weights = &weight;
    EXPECT_EQ(l4j_lora_forward_workspace(context.queue(), &args, &bytes, &error), L4J_ENOTSUP);
    EXPECT_STREQ(error.message,
                 "lora_forward: compute is L4J_COMPUTE_INT8 and weights[0] is dense; expected a GGUF format, "
                 "or L4J_COMPUTE_F32");
    weight = nf4.get();
    EXPECT_EQ(l4j_lora_forward_workspace(context.queue(), &args, &bytes, &error), L4J_ENOTSUP);
    EXPECT_NE(strstr(error.message, "weights[0] is NF4"), nullptr) << error.message;
    weight = q4.get();
    EXPECT_EQ(l4j_lora_forward_workspace(context.queue(), &args, &bytes, &error), L4J_OK) << error.message;
    EXPECT_EQ(l4j_lora_backward_workspace(context.queue(), &args, &bytes, &error), L4J_ENOTSUP);
    EXPECT_NE(strstr(error.message, "lora_backward: compute is L4J_COMPUTE_INT8, which is for inference"), nullptr)
        << error.message;
}

} // namespace
