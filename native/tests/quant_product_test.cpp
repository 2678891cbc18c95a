// Operations with quantized weights: the bits of the same operations with the decoded weight, and close to fp64, on every tier and
// on a GPU.
#include "quant_case.h"
#include "tier_check.h"

#include <cmath>

namespace {

using l4j::Context;
using l4j::Operand;
using l4j::Outputs;
using l4j::Parts;

std::vector<float> absolute(std::vector<float> values) {
    for (float &v : values) v = std::abs(v);
    return values;
}

// A projection with an adapter and dropout, forward and backward, for M rows; with `magnitudes` of the operands' absolute values.
void run_lora(const Context &context, int32_t isa, const l4j_weight *weight, int64_t N, int64_t K, int64_t M,
              Outputs *outputs, int32_t compute = L4J_COMPUTE_F32, bool magnitudes = false) {
    l4j::Random random(11);
    auto values = [&](int64_t n) { return magnitudes ? absolute(random.floats(n)) : random.floats(n); };
    int64_t R = 5;
    Operand x(isa, {M, K}, 1), a(isa, {R, K}), b(isa, {N, R}), dy(isa, {M, N});
    x.fill(values(M * K));
    a.fill(values(R * K));
    b.fill(values(N * R));
    dy.fill(values(M * N));
    Operand y(isa, {M, N}, 3), s(isa, {M, R}), dx(isa, {M, K}, 2), da(isa, {R, K}), db(isa, {N, R});
    float scaling = 0.75f;
    uint64_t seed = 3;
    int64_t step = 2;
    std::vector<uint32_t> tokens(static_cast<size_t>(M));
    for (size_t m = 0; m < tokens.size(); m++) tokens[m] = static_cast<uint32_t>(m);
    int32_t module = 4, adapter = 1;
    l4j_lora args = {};
    args.struct_size = sizeof args;
    args.projection_count = 1;
    args.adapter_count = 1;
    args.dropout_p = 0.25f;
    args.compute = compute;
    args.x = x.get();
    args.weights = &weight;
    args.a = a.get();
    args.b = b.get();
    args.scaling = &scaling;
    args.dropout_seed = &seed;
    args.dropout_step = &step;
    args.token_index = tokens.data();
    args.module_id = &module;
    args.adapter_id = &adapter;
    args.y = y.get();
    args.s = s.get();
    args.dy = dy.get();
    args.dx = dx.get();
    args.da = da.get();
    args.db = db.get();
    L4J_ASSERT_OK(L4J_RUN(lora_forward, context.queue(), &args)(error));
    L4J_ASSERT_OK(L4J_RUN(lora_backward, context.queue(), &args)(error));
    outputs->insert(outputs->end(), {{"y", y}, {"s", s}, {"dx", dx}, {"da", da}, {"db", db}});
}

// The weight as the head of a model, and as its embedding.
void run_head(const Context &context, int32_t isa, const l4j_weight *weight, int64_t V, int64_t K, int64_t M,
              Outputs *outputs) {
    l4j::Random random(12);
    Operand x(isa, {M, K}), loss(isa, {M}), lse(isa, {M}), dx(isa, {M, K}), rows(isa, {M, K}, 1);
    x.fill(random.floats(M * K));
    std::vector<int32_t> targets;
    for (int64_t m = 0; m < M; m++) targets.push_back(static_cast<int32_t>(random.below(V)));
    l4j_linear_cross_entropy head = {};
    head.struct_size = sizeof head;
    head.ignore_index = -100;
    head.x = x.get();
    head.weight = weight;
    head.targets = targets.data();
    head.loss = loss.get();
    head.lse = lse.get();
    head.dx = dx.get();
    L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, context.queue(), &head)(error));
    l4j_embedding embedding = {};
    embedding.struct_size = sizeof embedding;
    embedding.weight = weight;
    embedding.ids = targets.data();
    embedding.out = rows.get();
    L4J_ASSERT_OK(L4J_RUN(embedding_forward, context.queue(), &embedding)(error));
    outputs->insert(outputs->end(), {{"loss", loss}, {"lse", lse}, {"head dx", dx}, {"embedding", rows}});
}

Outputs run(const Context &context, int32_t isa, const l4j_weight *weight, const Parts &p, int64_t M, bool head) {
    Outputs outputs;
    if (head) {
        run_head(context, isa, weight, p.rows, p.cols, M, &outputs);
    } else {
        run_lora(context, isa, weight, p.rows, p.cols, M, &outputs);
    }
    return outputs;
}

// In fp64 with the weight that a GPU's products in 16 bits see: its decoded values, rounded.
Outputs run_rounded(const Context &oracle, const Parts &parts, int64_t M, bool head) {
    l4j::QuantWeight weight(oracle, parts, L4J_WEIGHT_BORROW);
    std::vector<float> values =
        l4j::dequantized(oracle, L4J_ISA_REF64, weight.get(), 0, parts.rows, parts.cols).floats();
    for (float &v : values) v = l4j::rounded(v);
    l4j::TestWeight dense(oracle, parts.rows, parts.cols, values);
    return run(oracle, L4J_ISA_REF64, dense.get(), parts, M, head);
}

void check(const Parts &parts, int64_t M, bool head, const std::vector<int> &threads) {
    for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
        SCOPED_TRACE(std::to_string(parts.rows) + "x" + std::to_string(parts.cols) + " M " + std::to_string(M) +
                     " mode " + std::to_string(mode));
        auto compute = [&](const Context &context, int32_t isa) {
            if (isa == L4J_ISA_REF64 && l4j::gpu_dtype() != L4J_F32) return run_rounded(context, parts, M, head);
            l4j::QuantWeight weight(context, parts, isa == L4J_ISA_CUDA ? L4J_WEIGHT_PACK : mode);
            Outputs got = run(context, isa, weight.get(), parts, M, head);
            std::vector<float> values =
                l4j::dequantized(context, isa, weight.get(), 0, parts.rows, parts.cols).floats();
            l4j::TestWeight dense(context, parts.rows, parts.cols, values);
            Outputs expected = run(context, isa, dense.get(), parts, M, head);
            for (size_t i = 0; i < got.size(); i++) {
                // Few rows in bf16 are the one product of a GPU that has another order of sums: NUMERICS.md.
                bool product = got[i].first == std::string("y") || got[i].first == std::string("dx");
                if (isa == L4J_ISA_CUDA && l4j::gpu_dtype() == L4J_BF16 && M <= 64 && product) continue;
                EXPECT_TRUE(l4j::same_bits(got[i].second.floats(), expected[i].second.floats()))
                    << got[i].first << " on " << l4j::tier_name(isa) << ": quantized against decoded";
            }
            return got;
        };
        auto magnitudes = [&](const Context &oracle) {
            l4j::QuantWeight weight(oracle, parts, mode);
            l4j::TestWeight dense(
                oracle, parts.rows, parts.cols,
                absolute(l4j::dequantized(oracle, L4J_ISA_REF64, weight.get(), 0, parts.rows, parts.cols).floats()));
            Outputs sizes;
            run_lora(oracle, L4J_ISA_REF64, dense.get(), parts.rows, parts.cols, M, &sizes, L4J_COMPUTE_F32, true);
            return sizes;
        };
        if (head) {
            l4j::check_tiers(compute, 2e-5, threads);
        } else {
            l4j::check_tiers(compute, 2e-5, threads, magnitudes);
        }
        if (::testing::Test::HasFailure()) return;
    }
}

class QuantProductTest : public ::testing::TestWithParam<std::pair<int32_t, const char *>> {};

TEST_P(QuantProductTest, Lora) {
    int32_t scheme = GetParam().first;
    // Few rows are streamed by each thread, many share packed blocks; a contraction of more than one block of steps.
    check(l4j::random_parts(scheme, 37, 400, 7), 7, false, {2});
    check(l4j::random_parts(scheme, 37, 512, 46), 45, false, {2});
    // One and two rows meet several panels at once, of each thread, and what is left of them.
    for (uint64_t seed : {3, 4}) check(l4j::random_parts(scheme, 99, 512, seed), 1, false, {2});
    check(l4j::random_parts(scheme, 99, 512, 4), 2, false, {2});
    for (int64_t rows : {1, 16, 33}) {
        for (int64_t cols : {1, 33, 64}) check(l4j::random_parts(scheme, rows, cols, 4), 3, false, {2});
    }
}

// Rounded to bf16 when they are packed: the bits of the decoded weight there too.
TEST_P(QuantProductTest, Bf16) {
    Parts parts = l4j::random_parts(GetParam().first, 37, 512, 4);
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        l4j::QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
        std::vector<float> values = l4j::dequantized(context, isa, weight.get(), 0, parts.rows, parts.cols).floats();
        l4j::TestWeight dense(context, parts.rows, parts.cols, values);
        Outputs got, expected;
        run_lora(context, isa, weight.get(), parts.rows, parts.cols, 5, &got, L4J_COMPUTE_BF16);
        run_lora(context, isa, dense.get(), parts.rows, parts.cols, 5, &expected, L4J_COMPUTE_BF16);
        for (size_t i = 0; i < got.size(); i++) {
            EXPECT_TRUE(l4j::same_bits(got[i].second.floats(), expected[i].second.floats()))
                << got[i].first << " on " << l4j::tier_name(isa);
        }
    }
}

// More values than a block of linear_cross_entropy.
TEST_P(QuantProductTest, HeadAndEmbedding) { check(l4j::random_parts(GetParam().first, 1040, 128, 6), 3, true, {2}); }

// Blocks that go across rows: several in a row, several rows in one.
TEST(QuantBlocksTest, OfEverySize) {
    for (int32_t scheme : {L4J_SCHEME_NF4, L4J_SCHEME_FP4}) {
        for (int64_t block : {32, 128, 512, 4096}) {
            SCOPED_TRACE("scheme " + std::to_string(scheme) + ", blocks of " + std::to_string(block));
            for (int64_t cols : {33, 400}) {
                for (uint64_t seed : {4, 7}) check(l4j::random_parts(scheme, 37, cols, seed, block), 7, false, {2});
            }
            check(l4j::random_parts(scheme, 33, 129, 4, block), 1, false, {2});
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Schemes, QuantProductTest, ::testing::ValuesIn(l4j::schemes()),
                         [](const auto &info) { return std::string(info.param.second); });

} // namespace
