// The same products by ggml, the kernels of llama.cpp. Family gemm, who=ggml: m, k, n; weight (f32, or a GGUF format), copies; repack=1
// stores the weight as ggml does for its fastest kernels where it has such. LORA4J_GGML names the folder of its shared libraries.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

#include "quantized.h"

namespace {

// What ggml.h, ggml-backend.h and ggml-cpu.h declare, as far as it is needed. Structs have room for fields that are newer.
struct Init {
    size_t size;
    void *memory;
    bool no_alloc;
};
struct Plan {
    size_t work_size;
    uint8_t *work;
    int threads;
    void *pool, *rest[8];
};
struct PoolOptions {
    bool cpus[512];
    int threads;
    int rest[16];
};

template <typename F> F *symbol(const char *library, const char *name) {
    const char *folder = getenv("LORA4J_GGML");
    if (!folder) throw std::invalid_argument("who=ggml: LORA4J_GGML is not set, expected the folder of libggml.so");
    void *handle = dlopen((std::string(folder) + "/" + library).c_str(), RTLD_NOW | RTLD_GLOBAL);
    void *found = handle ? dlsym(handle, name) : nullptr;
    if (!found) throw std::runtime_error(std::string("who=ggml: ") + dlerror());
    F *function;
    memcpy(&function, &found, sizeof found);
    return function;
}
#define BASE(type, name) auto *name = symbol<type>("libggml-base.so", #name)
#define CPU(type, name) auto *name = symbol<type>("libggml-cpu.so", #name)

void *repack_buffer_type() {
    CPU(void *(), ggml_backend_cpu_reg);
    BASE(void *(void *, size_t), ggml_backend_reg_dev_get);
    BASE(void *(void *, const char *), ggml_backend_reg_get_proc_address);
    BASE(const char *(void *), ggml_backend_buft_name);
    void *registry = ggml_backend_cpu_reg();
    auto extra = reinterpret_cast<void **(*)(void *)>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts"));
    for (void **types = extra ? extra(ggml_backend_reg_dev_get(registry, 0)) : nullptr; types && *types; types++) {
        if (strcmp(ggml_backend_buft_name(*types), "CPU_REPACK") == 0) return *types;
    }
    throw std::runtime_error("who=ggml/repack=1: this ggml has no CPU_REPACK buffers");
}

} // namespace

Work make_ggml(const Spec &spec) {
    BASE(void *(Init), ggml_init);
    BASE(void *(void *, int, int64_t, int64_t), ggml_new_tensor_2d);
    BASE(void *(void *, void *, void *), ggml_mul_mat);
    BASE(void *(void *), ggml_new_graph);
    BASE(void(void *, void *), ggml_build_forward_expand);
    BASE(void *(const void *), ggml_get_data);
    BASE(PoolOptions(int), ggml_threadpool_params_default);
    BASE(void *(void *, size_t), ggml_backend_buft_alloc_buffer);
    BASE(size_t(void *, const void *), ggml_backend_buft_get_alloc_size);
    BASE(void *(void *), ggml_backend_buffer_get_base);
    BASE(int(void *, void *, void *), ggml_backend_tensor_alloc);
    BASE(void(void *, const void *, size_t, size_t), ggml_backend_tensor_set);
    BASE(size_t(const void *), ggml_nbytes);
    CPU(void(), ggml_cpu_init);
    CPU(void *(PoolOptions *), ggml_threadpool_new);
    CPU(Plan(const void *, int, void *), ggml_graph_plan);
    CPU(int(void *, Plan *), ggml_graph_compute);

    if (spec.word("op") != "nt") throw std::invalid_argument(spec.text() + ": ggml has op=nt alone");
    int64_t M = spec.number("m"), K = spec.number("k"), N = spec.number("n"), copies = copies_of(spec);
    std::string name = spec.word("weight", "f32");
    int32_t scheme = scheme_of(name);
    if (name != "f32" && scheme <= 256) throw std::invalid_argument(spec.text() + ": weight is f32 or a GGUF format");
    bool repack = spec.number("repack", 0) != 0;
    ggml_cpu_init();
    size_t activations = static_cast<size_t>(4 * M * (K + N * copies)), room = size_t{64} << 20;
    void *context = ggml_init({activations + room, nullptr, false}), *outside = ggml_init({room, nullptr, true});
    void *x = ggml_new_tensor_2d(context, 0, K, M);
    auto values = random_values(L4J_F32, M * K);
    memcpy(ggml_get_data(x), values.get(), static_cast<size_t>(4 * M * K));
    static std::map<int, void *> pools;
    int threads = threads_of(spec);
    if (!pools[threads]) {
        PoolOptions options = ggml_threadpool_params_default(threads);
        pools[threads] = ggml_threadpool_new(&options);
    }
    auto memory = std::make_shared<std::vector<std::shared_ptr<void>>>();
    std::vector<std::pair<void *, Plan>> runs;
    for (int64_t c = 0; c < copies; c++) {
        QuantizedParts parts;
        std::shared_ptr<void> dense;
        if (scheme) parts = random_parts(scheme, N, K);
        if (!scheme) dense = random_values(L4J_F32, N * K);
        void *data = scheme ? parts.memory[0].get() : dense.get();
        void *w = ggml_new_tensor_2d(outside, scheme ? scheme - 256 : 0, K, N);
        size_t bytes = ggml_nbytes(w);
        BASE(void *(), ggml_backend_cpu_buffer_type);
        void *type = repack ? repack_buffer_type() : ggml_backend_cpu_buffer_type();
        void *buffer = ggml_backend_buft_alloc_buffer(type, ggml_backend_buft_get_alloc_size(type, w));
        ggml_backend_tensor_alloc(buffer, w, ggml_backend_buffer_get_base(buffer));
        ggml_backend_tensor_set(w, data, 0, bytes);
        void *graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, ggml_mul_mat(context, w, x));
        Plan plan = ggml_graph_plan(graph, threads, pools[threads]);
        memory->emplace_back(aligned_alloc(64, (plan.work_size + 128) / 64 * 64), free);
        plan.work = static_cast<uint8_t *>(memory->back().get());
        runs.emplace_back(graph, plan);
    }
    Work work;
    double weight = static_cast<double>(scheme ? random_parts(scheme, 1, K).bytes : 4.0 * static_cast<double>(K));
    work.flops = 2.0 * static_cast<double>(M) * static_cast<double>(K * N);
    if (reads_weights(M)) work.bytes = weight * static_cast<double>(N);
    work.run = [=, next = size_t{0}]() mutable {
        if (ggml_graph_compute(runs[next].first, &runs[next].second) != 0) throw std::runtime_error("ggml failed");
        next = (next + 1) % runs.size();
        (void)memory;
    };
    return work;
}
