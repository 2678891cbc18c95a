// Families dequantize and quantize: n, k (default 4096 each), weight (a format), layout (of dequantize: rows, packed).
#include "quantized.h"

#include <cstring>
#include <map>
#include <stdexcept>

namespace {

struct Format {
    int32_t scheme;
    int64_t values, bytes;       // of a GGUF block
    std::vector<int64_t> halves; // where fp16 scales lie in it
};

const std::map<std::string, Format> &formats() {
    static const std::map<std::string, Format> all = {{"nf4", {L4J_SCHEME_NF4, 0, 0, {}}},
                                                      {"fp4", {L4J_SCHEME_FP4, 0, 0, {}}},
                                                      {"llm_int8", {L4J_SCHEME_LLM_INT8, 0, 0, {}}},
                                                      {"int8", {L4J_SCHEME_INT8, 0, 0, {}}},
                                                      {"gptq", {L4J_SCHEME_GPTQ, 0, 0, {}}},
                                                      {"awq", {L4J_SCHEME_AWQ, 0, 0, {}}},
                                                      {"fp8", {L4J_SCHEME_FP8_E4M3, 0, 0, {}}},
                                                      {"q4_0", {L4J_SCHEME_GGUF_Q4_0, 32, 18, {0}}},
                                                      {"q4_1", {L4J_SCHEME_GGUF_Q4_1, 32, 20, {0, 2}}},
                                                      {"q5_0", {L4J_SCHEME_GGUF_Q5_0, 32, 22, {0}}},
                                                      {"q5_1", {L4J_SCHEME_GGUF_Q5_1, 32, 24, {0, 2}}},
                                                      {"q8_0", {L4J_SCHEME_GGUF_Q8_0, 32, 34, {0}}},
                                                      {"q2_k", {L4J_SCHEME_GGUF_Q2_K, 256, 84, {80, 82}}},
                                                      {"q3_k", {L4J_SCHEME_GGUF_Q3_K, 256, 110, {108}}},
                                                      {"q4_k", {L4J_SCHEME_GGUF_Q4_K, 256, 144, {0, 2}}},
                                                      {"q5_k", {L4J_SCHEME_GGUF_Q5_K, 256, 176, {0, 2}}},
                                                      {"q6_k", {L4J_SCHEME_GGUF_Q6_K, 256, 210, {208}}},
                                                      {"iq4_nl", {L4J_SCHEME_GGUF_IQ4_NL, 32, 18, {0}}},
                                                      {"mxfp4", {L4J_SCHEME_GGUF_MXFP4, 32, 17, {}}}};
    return all;
}

const Format &format_of(int32_t scheme) {
    for (auto &f : formats()) {
        if (f.second.scheme == scheme) return f.second;
    }
    throw std::invalid_argument("no such scheme");
}

void *add(QuantizedParts *parts, int32_t role, int32_t dtype, const std::vector<int64_t> &shape) {
    static const std::map<int32_t, int64_t> sizes = {{L4J_F32, 4}, {L4J_F16, 2}, {L4J_I64, 8},
                                                     {L4J_I32, 4}, {L4J_U8, 1},  {L4J_I8, 1}};
    l4j_tensor t = {};
    t.dtype = dtype;
    t.device_type = L4J_DEVICE_CPU;
    t.ndim = static_cast<int32_t>(shape.size());
    int64_t n = 1;
    for (size_t i = shape.size(); i-- > 0; n *= shape[i]) t.shape[i] = shape[i], t.stride[i] = n;
    n *= sizes.at(dtype);
    parts->memory.emplace_back(aligned_alloc(64, static_cast<size_t>(n + 127) / 64 * 64), free);
    parts->bytes += static_cast<double>(n);
    auto *bytes = static_cast<uint8_t *>(parts->memory.back().get());
    uint32_t u = 1;
    for (int64_t i = 0; i < n; i++) {
        u = u * 1664525u + 1013904223u;
        bytes[i] = static_cast<uint8_t>(u >> 24);
    }
    t.data = bytes;
    parts->roles.push_back(role);
    parts->values.push_back(t);
    return bytes;
}

void fill_scales(void *data, int32_t dtype, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (dtype == L4J_F32) static_cast<float *>(data)[i] = 0.01f;
        if (dtype == L4J_F16) static_cast<uint16_t *>(data)[i] = static_cast<uint16_t>(0x2000 + i % 512); // about 2^-7
    }
}

} // namespace

int32_t scheme_of(const std::string &name) {
    auto found = formats().find(name);
    return found == formats().end() ? 0 : found->second.scheme;
}

QuantizedParts random_parts(int32_t scheme, int64_t rows, int64_t cols) {
    const int64_t kGroup = 128, kBlock = 64; // columns of an int4 or int8 group, values of a bitsandbytes block
    QuantizedParts p;
    p.scheme = scheme;
    int64_t groups = cols / kGroup;
    auto scales = [&](int32_t dtype, const std::vector<int64_t> &shape) {
        int64_t n = shape[0] * (shape.size() > 1 ? shape[1] : 1);
        fill_scales(add(&p, L4J_ROLE_SCALES, dtype, shape), dtype, n);
    };
    if (scheme == L4J_SCHEME_NF4 || scheme == L4J_SCHEME_FP4) {
        add(&p, L4J_ROLE_VALUES, L4J_U8, {(rows * cols + 1) / 2, 1});
        *static_cast<int64_t *>(add(&p, L4J_ROLE_BLOCK_SIZE, L4J_I64, {1})) = kBlock;
        scales(L4J_F32, {(rows * cols + kBlock - 1) / kBlock});
    } else if (scheme == L4J_SCHEME_LLM_INT8) {
        add(&p, L4J_ROLE_VALUES, L4J_I8, {rows, cols});
        scales(L4J_F32, {rows});
    } else if (scheme == L4J_SCHEME_INT8) {
        add(&p, L4J_ROLE_VALUES, L4J_I8, {rows, cols});
        scales(L4J_F16, {rows, groups});
    } else if (scheme == L4J_SCHEME_GPTQ) {
        add(&p, L4J_ROLE_VALUES, L4J_I32, {cols / 8, rows});
        add(&p, L4J_ROLE_ZEROS, L4J_I32, {groups, rows / 8});
        scales(L4J_F16, {groups, rows});
    } else if (scheme == L4J_SCHEME_AWQ) {
        add(&p, L4J_ROLE_VALUES, L4J_I32, {cols, rows / 8});
        add(&p, L4J_ROLE_ZEROS, L4J_I32, {groups, rows / 8});
        scales(L4J_F16, {groups, rows});
    } else if (scheme == L4J_SCHEME_FP8_E4M3) {
        auto *codes = static_cast<uint8_t *>(add(&p, L4J_ROLE_VALUES, L4J_U8, {rows, cols}));
        for (int64_t i = 0; i < rows * cols; i++) codes[i] &= 0xBF; // no NaN
        scales(L4J_F32, {(rows + 127) / 128, (cols + 127) / 128});
    } else {
        const Format &f = format_of(scheme);
        int64_t blocks = rows * cols / f.values;
        auto *codes = static_cast<uint8_t *>(add(&p, L4J_ROLE_VALUES, L4J_U8, {rows, cols / f.values * f.bytes}));
        for (int64_t i = 0; i < blocks; i++) {
            for (int64_t at : f.halves) fill_scales(codes + i * f.bytes + at, L4J_F16, 1);
            if (scheme == L4J_SCHEME_GGUF_MXFP4) codes[i * f.bytes] = 120;
        }
    }
    return p;
}

Work make_dequantize(const Spec &spec) {
    struct Call {
        Operands make;
        WeightHandle weight;
        l4j_dequantize args = {};
    };
    int64_t N = spec.number("n", 4096), K = spec.number("k", 4096);
    auto call = std::make_shared<Call>();
    call->weight = random_weight(spec, N, K);
    call->args.struct_size = sizeof call->args;
    call->args.weight = call->weight.get();
    call->args.out = call->make({N, K});
    auto run = OPERATION(dequantize_forward, queue(threads_of(spec)), call->args);
    Work work;
    work.run = [run, call] { run(); };
    work.values = static_cast<double>(N * K);
    return work;
}

Work make_quantize(const Spec &spec) {
    struct Call {
        Operands make;
        QuantizedParts parts;
        l4j_quantize args = {};
    };
    int64_t N = spec.number("n", 4096), K = spec.number("k", 4096);
    auto call = std::make_shared<Call>();
    call->parts = random_parts(scheme_of(spec.word("weight")), N, K);
    call->args.struct_size = sizeof call->args;
    call->args.scheme = call->parts.scheme;
    call->args.part_count = static_cast<int32_t>(call->parts.roles.size());
    call->args.part_roles = call->parts.roles.data();
    call->args.part_values = call->parts.values.data();
    call->args.x = call->make({N, K});
    auto run = OPERATION(quantize_forward, queue(threads_of(spec)), call->args);
    Work work;
    work.run = [run, call] { run(); };
    work.values = static_cast<double>(N * K);
    return work;
}
