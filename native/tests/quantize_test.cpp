// Quantizers: the bits of the formats' owners, on every tier and for any number of threads; what cannot be stored is refused.
#include "quant_golden.h"

#include <functional>

namespace {

using l4j::Context;
using l4j::Parts;
using l4j::Stored;

bool can_be_made(int32_t scheme) {
    for (int32_t s : {L4J_SCHEME_NF4, L4J_SCHEME_FP4, L4J_SCHEME_LLM_INT8, L4J_SCHEME_GGUF_Q4_0, L4J_SCHEME_GGUF_Q4_1,
                      L4J_SCHEME_GGUF_Q5_0, L4J_SCHEME_GGUF_Q8_0, L4J_SCHEME_GGUF_Q4_K, L4J_SCHEME_GGUF_Q6_K}) {
        if (s == scheme) return true;
    }
    return false;
}

// Parts of the same shapes, poisoned, but for what the quantizer reads.
Parts blank(const Parts &parts, bool keep_offset) {
    Parts out;
    out.scheme = parts.scheme;
    out.rows = parts.rows;
    out.cols = parts.cols;
    for (size_t i = 0; i < parts.roles.size(); i++) {
        const l4j_tensor &t = parts.tensors[i];
        out.roles.push_back(parts.roles[i]);
        out.memory.push_back(std::make_shared<l4j::Guarded>(parts.memory[i]->bytes()));
        out.tensors.push_back(t);
        out.tensors.back().data = out.memory.back()->as();
        bool read = parts.roles[i] == L4J_ROLE_BLOCK_SIZE || parts.roles[i] == L4J_ROLE_NESTED_BLOCK_SIZE ||
                    (keep_offset && parts.roles[i] == L4J_ROLE_NESTED_OFFSET);
        if (read) memcpy(out.memory.back()->as(), t.data, parts.memory[i]->bytes());
    }
    return out;
}

l4j_quantize arguments(const Parts &out, const l4j_tensor *x, uint32_t flags) {
    l4j_quantize args = {};
    args.struct_size = sizeof args;
    args.flags = flags;
    args.scheme = out.scheme;
    args.part_count = static_cast<int32_t>(out.roles.size());
    args.x = x;
    args.part_roles = out.roles.data();
    args.part_values = out.tensors.data();
    return args;
}

void expect_parts(const std::string &name, const Parts &expected, const Stored &w, const std::vector<int> &threads) {
    SCOPED_TRACE(name);
    for (int32_t isa : l4j::tiers()) {
        for (int n : threads) {
            Context context(isa, n);
            for (bool padded : {false, true}) { // rows that do not follow one another
                int64_t bytes = w.dtype == L4J_F32 ? 4 : 2, stride = expected.cols + (padded ? 3 : 0);
                l4j::Guarded memory(static_cast<size_t>(((expected.rows - 1) * stride + expected.cols) * bytes));
                for (int64_t r = 0; r < expected.rows; r++) {
                    memcpy(memory.as<char>() + r * stride * bytes, w.bytes.data() + r * expected.cols * bytes,
                           static_cast<size_t>(expected.cols * bytes));
                }
                l4j_tensor x = l4j::tensor(memory.as(), w.dtype, {expected.rows, expected.cols});
                x.stride[0] = stride;
                Parts got = blank(expected, true);
                l4j_quantize args = arguments(got, &x, L4J_QUANTIZE_GIVEN_OFFSET);
                L4J_ASSERT_OK(L4J_RUN(quantize_forward, context.queue(), &args)(error));
                for (size_t i = 0; i < got.roles.size(); i++) {
                    ASSERT_EQ(0, memcmp(got.memory[i]->as(), expected.memory[i]->as(), got.memory[i]->bytes()))
                        << l4j::role_names()[got.roles[i]] << " on " << l4j::tier_name(isa);
                }
            }
        }
    }
}

TEST(QuantizeTest, TestDataIsExact) {
    int checked = 0;
    for (auto &c : l4j::read_cases(l4j::test_data("quant/quant.safetensors"))) {
        int32_t scheme = l4j::scheme_named(c.first.substr(0, c.first.find('.')));
        if (!c.second.count("w") || !can_be_made(scheme)) continue;
        expect_parts(c.first, l4j::parts_of(c.first, c.second), c.second.at("w"), {1, 3});
        checked++;
    }
    EXPECT_EQ(5 + 4 + 1 + 6, checked);
}

TEST(QuantizeTest, OwnersBitsAreExact) {
    const char *folder = getenv("LORA4J_QUANT_GOLDEN");
    if (!folder) GTEST_SKIP() << "LORA4J_QUANT_GOLDEN is not set";
    int checked = 0;
    for (auto &owned : l4j::owners_cases(folder)) {
        if (!can_be_made(owned.parts.scheme)) continue;
        expect_parts(owned.name, owned.parts, owned.w, {2});
        checked++;
    }
    EXPECT_EQ(6 * 3 + 144 + 10, checked);
}

// Every tier has the bits of ref for values of every kind: subnormal, huge, of one sign, equal, zero.
TEST(QuantizeTest, TiersAgree) {
    for (auto &scheme : l4j::schemes()) {
        if (!can_be_made(scheme.first)) continue;
        SCOPED_TRACE(scheme.second);
        for (uint64_t seed : {2, 3}) {
            Parts shapes = l4j::random_parts(scheme.first, 13, 512, seed);
            l4j::Random random(seed);
            std::vector<float> values = random.floats(13 * 512);
            static const float scales[] = {1, 1e-3f, 1e-40f, 1e-30f, 1e4f, 0, 1e-7f, 3e-5f};
            for (int64_t i = 0; i < 13 * 512; i++) {
                float &v = values[static_cast<size_t>(i)];
                int64_t group = i / 16;
                v = group % 7 == 3 ? std::fabs(v) : group % 7 == 4 ? -std::fabs(v) : group % 7 == 5 ? 0.5f : v;
                v *= scales[i / 512 % 8];
            }
            l4j_tensor x = l4j::tensor(values.data(), L4J_F32, {13, 512});
            std::vector<Parts> results;
            std::vector<int32_t> all = l4j::tiers();
            all.push_back(L4J_ISA_REF64);
            for (int32_t isa : all) {
                for (int threads : {1, 4}) {
                    Context context(isa, threads);
                    results.push_back(blank(shapes, false));
                    l4j_quantize args = arguments(results.back(), &x, 0);
                    L4J_ASSERT_OK(L4J_RUN(quantize_forward, context.queue(), &args)(error));
                    for (size_t i = 0; i < shapes.roles.size(); i++) {
                        ASSERT_EQ(0, memcmp(results[0].memory[i]->as(), results.back().memory[i]->as(),
                                            shapes.memory[i]->bytes()))
                            << l4j::role_names()[shapes.roles[i]] << " on " << l4j::tier_name(isa);
                    }
                }
            }
            // What was written is a weight, near to what it was made from.
            Context context(L4J_ISA_AUTO, 2);
            l4j::QuantWeight weight(context, results[0], L4J_WEIGHT_BORROW);
            l4j::Operand out = l4j::dequantized(context, L4J_ISA_REF, weight.get(), 0, 13, 512);
            std::vector<double> exact(values.begin(), values.end());
            EXPECT_LT(l4j::relative_error(out.values(), exact), 0.12);
        }
    }
}

// The offset is the mean of absmax.
TEST(QuantizeTest, OffsetIsTheMean) {
    Parts shapes = l4j::random_parts(L4J_SCHEME_NF4, 40, 512, 3);
    std::vector<float> values = l4j::Random(9).floats(40 * 512);
    double sum = 0;
    for (size_t b = 0; b < 320; b++) {
        float absmax = 0;
        for (size_t i = 0; i < 64; i++) absmax = std::max(absmax, std::fabs(values[b * 64 + i]));
        sum += absmax;
    }
    Context context(L4J_ISA_AUTO, 3);
    Parts out = blank(shapes, false);
    l4j_tensor x = l4j::tensor(values.data(), L4J_F32, {40, 512});
    l4j_quantize args = arguments(out, &x, 0);
    L4J_ASSERT_OK(L4J_RUN(quantize_forward, context.queue(), &args)(error));
    EXPECT_EQ(static_cast<float>(sum / 320), *static_cast<float *>(out.of(L4J_ROLE_NESTED_OFFSET).data));
}

TEST(QuantizeTest, WhatCannotBeStoredIsRefused) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 3);
        auto message = [&](int32_t scheme, int64_t at, float value) {
            std::vector<float> values = l4j::Random(4).floats(6 * 512);
            values[static_cast<size_t>(at)] = value;
            l4j_tensor x = l4j::tensor(values.data(), L4J_F32, {6, 512});
            Parts out = blank(l4j::random_parts(scheme, 6, 512, 2), false);
            l4j_quantize args = arguments(out, &x, 0);
            l4j_error error = {};
            EXPECT_EQ(L4J_ENUMERIC, L4J_RUN(quantize_forward, context.queue(), &args)(&error));
            return std::string(error.message);
        };
        float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
        for (auto &scheme : l4j::schemes()) {
            if (!can_be_made(scheme.first)) continue;
            EXPECT_EQ("quantize_forward: value [3, 77] is NaN or Inf; expected finite values",
                      message(scheme.first, 3 * 512 + 77, nan));
            EXPECT_EQ("quantize_forward: value [5, 511] is NaN or Inf; expected finite values",
                      message(scheme.first, 6 * 512 - 1, -inf));
        }
        EXPECT_EQ("quantize_forward: the block at [2, 256] needs a scale beyond fp16; expected smaller values",
                  message(L4J_SCHEME_GGUF_Q4_K, 2 * 512 + 300, 1e12f));
        EXPECT_EQ("quantize_forward: the block at [2, 288] needs a scale beyond fp16; expected smaller values",
                  message(L4J_SCHEME_GGUF_Q8_0, 2 * 512 + 300, 1e12f));
    }
}

TEST(QuantizeTest, BadArgumentsAreRefused) {
    Context context(L4J_ISA_REF);
    std::vector<float> values(6 * 512, 1.0f);
    l4j_tensor x = l4j::tensor(values.data(), L4J_F32, {6, 512}),
               narrow = l4j::tensor(values.data(), L4J_F32, {6, 500}),
               whole = l4j::tensor(values.data(), L4J_I32, {6, 512}),
               empty = l4j::tensor(values.data(), L4J_F32, {0, 512});
    auto refused = [&](l4j_status status, const char *part, int32_t scheme, const l4j_tensor *source,
                       const std::function<void(l4j_quantize *, Parts *)> &change) {
        Parts out = blank(l4j::random_parts(scheme, 6, 512, 2), false);
        l4j_quantize args = arguments(out, source, 0);
        change(&args, &out);
        l4j_error error = {};
        EXPECT_EQ(status, l4j_quantize_forward(context.queue(), &args, nullptr, 0, &error)) << part;
        EXPECT_NE(nullptr, strstr(error.message, part)) << error.message;
    };
    auto nothing = [](l4j_quantize *, Parts *) {};
    refused(L4J_ENOTSUP, "scheme 266 (GGUF_Q2_K) cannot be made; expected NF4", L4J_SCHEME_GGUF_Q2_K, &x, nothing);
    refused(L4J_ENOTSUP, "scheme 1 (unknown) cannot be made", L4J_SCHEME_NF4, &x,
            [](l4j_quantize *a, Parts *) { a->scheme = L4J_SCHEME_DENSE; });
    refused(L4J_EINVAL, "flags are 0x8", L4J_SCHEME_NF4, &x, [](l4j_quantize *a, Parts *) { a->flags = 8; });
    refused(L4J_EINVAL, "reserved[1] is not zero", L4J_SCHEME_NF4, &x,
            [](l4j_quantize *a, Parts *) { a->reserved[1] = 1; });
    refused(L4J_EINVAL, "x is NULL", L4J_SCHEME_NF4, nullptr, nothing);
    refused(L4J_EINVAL, "x is I32 [6, 512], expected F32, F16 or BF16 [any, any]", L4J_SCHEME_NF4, &whole, nothing);
    refused(L4J_EINVAL, "x is [0, 512], expected at least one value", L4J_SCHEME_NF4, &empty, nothing);
    refused(L4J_EINVAL, "quantize_forward: GGUF_Q8_0: the weight has 500 columns, expected a multiple of 32",
            L4J_SCHEME_GGUF_Q8_0, &narrow, nothing);
    refused(L4J_EINVAL, "quantize_forward: NF4: VALUES is U8 [1536, 1], expected U8 [1500]", L4J_SCHEME_NF4, &narrow,
            nothing);
    refused(L4J_EINVAL, "quantize_forward: LLM_INT8 needs a part SCALES", L4J_SCHEME_LLM_INT8, &x,
            [](l4j_quantize *a, Parts *) { a->part_count = 1; });
    refused(L4J_EWORKSPACE, "the workspace has 0 bytes", L4J_SCHEME_NF4, &x, [&](l4j_quantize *a, Parts *out) {
        *out = blank(l4j::random_parts(L4J_SCHEME_NF4, 6, 512, 3), false);
        *a = arguments(*out, &x, 0);
    });
}

} // namespace
