// Quantized weights on a GPU: microseconds of dequantize, of the product and of its transpose, by graph replay, with operands rotated so that
// no call finds its own in the cache; beside the floor of the weight's bytes at the bandwidth of a copy. One JSON object for each line.
//   gpu_quant [--only NAME] [--rows M] [K N]...     default 4096 14336 and 4096 4096; NAME is a part of formats' names.
// Needs liblora4j_cuda.so beside liblora4j.so or in LORA4J_CUDA_LIBRARY.
#include "gpu_bench.h"

#include <functional>
#include <string>
#include <utility>

namespace {

uint64_t state = 1;
uint64_t random_bits() {
    state += 0x9E3779B97F4A7C15ull;
    uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
std::vector<uint8_t> random_bytes(int64_t n) {
    std::vector<uint8_t> v(static_cast<size_t>(n + 7));
    for (size_t i = 0; i + 8 <= v.size(); i += 8) {
        uint64_t bits = random_bits();
        memcpy(&v[i], &bits, 8);
    }
    v.resize(static_cast<size_t>(n));
    return v;
}
std::vector<float> random_floats(int64_t n, float scale) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float &x : v) x = scale * static_cast<float>(static_cast<int64_t>(random_bits() >> 40) - (1 << 23)) * 0x1p-23f;
    return v;
}
// An fp16 number between 2^-11 and 2^-10.
uint16_t small_half() { return static_cast<uint16_t>(0x1000 | (random_bits() & 0x3FF)); }

// BF16 values; the same four million over and over.
void *bf16_values(int64_t n) {
    static const std::vector<uint16_t> some = [] {
        std::vector<uint16_t> halves;
        for (float x : random_floats(1 << 22, 1)) halves.push_back(bf16(x));
        return halves;
    }();
    char *memory;
    must(l4j_memory_allocate(device, static_cast<size_t>(n) * 2, reinterpret_cast<void **>(&memory), &failure));
    for (int64_t at = 0; at < n; at += 1 << 22) {
        size_t bytes = 2 * static_cast<size_t>(std::min<int64_t>(n - at, 1 << 22));
        must(l4j_memory_copy(queue, memory + at * 2, some.data(), bytes, &failure));
    }
    must(l4j_queue_synchronize(queue, &failure));
    return memory;
}
l4j_tensor tensor(void *data, int32_t dtype, int32_t where, int64_t rows, int64_t cols) {
    l4j_tensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.device_type = where;
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = cols;
    t.stride[0] = cols;
    t.stride[1] = 1;
    return t;
}

// ---- weights ----

struct Format {
    const char *name;
    int32_t scheme;
    int64_t values, bytes;   // of a block of GGUF
    std::vector<int> halves; // where a block has an fp16
};
const Format formats[] = {{"dense BF16", L4J_SCHEME_DENSE, 0, 0, {}},
                          {"NF4, double quantization", L4J_SCHEME_NF4, 0, 0, {}},
                          {"FP4", L4J_SCHEME_FP4, 0, 0, {}},
                          {"INT8", L4J_SCHEME_INT8, 0, 0, {}},
                          {"LLM_INT8", L4J_SCHEME_LLM_INT8, 0, 0, {}},
                          {"GPTQ, groups of 128", L4J_SCHEME_GPTQ_V2, 0, 0, {}},
                          {"GGUF_Q8_0", L4J_SCHEME_GGUF_Q8_0, 32, 34, {0}},
                          {"GGUF_Q4_K", L4J_SCHEME_GGUF_Q4_K, 256, 144, {0, 2}},
                          {"GGUF_Q6_K", L4J_SCHEME_GGUF_Q6_K, 256, 210, {208}},
                          {"GGUF_Q4_0", L4J_SCHEME_GGUF_Q4_0, 32, 18, {0}},
                          {"GGUF_Q4_1", L4J_SCHEME_GGUF_Q4_1, 32, 20, {0, 2}},
                          {"GGUF_Q5_0", L4J_SCHEME_GGUF_Q5_0, 32, 22, {0}},
                          {"GGUF_Q5_1", L4J_SCHEME_GGUF_Q5_1, 32, 24, {0, 2}},
                          {"GGUF_Q2_K", L4J_SCHEME_GGUF_Q2_K, 256, 84, {80, 82}},
                          {"GGUF_Q3_K", L4J_SCHEME_GGUF_Q3_K, 256, 110, {108}},
                          {"GGUF_Q5_K", L4J_SCHEME_GGUF_Q5_K, 256, 176, {0, 2}},
                          {"GGUF_IQ4_NL", L4J_SCHEME_GGUF_IQ4_NL, 32, 18, {0}},
                          {"GGUF_MXFP4", L4J_SCHEME_GGUF_MXFP4, 32, 17, {}},
                          {"FP8_E4M3", L4J_SCHEME_FP8_E4M3, 0, 0, {}}};

struct PartList {
    std::vector<int32_t> roles;
    std::vector<l4j_tensor> tensors;
    std::vector<std::vector<uint8_t>> memory;
    int64_t bytes = 0; // of the large ones

    template <class T> void add(int32_t role, int32_t dtype, int64_t rows, int64_t cols, const std::vector<T> &data) {
        const uint8_t *begin = reinterpret_cast<const uint8_t *>(data.data());
        memory.emplace_back(begin, begin + data.size() * sizeof(T));
        roles.push_back(role);
        tensors.push_back(tensor(memory.back().data(), dtype, L4J_DEVICE_CPU, rows, cols));
        if (cols == 1) tensors.back().ndim = 1;
        bytes += static_cast<int64_t>(memory.back().size());
    }
};
PartList parts_of(const Format &format, int64_t N, int64_t K) {
    PartList p;
    int64_t count = N * K;
    switch (format.scheme) {
    case L4J_SCHEME_NF4:
    case L4J_SCHEME_FP4:
        p.add(L4J_ROLE_VALUES, L4J_U8, count / 2, 1, random_bytes(count / 2));
        p.add(L4J_ROLE_SCALES, L4J_U8, count / 64, 1, random_bytes(count / 64));
        p.add(L4J_ROLE_NESTED_SCALES, L4J_F32, (count / 64 + 255) / 256, 1,
              random_floats((count / 64 + 255) / 256, 0.01f));
        p.add(L4J_ROLE_NESTED_QUANT_MAP, L4J_F32, 256, 1, random_floats(256, 1));
        p.add(L4J_ROLE_NESTED_OFFSET, L4J_F32, 1, 1, std::vector<float>{0.03f});
        p.add(L4J_ROLE_BLOCK_SIZE, L4J_I64, 1, 1, std::vector<int64_t>{64});
        p.add(L4J_ROLE_NESTED_BLOCK_SIZE, L4J_I64, 1, 1, std::vector<int64_t>{256});
        return p;
    case L4J_SCHEME_INT8:
    case L4J_SCHEME_LLM_INT8:
        p.add(L4J_ROLE_VALUES, L4J_I8, N, K, random_bytes(count));
        p.add(L4J_ROLE_SCALES, L4J_F32, N, 1, random_floats(N, 0.01f));
        return p;
    case L4J_SCHEME_FP8_E4M3: {
        std::vector<uint8_t> codes = random_bytes(count);
        for (uint8_t &c : codes) c &= 0xBF; // no NaN
        p.add(L4J_ROLE_VALUES, L4J_U8, N, K, codes);
        p.add(L4J_ROLE_SCALES, L4J_F32, N, 1, random_floats(N, 0.01f));
        return p;
    }
    case L4J_SCHEME_GPTQ_V2: {
        int64_t groups = K / 128;
        std::vector<uint16_t> scales(static_cast<size_t>(groups * N));
        for (uint16_t &h : scales) h = small_half();
        p.add(L4J_ROLE_VALUES, L4J_I32, K / 8, N, random_bytes(count / 2));
        p.add(L4J_ROLE_ZEROS, L4J_I32, groups, N / 8, random_bytes(groups * N / 2));
        p.add(L4J_ROLE_SCALES, L4J_F16, groups, N, scales);
        return p;
    }
    case L4J_SCHEME_DENSE: {
        std::vector<uint16_t> values(static_cast<size_t>(count));
        for (uint16_t &v : values) v = static_cast<uint16_t>(0x3C00 | (random_bits() & 0x81FF)); // ± 2^-7 to 2^-3
        p.add(L4J_ROLE_VALUES, L4J_BF16, N, K, values);
        return p;
    }
    default: {
        std::vector<uint8_t> blocks = random_bytes(count / format.values * format.bytes);
        for (int64_t i = 0; i < count / format.values; i++) {
            for (int at : format.halves) {
                uint16_t h = small_half();
                memcpy(&blocks[static_cast<size_t>(i * format.bytes + at)], &h, 2);
            }
            if (format.scheme == L4J_SCHEME_GGUF_MXFP4) blocks[static_cast<size_t>(i * format.bytes)] = 120; // 2^-7
        }
        p.add(L4J_ROLE_VALUES, L4J_U8, N, K / format.values * format.bytes, blocks);
        return p;
    }
    }
}
l4j_weight *weight_of(const Format &format, const PartList &p, int64_t N, int64_t K) {
    l4j_weight_options options = {};
    options.struct_size = sizeof options;
    options.scheme = format.scheme;
    options.mode = L4J_WEIGHT_PACK;
    options.rows = N;
    options.cols = K;
    options.part_count = static_cast<int32_t>(p.roles.size());
    options.part_roles = p.roles.data();
    options.part_values = p.tensors.data();
    l4j_weight *weight;
    must(l4j_weight_create(device, queue, &options, &weight, &failure));
    return weight;
}

// ---- times ----

// Median microseconds of one of `count` calls, recorded one after another.
double time(int count, const std::function<void(int)> &call) {
    return microseconds(
        [&] {
            for (int i = 0; i < count; i++) call(i);
        },
        static_cast<size_t>(count));
}

constexpr int kSets = 6; // of operands
std::vector<int64_t> row_counts = {1, 4, 16, 64, 512, 2048};

// Terabytes a second, read and written.
double copy_bandwidth() {
    const size_t bytes = size_t(256) << 20;
    void *memory[4];
    for (void *&m : memory) must(l4j_memory_allocate(device, bytes, &m, &failure));
    for (void *m : memory) must(l4j_memory_fill(queue, m, 0x5A, bytes, &failure));
    double us = time(4, [&](int i) { must(l4j_memory_copy(queue, memory[i], memory[(i + 1) % 4], bytes, &failure)); });
    for (void *m : memory) must(l4j_memory_free(device, m, &failure));
    return 2.0 * static_cast<double>(bytes) / us * 1e-6;
}

void products(const char *name, std::vector<l4j_weight *> &weights, int64_t N, int64_t K, double floor_us) {
    for (int64_t M : row_counts) {
        std::vector<void *> x(kSets), dx(kSets), y(kSets);
        for (void *&m : x) m = bf16_values(M * K);
        for (void *&m : dx) must(l4j_memory_allocate(device, static_cast<size_t>(M * K) * 2, &m, &failure));
        for (void *&m : y) m = bf16_values(M * N);
        double us[2];
        for (int backward = 0; backward < 2; backward++) {
            auto args_of = [&](int i, l4j_tensor *tx, l4j_tensor *tdx, l4j_tensor *ty) {
                *tx = tensor(x[static_cast<size_t>(i)], L4J_BF16, L4J_DEVICE_CUDA, M, K);
                *tdx = tensor(dx[static_cast<size_t>(i)], L4J_BF16, L4J_DEVICE_CUDA, M, K);
                *ty = tensor(y[static_cast<size_t>(i)], L4J_BF16, L4J_DEVICE_CUDA, M, N);
                l4j_lora args = {};
                args.struct_size = sizeof args;
                args.projection_count = 1;
                args.weights = &weights[static_cast<size_t>(i)];
                args.x = tx;
                if (backward) {
                    args.dy = ty;
                    args.dx = tdx;
                } else {
                    args.y = ty;
                }
                return args;
            };
            l4j_tensor tx, tdx, ty;
            l4j_lora args = args_of(0, &tx, &tdx, &ty);
            size_t bytes = 0;
            must(backward ? l4j_lora_backward_workspace(queue, &args, &bytes, &failure)
                          : l4j_lora_forward_workspace(queue, &args, &bytes, &failure));
            void *workspace;
            must(l4j_memory_allocate(device, bytes, &workspace, &failure));
            us[backward] = time(kSets, [&](int i) {
                l4j_lora call = args_of(i, &tx, &tdx, &ty);
                must(backward ? l4j_lora_backward(queue, &call, workspace, bytes, &failure)
                              : l4j_lora_forward(queue, &call, workspace, bytes, &failure));
            });
            must(l4j_memory_free(device, workspace, &failure));
        }
        for (void *m : x) must(l4j_memory_free(device, m, &failure));
        for (void *m : dx) must(l4j_memory_free(device, m, &failure));
        for (void *m : y) must(l4j_memory_free(device, m, &failure));
        printf("{\"format\": \"%s\", \"K\": %lld, \"N\": %lld, \"M\": %lld, \"forward_us\": %.1f, \"dx_us\": %.1f, "
               "\"forward_of_floor\": %.2f, \"dx_of_floor\": %.2f}\n",
               name, static_cast<long long>(K), static_cast<long long>(N), static_cast<long long>(M), us[0], us[1],
               us[0] / floor_us, us[1] / floor_us);
        fflush(stdout);
    }
}

void format(const Format &f, int64_t N, int64_t K, double bandwidth) {
    PartList parts = parts_of(f, N, K);
    std::vector<l4j_weight *> weights;
    for (int i = 0; i < kSets; i++) weights.push_back(weight_of(f, parts, N, K));
    std::vector<void *> out(kSets);
    for (void *&m : out) must(l4j_memory_allocate(device, static_cast<size_t>(N * K) * 2, &m, &failure));
    double floor = static_cast<double>(parts.bytes) / bandwidth * 1e-6;
    double us = time(kSets, [&](int i) {
        l4j_tensor to = tensor(out[static_cast<size_t>(i)], L4J_BF16, L4J_DEVICE_CUDA, N, K);
        l4j_dequantize args = {};
        args.struct_size = sizeof args;
        args.weight = weights[static_cast<size_t>(i)];
        args.out = &to;
        must(l4j_dequantize_forward(queue, &args, nullptr, 0, &failure));
    });
    for (void *m : out) must(l4j_memory_free(device, m, &failure));
    double moved = static_cast<double>(parts.bytes + N * K * 2);
    printf("{\"format\": \"%s\", \"K\": %lld, \"N\": %lld, \"weight_floor_us\": %.1f, \"dequantize_us\": %.1f, "
           "\"dequantize_tb_s\": %.2f, \"dequantize_of_copy\": %.3f}\n",
           f.name, static_cast<long long>(K), static_cast<long long>(N), floor, us, moved / us * 1e-6,
           moved / us * 1e-6 / bandwidth);
    fflush(stdout);
    products(f.name, weights, N, K, floor);
    for (l4j_weight *w : weights) must(l4j_weight_destroy(w, &failure));
}

} // namespace

int main(int argc, char **argv) {
    open_gpu(1, argv);
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    must(l4j_device_query(device, &info, &failure));
    double bandwidth = copy_bandwidth();
    printf("{\"gpu\": \"%s\", \"copy_tb_s\": %.2f}\n", info.cpu_name, bandwidth);
    std::vector<std::pair<int64_t, int64_t>> shapes;
    std::string only;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0) {
            only = argv[i + 1];
        } else if (strcmp(argv[i], "--rows") == 0) {
            row_counts = {atoll(argv[i + 1])};
        } else {
            shapes.push_back({atoll(argv[i]), atoll(argv[i + 1])});
        }
    }
    if (shapes.empty()) shapes = {{4096, 14336}, {4096, 4096}};
    for (auto [K, N] : shapes) {
        for (const Format &f : formats) {
            if (strstr(f.name, only.c_str())) format(f, N, K, bandwidth);
        }
    }
}
