// Quantized weights for tests: their parts, and made-up ones of every scheme.
#pragma once

#include "safetensors.h"

#include <utility>

namespace l4j {

inline const std::vector<std::pair<int32_t, const char *>> &schemes() {
    static const std::vector<std::pair<int32_t, const char *>> all = {{L4J_SCHEME_NF4, "NF4"},
                                                                      {L4J_SCHEME_FP4, "FP4"},
                                                                      {L4J_SCHEME_LLM_INT8, "LLM_INT8"},
                                                                      {L4J_SCHEME_INT8, "INT8"},
                                                                      {L4J_SCHEME_GPTQ, "GPTQ"},
                                                                      {L4J_SCHEME_GPTQ_V2, "GPTQ_V2"},
                                                                      {L4J_SCHEME_AWQ, "AWQ"},
                                                                      {L4J_SCHEME_FP8_E4M3, "FP8_E4M3"},
                                                                      {L4J_SCHEME_GGUF_Q4_0, "GGUF_Q4_0"},
                                                                      {L4J_SCHEME_GGUF_Q4_1, "GGUF_Q4_1"},
                                                                      {L4J_SCHEME_GGUF_Q5_0, "GGUF_Q5_0"},
                                                                      {L4J_SCHEME_GGUF_Q5_1, "GGUF_Q5_1"},
                                                                      {L4J_SCHEME_GGUF_Q8_0, "GGUF_Q8_0"},
                                                                      {L4J_SCHEME_GGUF_Q2_K, "GGUF_Q2_K"},
                                                                      {L4J_SCHEME_GGUF_Q3_K, "GGUF_Q3_K"},
                                                                      {L4J_SCHEME_GGUF_Q4_K, "GGUF_Q4_K"},
                                                                      {L4J_SCHEME_GGUF_Q5_K, "GGUF_Q5_K"},
                                                                      {L4J_SCHEME_GGUF_Q6_K, "GGUF_Q6_K"},
                                                                      {L4J_SCHEME_GGUF_IQ4_NL, "GGUF_IQ4_NL"},
                                                                      {L4J_SCHEME_GGUF_MXFP4, "GGUF_MXFP4"}};
    return all;
}

inline int32_t scheme_named(const std::string &name) {
    for (auto &s : schemes()) {
        if (name == s.second) return s.first;
    }
    ADD_FAILURE() << "no scheme " << name;
    return 0;
}

inline const char *const *role_names() {
    static const char *const names[] = {
        "",          "VALUES",        "SCALES",           "ZEROS",         "GROUP_INDEX",      "BLOCK_SIZE",
        "QUANT_MAP", "NESTED_SCALES", "NESTED_QUANT_MAP", "NESTED_OFFSET", "NESTED_BLOCK_SIZE"};
    return names;
}

// The parts of a quantized weight in guarded memory of their own.
struct Parts {
    int32_t scheme = 0;
    int64_t rows = 0, cols = 0;
    std::vector<int32_t> roles;
    std::vector<l4j_tensor> tensors;
    std::vector<std::shared_ptr<Guarded>> memory;

    void add(int32_t role, int32_t dtype, std::vector<int64_t> shape, const void *data, size_t bytes) {
        memory.push_back(std::make_shared<Guarded>(bytes));
        memcpy(memory.back()->as(), data, bytes);
        roles.push_back(role);
        tensors.push_back(tensor(memory.back()->as(), dtype, std::move(shape)));
    }
    template <typename T>
    void add(int32_t role, int32_t dtype, std::vector<int64_t> shape, const std::vector<T> &data) {
        add(role, dtype, std::move(shape), data.data(), data.size() * sizeof(T));
    }
    l4j_weight_options options(int32_t mode) const {
        l4j_weight_options o = {};
        o.struct_size = sizeof o;
        o.scheme = scheme;
        o.mode = mode;
        o.rows = rows;
        o.cols = cols;
        o.part_count = static_cast<int32_t>(roles.size());
        o.part_roles = roles.data();
        o.part_values = tensors.data();
        return o;
    }
    l4j_tensor &of(int32_t role) {
        for (size_t i = 0; i < roles.size(); i++) {
            if (roles[i] == role) return tensors[i];
        }
        ADD_FAILURE() << "no part of role " << role;
        return tensors[0];
    }
};

class QuantWeight {
public:
    QuantWeight(const Context &context, const Parts &parts, int32_t mode, uint32_t flags = 0) {
        l4j_weight_options o = parts.options(mode);
        o.flags = flags;
        l4j_error error = {};
        if (l4j_weight_create(context.device(), context.queue(), &o, &handle_, &error) != L4J_OK)
            ADD_FAILURE() << error.message;
    }
    QuantWeight(const QuantWeight &) = delete;
    ~QuantWeight() { l4j_weight_destroy(handle_, nullptr); }
    const l4j_weight *get() const { return handle_; }

private:
    l4j_weight *handle_ = nullptr;
};

// How a device may hold a quantized weight: a GPU has a copy in any case.
inline std::vector<int32_t> modes(int32_t isa) {
    if (isa == L4J_ISA_CUDA) return {L4J_WEIGHT_PACK};
    return {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK};
}

// Rows [begin, begin + rows) as the library gives them.
inline Operand dequantized(const Context &context, int32_t isa, const l4j_weight *weight, int64_t begin, int64_t rows,
                           int64_t cols) {
    Operand out(isa, {rows, cols}, 3);
    l4j_dequantize args = {};
    args.struct_size = sizeof args;
    args.weight = weight;
    args.row_begin = begin;
    args.out = out.get();
    l4j_error error = {};
    if (L4J_RUN(dequantize_forward, context.queue(), &args)(&error) != L4J_OK) ADD_FAILURE() << error.message;
    return out;
}

// Every tier gives these values, however it holds the weight (a zero may have either sign; NaN is NaN).
inline void expect_decoded(const Parts &parts, const std::vector<float> &expected) {
    std::vector<int32_t> all = devices();
    all.push_back(L4J_ISA_REF64);
    for (int32_t isa : all) {
        SCOPED_TRACE(tier_name(isa));
        Context context(isa, 2);
        for (int32_t mode : modes(isa)) {
            QuantWeight weight(context, parts, mode, L4J_WEIGHT_ALLOW_NONFINITE);
            std::vector<float> got = dequantized(context, isa, weight.get(), 0, parts.rows, parts.cols).floats();
            ASSERT_EQ(expected.size(), got.size());
            for (size_t i = 0; i < got.size(); i++) {
                if (std::isnan(expected[i])) {
                    ASSERT_TRUE(std::isnan(got[i])) << "element " << i;
                } else {
                    ASSERT_EQ(expected[i], got[i]) << "element " << i;
                }
            }
        }
    }
}

// A weight of the scheme with random codes and ordinary scales. cols is rounded up to what the scheme needs. Of NF4 and FP4 an odd seed
// makes scales that are quantized too, and blocks have `block` values.
inline Parts random_parts(int32_t scheme, int64_t rows, int64_t cols, uint64_t seed, int64_t block = 64) {
    Random random(seed);
    Parts p;
    p.scheme = scheme;
    int64_t unit = scheme >= L4J_SCHEME_GGUF_Q2_K && scheme <= L4J_SCHEME_GGUF_Q6_K                        ? 256
                   : scheme > 256                                                                          ? 32
                   : scheme == L4J_SCHEME_GPTQ || scheme == L4J_SCHEME_GPTQ_V2 || scheme == L4J_SCHEME_AWQ ? 8
                                                                                                           : 1;
    cols = (cols + unit - 1) / unit * unit;
    if (scheme == L4J_SCHEME_AWQ) rows = (rows + 7) / 8 * 8;
    p.rows = rows;
    p.cols = cols;
    auto bytes = [&](int64_t n) {
        std::vector<uint8_t> v(static_cast<size_t>(n));
        for (uint8_t &b : v) b = static_cast<uint8_t>(random.bits() >> 40);
        return v;
    };
    auto halves = [&](int64_t n) {
        std::vector<uint16_t> v(static_cast<size_t>(n));
        for (uint16_t &h : v) h = to_f16(0.02f * random.uniform());
        return v;
    };
    int64_t count = rows * cols;
    if (scheme == L4J_SCHEME_NF4 || scheme == L4J_SCHEME_FP4) {
        int64_t blocks = (count + block - 1) / block;
        p.add(L4J_ROLE_VALUES, L4J_U8, {(count + 1) / 2, 1}, bytes((count + 1) / 2));
        p.add(L4J_ROLE_BLOCK_SIZE, L4J_I64, {1}, std::vector<int64_t>{block});
        if (seed % 2) {
            int64_t nested = (blocks + 255) / 256;
            p.add(L4J_ROLE_SCALES, L4J_U8, {blocks}, bytes(blocks));
            p.add(L4J_ROLE_NESTED_SCALES, L4J_F32, {nested}, random.floats(nested, 0.01f));
            p.add(L4J_ROLE_NESTED_QUANT_MAP, L4J_F32, {256}, random.floats(256));
            p.add(L4J_ROLE_NESTED_OFFSET, L4J_F32, {1}, std::vector<float>{0.03f});
            p.add(L4J_ROLE_NESTED_BLOCK_SIZE, L4J_I64, {1}, std::vector<int64_t>{256});
        } else {
            p.add(L4J_ROLE_SCALES, L4J_F32, {blocks}, random.floats(blocks, 0.05f));
        }
    } else if (scheme == L4J_SCHEME_LLM_INT8) {
        p.add(L4J_ROLE_VALUES, L4J_I8, {rows, cols}, bytes(count));
        p.add(L4J_ROLE_SCALES, L4J_F32, {rows}, random.floats(rows, 0.1f));
    } else if (scheme == L4J_SCHEME_INT8) {
        int64_t groups = cols % 4 == 0 ? 4 : 1;
        p.add(L4J_ROLE_VALUES, L4J_I8, {rows, cols}, bytes(count));
        p.add(L4J_ROLE_SCALES, L4J_BF16, {rows, groups},
              halves(rows * groups)); // fp16 patterns are small numbers as bf16 too
    } else if (scheme == L4J_SCHEME_GPTQ || scheme == L4J_SCHEME_GPTQ_V2) {
        int64_t groups = 4;
        p.add(L4J_ROLE_VALUES, L4J_I32, {cols / 8, rows}, bytes(count / 2));
        p.add(L4J_ROLE_ZEROS, L4J_I32, {groups, (rows + 7) / 8}, bytes(groups * ((rows + 7) / 8) * 4));
        p.add(L4J_ROLE_SCALES, L4J_F16, {groups, rows}, halves(groups * rows));
        std::vector<int32_t> index(static_cast<size_t>(cols));
        for (int32_t &g : index) g = static_cast<int32_t>(random.below(groups));
        if (seed % 2 || cols % groups) p.add(L4J_ROLE_GROUP_INDEX, L4J_I32, {cols}, index);
    } else if (scheme == L4J_SCHEME_AWQ) {
        int64_t groups = 4;
        p.add(L4J_ROLE_VALUES, L4J_I32, {cols, rows / 8}, bytes(count / 2));
        p.add(L4J_ROLE_ZEROS, L4J_I32, {groups, rows / 8}, bytes(groups * rows / 2));
        p.add(L4J_ROLE_SCALES, L4J_F16, {groups, rows}, halves(groups * rows));
    } else if (scheme == L4J_SCHEME_FP8_E4M3) {
        std::vector<uint8_t> codes = bytes(count);
        for (uint8_t &c : codes) c = (c & 0x7F) == 0x7F ? 0 : c;
        int64_t down = (rows + 127) / 128, across = (cols + 127) / 128;
        p.add(L4J_ROLE_VALUES, L4J_U8, {rows, cols}, codes);
        p.add(L4J_ROLE_SCALES, L4J_F32, {down, across}, random.floats(down * across, 0.01f));
    } else {
        static const std::map<int32_t, std::pair<int64_t, std::vector<int64_t>>> blocks = {
            {L4J_SCHEME_GGUF_Q4_0, {18, {0}}},     {L4J_SCHEME_GGUF_Q4_1, {20, {0, 2}}},
            {L4J_SCHEME_GGUF_Q5_0, {22, {0}}},     {L4J_SCHEME_GGUF_Q5_1, {24, {0, 2}}},
            {L4J_SCHEME_GGUF_Q8_0, {34, {0}}},     {L4J_SCHEME_GGUF_Q2_K, {84, {80, 82}}},
            {L4J_SCHEME_GGUF_Q3_K, {110, {108}}},  {L4J_SCHEME_GGUF_Q4_K, {144, {0, 2}}},
            {L4J_SCHEME_GGUF_Q5_K, {176, {0, 2}}}, {L4J_SCHEME_GGUF_Q6_K, {210, {208}}},
            {L4J_SCHEME_GGUF_IQ4_NL, {18, {0}}},   {L4J_SCHEME_GGUF_MXFP4, {17, {}}}};
        auto &block = blocks.at(scheme);
        int64_t n = count / unit;
        std::vector<uint8_t> codes = bytes(n * block.first);
        for (int64_t i = 0; i < n; i++) {
            uint8_t *at = codes.data() + i * block.first;
            for (int64_t offset : block.second) {
                uint16_t h = to_f16((unit == 256 ? 5e-4f : 0.02f) * random.uniform());
                memcpy(at + offset, &h, 2);
            }
            if (scheme == L4J_SCHEME_GGUF_MXFP4) at[0] = static_cast<uint8_t>(118 + random.below(4));
        }
        p.add(L4J_ROLE_VALUES, L4J_U8, {rows, cols / unit * block.first}, codes);
    }
    return p;
}

} // namespace l4j
