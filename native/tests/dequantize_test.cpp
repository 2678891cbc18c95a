#include "support.h"

namespace {

using l4j::Operand;

l4j_dequantize arguments(const l4j_weight *weight, int64_t row_begin, const l4j_tensor *out) {
    l4j_dequantize args = {};
    args.struct_size = sizeof args;
    args.weight = weight;
    args.row_begin = row_begin;
    args.out = out;
    return args;
}

// Every 16-bit pattern that is finite, from any row on, on every tier: exactly the value that it stands for.
TEST(DequantizeTest, StoredHalvesAreExact) {
    std::vector<int32_t> all = l4j::devices();
    all.push_back(L4J_ISA_REF64);
    for (int32_t dtype : {L4J_BF16, L4J_F16}) {
        std::vector<uint16_t> patterns;
        uint32_t exponent = dtype == L4J_F16 ? 0x7C00 : 0x7F80;
        for (uint32_t u = 0; u < 65536; u++) {
            if ((u & exponent) != exponent) patterns.push_back(static_cast<uint16_t>(u));
        }
        int64_t K = 62, N = static_cast<int64_t>(patterns.size()) / K;
        l4j_tensor values = l4j::tensor(patterns.data(), dtype, {N, K});
        for (int32_t isa : all) {
            l4j::Context context(isa, 2);
            for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
                if (isa == L4J_ISA_CUDA && mode == L4J_WEIGHT_BORROW) continue; // the values are the host's
                int32_t role = L4J_ROLE_VALUES;
                l4j_weight_options options = {};
                options.struct_size = sizeof options;
                options.scheme = L4J_SCHEME_DENSE;
                options.mode = mode;
                options.rows = N;
                options.cols = K;
                options.part_count = 1;
                options.part_roles = &role;
                options.part_values = &values;
                l4j_weight *weight = nullptr;
                L4J_ASSERT_OK(l4j_weight_create(context.device(), context.queue(), &options, &weight, error));
                for (int64_t begin : {int64_t{0}, int64_t{5}, N - 1, N}) {
                    Operand out(isa, {N - begin, K}, 1);
                    l4j_dequantize args = arguments(weight, begin, out.get());
                    L4J_ASSERT_OK(L4J_RUN(dequantize_forward, context.queue(), &args)(error));
                    for (int64_t i = 0; i < out.size(); i++) {
                        uint16_t u = patterns[static_cast<size_t>(begin * K + i)];
                        double expected;
                        if (dtype == L4J_F16) {
                            int e = (u >> 10) & 31, f = u & 1023;
                            expected = (e ? std::ldexp(1024 + f, e - 25) : std::ldexp(f, -24)) * (u >> 15 ? -1 : 1);
                        } else {
                            int e = (u >> 7) & 255, f = u & 127;
                            expected = (e ? std::ldexp(128 + f, e - 134) : std::ldexp(f, -133)) * (u >> 15 ? -1 : 1);
                        }
                        ASSERT_EQ(expected, out.at(i)) << std::hex << u;
                        ASSERT_EQ(std::signbit(expected), std::signbit(out.at(i))) << std::hex << u;
                    }
                }
                l4j_weight_destroy(weight, nullptr);
            }
        }
    }
}

TEST(DequantizeTest, BadArgumentsAreRefused) {
    l4j::Context context(L4J_ISA_REF);
    l4j::TestWeight weight(context, 5, 4, l4j::Random(1).floats(20));
    Operand out(L4J_ISA_REF, {3, 4}), narrow(L4J_ISA_REF, {3, 3});
    struct {
        l4j_dequantize args;
        const char *message;
    } cases[] = {
        {arguments(nullptr, 0, out.get()), "dequantize_forward: weight is NULL"},
        {arguments(weight.get(), 0, nullptr), "dequantize_forward: out is NULL"},
        {arguments(weight.get(), 3, out.get()),
         "dequantize_forward: row_begin is 3 and out has 3 rows; expected rows within the weight's 5"},
        {arguments(weight.get(), -1, out.get()),
         "dequantize_forward: row_begin is -1 and out has 3 rows; expected rows within the weight's 5"},
        {arguments(weight.get(), INT64_MAX, out.get()), "expected rows within the weight's 5"},
        {arguments(weight.get(), 0, narrow.get()),
         "dequantize_forward: out is F32 [3, 3], expected F32 [any, 4] because weight has that many columns"},
    };
    for (auto &bad : cases) {
        l4j_error error = {};
        EXPECT_EQ(L4J_EINVAL, l4j_dequantize_forward(context.queue(), &bad.args, nullptr, 0, &error));
        EXPECT_NE(nullptr, strstr(error.message, bad.message)) << error.message;
    }
}

} // namespace
