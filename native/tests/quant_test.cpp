// Quantized weights: decoded exactly as their formats' owners do it, on every tier, from any row and column on; refused when wrong.
#include "quant_case.h"
#include "quant_golden.h"

#include <set>

namespace {

using l4j::Context;
using l4j::Parts;

TEST(QuantTest, TestDataIsExact) {
    l4j::Cases cases = l4j::read_cases(l4j::test_data("quant/quant.safetensors"));
    std::set<std::string> seen;
    for (auto &c : cases) {
        seen.insert(c.first.substr(0, c.first.find('.')));
        SCOPED_TRACE(c.first);
        l4j::expect_decoded(l4j::parts_of(c.first, c.second), c.second.at("dequantized").floats());
    }
    EXPECT_EQ(l4j::schemes().size(), seen.size());
}

// ggml's and bitsandbytes' own results, a larger set: the folder that LORA4J_QUANT_GOLDEN names.
TEST(QuantTest, OwnersValuesAreExact) {
    const char *folder = getenv("LORA4J_QUANT_GOLDEN");
    if (!folder) GTEST_SKIP() << "LORA4J_QUANT_GOLDEN is not set";
    int checked = 0;
    for (auto &owned : l4j::owners_cases(folder)) {
        // The owner's result in bf16 or fp16 is the fp32 value rounded once.
        const Parts &p = owned.parts;
        Context context(L4J_ISA_AUTO, 2);
        l4j::QuantWeight weight(context, p, L4J_WEIGHT_BORROW);
        std::vector<float> got = l4j::dequantized(context, L4J_ISA_REF, weight.get(), 0, p.rows, p.cols).floats();
        std::vector<float> owner = owned.dequantized.floats();
        for (size_t i = 0; i < got.size(); i++) {
            float rounded = got[i];
            if (owned.dequantized.dtype == L4J_F16) {
                rounded = static_cast<float>(static_cast<l4j::Half>(rounded));
            } else if (owned.dequantized.dtype == L4J_BF16) {
                uint32_t u = static_cast<uint32_t>(l4j::to_bf16(rounded)) << 16;
                memcpy(&rounded, &u, 4);
            }
            ASSERT_EQ(owner[i], rounded) << owned.name << " element " << i;
        }
        checked++;
    }
    EXPECT_EQ(36 + 144 + 10, checked);
}

// Every tier, and the GPU, has the bits of ref, whatever the row, the shape and the number of threads.
TEST(QuantTest, TiersAgree) {
    for (auto &scheme : l4j::schemes()) {
        SCOPED_TRACE(scheme.second);
        for (int64_t rows : {1, 17, 33}) {
            for (int64_t cols : {1, 31, 64, 257, 520}) {
                for (uint64_t seed : {2, 3}) {
                    Parts parts = l4j::random_parts(scheme.first, rows, cols, seed);
                    Context reference(L4J_ISA_REF);
                    l4j::QuantWeight oracle(reference, parts, L4J_WEIGHT_BORROW);
                    std::vector<float> expected =
                        l4j::dequantized(reference, L4J_ISA_REF, oracle.get(), 0, parts.rows, parts.cols).floats();
                    for (int32_t isa : l4j::devices()) {
                        Context context(isa, 3);
                        for (int32_t mode : l4j::modes(isa)) {
                            l4j::QuantWeight weight(context, parts, mode);
                            for (int64_t begin : {int64_t{0}, parts.rows / 2, parts.rows - 1}) {
                                l4j::Operand out =
                                    l4j::dequantized(context, isa, weight.get(), begin, parts.rows - begin, parts.cols);
                                std::vector<float> tail(expected.begin() + begin * parts.cols, expected.end());
                                ASSERT_TRUE(l4j::same_bits(out.floats(), tail))
                                    << l4j::tier_name(isa) << " " << parts.rows << "x" << parts.cols << " from "
                                    << begin;
                            }
                        }
                    }
                }
            }
        }
    }
}

TEST(QuantTest, NonFiniteValuesAreNamed) {
    Context context(L4J_ISA_AUTO, 4);
    auto create = [&](const Parts &p) {
        l4j_weight_options o = p.options(L4J_WEIGHT_BORROW);
        l4j_weight *weight = nullptr;
        l4j_error error = {};
        EXPECT_EQ(L4J_ENUMERIC, l4j_weight_create(context.device(), context.queue(), &o, &weight, &error));
        EXPECT_EQ(nullptr, weight);
        return std::string(error.message);
    };
    Parts q8 = l4j::random_parts(L4J_SCHEME_GGUF_Q8_0, 9, 96, 1);
    static_cast<uint16_t *>(q8.of(L4J_ROLE_VALUES).data)[(7 * 3 + 1) * 17] = 0x7C00;
    EXPECT_EQ("weight_create: value [7, 32] is NaN or Inf; expected finite weights", create(q8));
    Parts nf4 = l4j::random_parts(L4J_SCHEME_NF4, 9, 100, 2);
    static_cast<float *>(nf4.of(L4J_ROLE_SCALES).data)[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ("weight_create: value [1, 92] is NaN or Inf; expected finite weights", create(nf4));
    Parts fp8 = l4j::random_parts(L4J_SCHEME_FP8_E4M3, 9, 100, 2);
    static_cast<uint8_t *>(fp8.of(L4J_ROLE_VALUES).data)[555] = 0xFF;
    EXPECT_EQ("weight_create: value [5, 55] is NaN or Inf; expected finite weights", create(fp8));
    Parts nested = l4j::random_parts(L4J_SCHEME_FP4, 9, 100, 3);
    static_cast<float *>(nested.of(L4J_ROLE_NESTED_QUANT_MAP).data)[200] = std::numeric_limits<float>::infinity();
    EXPECT_EQ("weight_create: FP4: NESTED_QUANT_MAP[200] is inf, expected a finite value", create(nested));
}

TEST(QuantTest, HeldBytesReplaceTheSource) {
    Context context(L4J_ISA_AUTO, 2);
    for (auto &scheme : l4j::schemes()) {
        Parts parts = l4j::random_parts(scheme.first, 64, 512, 3);
        int64_t stored = 0;
        for (auto &memory : parts.memory) stored += static_cast<int64_t>(memory->bytes());
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            l4j::QuantWeight weight(context, parts, mode);
            l4j_weight_info info = {};
            info.struct_size = sizeof info;
            L4J_ASSERT_OK(l4j_weight_query(weight.get(), &info, error));
            EXPECT_EQ(scheme.first, info.scheme);
            EXPECT_EQ(0, info.dtype);
            if (mode == L4J_WEIGHT_BORROW) {
                EXPECT_EQ(0, info.bytes_held);
            } else {
                bool turned = scheme.first >= L4J_SCHEME_GPTQ && scheme.first <= L4J_SCHEME_AWQ;
                EXPECT_GE(info.bytes_held, stored);
                EXPECT_LE(info.bytes_held, stored + 64 * 11 + (turned ? 64 * 4 * 5 : 0))
                    << scheme.second; // fp32 scales
            }
        }
    }
}

TEST(QuantTest, BadPartsAreRefused) {
    struct {
        int32_t scheme;
        uint64_t seed;
        l4j_status status;
        const char *message;
        void (*change)(Parts &);
    } cases[] = {
        {L4J_SCHEME_GGUF_Q4_K, 0, L4J_EINVAL, "GGUF_Q4_K: the weight has 500 columns, expected a multiple of 256",
         [](Parts &p) { p.cols = 500; }},
        {L4J_SCHEME_GGUF_Q4_K, 0, L4J_EINVAL,
         "GGUF_Q4_K: VALUES is U8 [20, 287], expected U8 [20, 288] for a weight [20, 512]",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).shape[1] = 287; }},
        {L4J_SCHEME_GGUF_Q8_0, 0, L4J_EINVAL, "GGUF_Q8_0 has no part of role 2 (SCALES)",
         [](Parts &p) { p.add(L4J_ROLE_SCALES, L4J_F32, {1}, std::vector<float>{1}); }},
        {L4J_SCHEME_GGUF_Q8_0, 0, L4J_EINVAL, "GGUF_Q8_0 has no part of role 99 (unknown)",
         [](Parts &p) { p.roles[0] = 99; }},
        {L4J_SCHEME_GGUF_Q8_0, 0, L4J_EINVAL, "has 0 parts", [](Parts &p) { p.roles.clear(); }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "NF4 needs a part BLOCK_SIZE",
         [](Parts &p) { p.roles.erase(p.roles.begin() + 1), p.tensors.erase(p.tensors.begin() + 1); }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "NF4 has two parts VALUES", [](Parts &p) { p.roles[2] = L4J_ROLE_VALUES; }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "NF4: BLOCK_SIZE is 48, expected a power of two from 32 to 4096",
         [](Parts &p) { *static_cast<int64_t *>(p.of(L4J_ROLE_BLOCK_SIZE).data) = 48; }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "NF4: BLOCK_SIZE is 8192",
         [](Parts &p) { *static_cast<int64_t *>(p.of(L4J_ROLE_BLOCK_SIZE).data) = 8192; }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "NF4: SCALES is F32 [160], expected F32 [320]",
         [](Parts &p) { *static_cast<int64_t *>(p.of(L4J_ROLE_BLOCK_SIZE).data) = 32; }},
        {L4J_SCHEME_NF4, 3, L4J_EINVAL, "NF4 needs a part NESTED_OFFSET",
         [](Parts &p) { p.roles.erase(p.roles.begin() + 5), p.tensors.erase(p.tensors.begin() + 5); }},
        {L4J_SCHEME_NF4, 3, L4J_EINVAL, "NF4: SCALES is F32 [160], expected U8 [160]",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).dtype = L4J_F32; }},
        {L4J_SCHEME_NF4, 3, L4J_EINVAL, "NF4: NESTED_QUANT_MAP is F32 [255], expected F32 [256]",
         [](Parts &p) { p.of(L4J_ROLE_NESTED_QUANT_MAP).shape[0] = 255; }},
        {L4J_SCHEME_FP4, 2, L4J_EINVAL, "FP4: VALUES is U8 [5119, 1], expected U8 [5120]",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).shape[0]--; }},
        {L4J_SCHEME_INT8, 0, L4J_EINVAL, "INT8: SCALES have 5 groups, expected a divisor of the 512 columns",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).shape[1] = 5; }},
        {L4J_SCHEME_INT8, 0, L4J_EINVAL, "INT8: SCALES is U8 [20, 4], expected F32 or F16 or BF16 [20, 4]",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).dtype = L4J_U8; }},
        {L4J_SCHEME_LLM_INT8, 0, L4J_EINVAL, "LLM_INT8: SCALES is F32 [19], expected F32 [20]",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).shape[0] = 19; }},
        {L4J_SCHEME_GPTQ, 3, L4J_EINVAL, "GPTQ: GROUP_INDEX[77] is 4, expected 0 to 3, the rows of SCALES",
         [](Parts &p) { static_cast<int32_t *>(p.of(L4J_ROLE_GROUP_INDEX).data)[77] = 4; }},
        {L4J_SCHEME_GPTQ_V2, 3, L4J_EINVAL, "GPTQ_V2: GROUP_INDEX[0] is -1",
         [](Parts &p) { static_cast<int32_t *>(p.of(L4J_ROLE_GROUP_INDEX).data)[0] = -1; }},
        {L4J_SCHEME_GPTQ, 2, L4J_EINVAL, "GPTQ: SCALES have 3 groups, expected a divisor of the 512 columns",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).shape[0] = 3; }},
        {L4J_SCHEME_GPTQ, 2, L4J_EINVAL, "GPTQ: the weight has 509 columns, expected a multiple of 8",
         [](Parts &p) { p.cols = 509; }},
        {L4J_SCHEME_AWQ, 2, L4J_EINVAL, "AWQ: the weight has 20 rows, expected a multiple of 8",
         [](Parts &p) { p.rows = 20; }},
        {L4J_SCHEME_AWQ, 2, L4J_EINVAL, "AWQ: ZEROS is I32 [3, 3], expected I32 [4, 3]",
         [](Parts &p) { p.of(L4J_ROLE_ZEROS).shape[0] = 3; }},
        {L4J_SCHEME_FP8_E4M3, 2, L4J_EINVAL, "FP8_E4M3: SCALES is F32 [1, 3], expected F32 or F16 or BF16 [20] ",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).shape[1] = 3; }},
        {L4J_SCHEME_GGUF_Q4_0, 2, L4J_EDEVICE, "VALUES lies on device type 2",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).device_type = L4J_DEVICE_CUDA; }},
        {L4J_SCHEME_GGUF_Q4_0, 2, L4J_EINVAL,
         "VALUES is U8 [20, 288] with strides [300, 1], expected contiguous memory",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).stride[0] = 300; }},
        {L4J_SCHEME_GGUF_Q4_0, 2, L4J_EINVAL, "VALUES.data is NULL",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).data = nullptr; }},
        {L4J_SCHEME_GGUF_Q4_0, 2, L4J_EINVAL, "VALUES.reserved is not zero",
         [](Parts &p) { p.of(L4J_ROLE_VALUES).reserved = 1; }},
        {L4J_SCHEME_NF4, 2, L4J_EALIGN, "SCALES.data is not aligned",
         [](Parts &p) { p.of(L4J_ROLE_SCALES).data = static_cast<char *>(p.of(L4J_ROLE_SCALES).data) - 2; }},
        {L4J_SCHEME_NF4, 2, L4J_EINVAL, "at most 2^40 values", [](Parts &p) { p.rows = int64_t{1} << 40; }},
    };
    Context context(L4J_ISA_REF);
    for (auto &c : cases) {
        Parts parts = l4j::random_parts(c.scheme, 20, 512, c.seed);
        c.change(parts);
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            l4j_weight_options o = parts.options(mode);
            l4j_weight *weight = nullptr;
            l4j_error error = {};
            EXPECT_EQ(c.status, l4j_weight_create(context.device(), nullptr, &o, &weight, &error)) << c.message;
            EXPECT_NE(nullptr, strstr(error.message, c.message)) << error.message << "\nexpected " << c.message;
            EXPECT_EQ(nullptr, weight);
        }
    }
}

} // namespace
