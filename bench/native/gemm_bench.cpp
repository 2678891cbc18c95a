// The products of a training step through lora_forward and lora_backward: time, GFLOP/s, share of the measured FMA peak, and
// OpenBLAS on the same product where libopenblas.so.0 is installed.
//   gemm_bench [--benchmark_filter=...]      environment: THREADS (default 2)
// With one thread a figure is the median of its iterations in processor time, with several the fastest in wall-clock time: on a
// shared machine these are disturbed least.
#include <benchmark/benchmark.h>
#include <dlfcn.h>
#include <immintrin.h>
#include <lora4j/lora4j.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

namespace {

int thread_count() {
    const char *text = getenv("THREADS");
    return text ? atoi(text) : 2;
}

// Seconds of this thread where it is the only one, otherwise those that pass.
double now() {
    timespec t;
    clock_gettime(thread_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// ---- peak: independent chains of fused multiply-adds ----

__attribute__((target("avx2,fma"))) double peak_avx2(int64_t steps) {
    __m256 acc[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (__m256 &a : acc) a = y;
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    }
    for (__m256 &a : acc) benchmark::DoNotOptimize(a);
    return 12.0 * 16 * static_cast<double>(steps);
}

__attribute__((target("avx512f"))) double peak_avx512(int64_t steps) {
    __m512 acc[24], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (__m512 &a : acc) a = y;
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; j++) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
    }
    for (__m512 &a : acc) benchmark::DoNotOptimize(a);
    return 24.0 * 32 * static_cast<double>(steps);
}

double typical(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    return thread_count() == 1 ? times[times.size() / 2] : times[0];
}

// FLOP/s of all threads together.
double measure_peak(double (*loop)(int64_t)) {
    std::vector<double> times;
    for (int attempt = 0; attempt < 100; attempt++) {
        std::vector<std::thread> threads;
        std::vector<double> seconds(static_cast<size_t>(thread_count()));
        for (double &r : seconds) {
            threads.emplace_back([&r, loop] {
                double start = now(), flops = loop(500'000);
                r = (now() - start) / flops;
            });
        }
        for (std::thread &t : threads) t.join();
        times.push_back(*std::max_element(seconds.begin(), seconds.end()));
    }
    return thread_count() / typical(times);
}

double peak(int32_t isa) {
    static double avx2 = measure_peak(peak_avx2);
    if (isa != L4J_ISA_AVX512) return avx2;
    static double avx512 = measure_peak(peak_avx512);
    return avx512;
}

// ---- operands ----

void must(l4j_status status, const l4j_error &error) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s\n", error.message);
    exit(1);
}

std::vector<float> values(int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    uint32_t state = 1;
    for (float &x : v) {
        state = state * 1664525u + 1013904223u;
        x = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    }
    return v;
}

l4j_tensor matrix(std::vector<float> &data, int64_t rows, int64_t cols) {
    l4j_tensor t = {};
    t.data = data.data();
    t.dtype = L4J_F32;
    t.device_type = L4J_DEVICE_CPU;
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = t.stride[0] = cols;
    t.stride[1] = 1;
    return t;
}

struct Queue {
    Queue(int32_t isa) {
        l4j_device_options d = {};
        d.struct_size = sizeof d;
        d.device_type = L4J_DEVICE_CPU;
        d.max_isa = isa;
        l4j_queue_options q = {};
        q.struct_size = sizeof q;
        q.threads = thread_count();
        l4j_error error = {};
        must(l4j_device_open(&d, &device, &error), error);
        must(l4j_queue_create(device, &q, &queue, &error), error);
    }
    ~Queue() {
        l4j_queue_destroy(queue, nullptr);
        l4j_device_close(device, nullptr);
    }
    l4j_device *device = nullptr;
    l4j_queue *queue = nullptr;
};

struct Weight {
    Weight(const Queue &q, std::vector<float> &data, int64_t rows, int64_t cols, int32_t dtype, int32_t mode) {
        l4j_tensor t = matrix(data, rows, cols);
        if (dtype == L4J_BF16) {
            for (float x : data) {
                uint32_t u;
                memcpy(&u, &x, 4);
                half.push_back(static_cast<uint16_t>(u >> 16));
            }
            t.data = half.data();
            t.dtype = L4J_BF16;
        }
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options o = {};
        o.struct_size = sizeof o;
        o.scheme = L4J_SCHEME_DENSE;
        o.mode = mode;
        o.rows = rows;
        o.cols = cols;
        o.part_count = 1;
        o.part_roles = &role;
        o.part_values = &t;
        l4j_error error = {};
        must(l4j_weight_create(q.device, q.queue, &o, &handle, &error), error);
    }
    ~Weight() { l4j_weight_destroy(handle, nullptr); }
    std::vector<uint16_t> half;
    l4j_weight *handle = nullptr;
};

struct Workspace {
    explicit Workspace(size_t bytes) : size(bytes), data(aligned_alloc(64, (bytes + 63) / 64 * 64 + 64)) {}
    ~Workspace() { free(data); }
    size_t size;
    void *data;
};

template <typename Run> void measure(benchmark::State &state, double flops, double peak_rate, Run run) {
    run();
    std::vector<double> times;
    for (auto _ : state) {
        double start = now();
        run();
        times.push_back(now() - start);
    }
    double time = typical(times);
    state.counters["ms"] = time * 1e3;
    state.counters["GFLOP/s"] = flops / time / 1e9;
    state.counters["of_peak_%"] = 100 * flops / time / peak_rate;
}

// ---- lora ----

enum Direction { kForward, kBackward };
struct Shape {
    int64_t M, K, N, R;
    float p = 0;
    int32_t dtype = L4J_F32, mode = L4J_WEIGHT_BORROW;
};

// R = 0: the plain product; its backward is dx alone.
void lora(benchmark::State &state, int32_t isa, Direction direction, Shape s) {
    Queue q(isa);
    std::vector<float> x = values(s.M * s.K), w = values(s.N * s.K), a = values(s.R * s.K), b = values(s.N * s.R);
    std::vector<float> y(static_cast<size_t>(s.M * s.N)), dy = values(s.M * s.N), dx(x.size());
    std::vector<float> low(static_cast<size_t>(s.M * s.R)), da(a.size()), db(b.size());
    Weight weight(q, w, s.N, s.K, s.dtype, s.mode);
    const l4j_weight *handle = weight.handle;
    l4j_tensor tx = matrix(x, s.M, s.K), ta = matrix(a, s.R, s.K), tb = matrix(b, s.N, s.R), ty = matrix(y, s.M, s.N),
               tdy = matrix(dy, s.M, s.N), tdx = matrix(dx, s.M, s.K), ts = matrix(low, s.M, s.R),
               tda = matrix(da, s.R, s.K), tdb = matrix(db, s.N, s.R);
    float scaling = 2;
    uint64_t seed = 1;
    int64_t step = 1;
    int32_t id = 0;
    std::vector<uint32_t> tokens(static_cast<size_t>(s.M));
    l4j_lora args = {};
    args.struct_size = sizeof args;
    args.projection_count = 1;
    args.adapter_count = s.R > 0;
    args.dropout_p = s.p;
    args.x = &tx;
    args.weights = &handle;
    args.a = &ta;
    args.b = &tb;
    args.scaling = &scaling;
    args.dropout_seed = &seed;
    args.dropout_step = &step;
    args.token_index = tokens.data();
    args.module_id = &id;
    args.adapter_id = &id;
    args.y = &ty;
    args.s = &ts;
    args.dy = &tdy;
    args.dx = &tdx;
    args.da = s.R ? &tda : nullptr;
    args.db = s.R ? &tdb : nullptr;
    l4j_error error = {};
    size_t bytes = 0;
    double m = static_cast<double>(s.M), base = 2.0 * m * static_cast<double>(s.K * s.N),
           rank = 2.0 * m * static_cast<double>(s.R * (s.K + s.N));
    if (direction == kForward) {
        must(l4j_lora_forward_workspace(q.queue, &args, &bytes, &error), error);
        Workspace ws(bytes);
        measure(state, base + rank, peak(isa),
                [&] { must(l4j_lora_forward(q.queue, &args, ws.data, ws.size, &error), error); });
    } else {
        must(l4j_lora_backward_workspace(q.queue, &args, &bytes, &error), error);
        Workspace ws(bytes);
        measure(state, base + 2 * rank, peak(isa),
                [&] { must(l4j_lora_backward(q.queue, &args, ws.data, ws.size, &error), error); });
    }
}

void cross_entropy(benchmark::State &state, int32_t isa, int64_t M, int64_t K, int64_t V, int32_t dtype, int32_t mode) {
    Queue q(isa);
    std::vector<float> x = values(M * K), w = values(V * K), loss(static_cast<size_t>(M)), lse(loss), dx(x.size());
    Weight weight(q, w, V, K, dtype, mode);
    std::vector<int32_t> targets(static_cast<size_t>(M));
    for (size_t m = 0; m < targets.size(); m++) targets[m] = static_cast<int32_t>((m * 7919) % static_cast<size_t>(V));
    l4j_tensor tx = matrix(x, M, K), tdx = matrix(dx, M, K), tloss = matrix(loss, M, 1), tlse = matrix(lse, M, 1);
    tloss.ndim = tlse.ndim = 1;
    l4j_linear_cross_entropy args = {};
    args.struct_size = sizeof args;
    args.ignore_index = -100;
    args.x = &tx;
    args.weight = weight.handle;
    args.targets = targets.data();
    args.loss = &tloss;
    args.lse = &tlse;
    args.dx = &tdx;
    l4j_error error = {};
    size_t bytes = 0;
    must(l4j_linear_cross_entropy_forward_workspace(q.queue, &args, &bytes, &error), error);
    Workspace ws(bytes);
    measure(state, 4.0 * static_cast<double>(M) * static_cast<double>(K * V), peak(isa),
            [&] { must(l4j_linear_cross_entropy_forward(q.queue, &args, ws.data, ws.size, &error), error); });
}

// ---- OpenBLAS ----

using Sgemm = void (*)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *,
                       int);

// Y = X · Wᵀ, or X = Y · W, as the two directions of a frozen linear layer.
void openblas(benchmark::State &state, Sgemm sgemm, Direction direction, Shape s) {
    std::vector<float> in = values(s.M * (direction == kForward ? s.K : s.N)), w = values(s.N * s.K);
    std::vector<float> out(static_cast<size_t>(s.M * (direction == kForward ? s.N : s.K)));
    int M = static_cast<int>(s.M), N = static_cast<int>(s.N), K = static_cast<int>(s.K);
    enum { kRowMajor = 101, kNoTrans = 111, kTrans = 112 };
    measure(state, 2.0 * static_cast<double>(s.M) * static_cast<double>(s.K * s.N), peak(L4J_ISA_AUTO), [&] {
        if (direction == kForward) {
            sgemm(kRowMajor, kNoTrans, kTrans, M, N, K, 1, in.data(), K, w.data(), K, 0, out.data(), N);
        } else {
            sgemm(kRowMajor, kNoTrans, kNoTrans, M, K, N, 1, in.data(), N, w.data(), K, 0, out.data(), K);
        }
    });
}

std::string name(const char *what, const Shape &s) {
    std::string text =
        std::string(what) + "/" + std::to_string(s.M) + "x" + std::to_string(s.K) + "x" + std::to_string(s.N);
    if (s.R) text += "/r" + std::to_string(s.R);
    if (s.p > 0) text += "/dropout";
    if (s.dtype == L4J_BF16) text += "/bf16";
    if (s.mode == L4J_WEIGHT_PACK) text += "/packed";
    return text;
}

template <typename... Args> void add(const std::string &text, Args... args) {
    benchmark::RegisterBenchmark(text.c_str(), args...)->Unit(benchmark::kMillisecond)->UseRealTime()->MinTime(0.3);
}

void register_all(int32_t best) {
    const Shape shapes[] = {{64, 576, 576, 0},    {64, 4096, 4096, 0},  {512, 576, 576, 0},
                            {512, 576, 1536, 0},  {512, 1536, 576, 0},  {512, 2048, 2048, 0},
                            {512, 4096, 4096, 0}, {1024, 576, 1536, 0}, {1024, 576, 49152, 0}};
    for (int32_t isa = L4J_ISA_AVX2; isa <= best; isa++) {
        std::string tier = isa == L4J_ISA_AVX2 ? "avx2/" : "avx512/";
        auto both = [&](const Shape &s) {
            add(tier + name("forward", s), [=](benchmark::State &state) { lora(state, isa, kForward, s); });
            add(tier + name("backward", s), [=](benchmark::State &state) { lora(state, isa, kBackward, s); });
        };
        for (Shape s : shapes) {
            both(s);
            if (s.N > 10000) continue;
            for (int64_t r : {8, 16}) {
                s.R = r;
                both(s);
            }
            s.p = 0.1f;
            both(s);
        }
        for (int32_t dtype : {L4J_F32, L4J_BF16}) {
            for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
                for (int64_t M : {1, 8}) {
                    Shape s{M, 2048, 2048, 0, 0, dtype, mode};
                    add(tier + name("forward", s), [=](benchmark::State &state) { lora(state, isa, kForward, s); });
                }
                both(Shape{1024, 576, 1536, 0, 0, dtype, mode});
                std::string text = tier + "cross_entropy/1024x576x49152" + (dtype == L4J_BF16 ? "/bf16" : "") +
                                   (mode == L4J_WEIGHT_PACK ? "/packed" : "");
                add(text, [=](benchmark::State &state) { cross_entropy(state, isa, 1024, 576, 49152, dtype, mode); });
            }
        }
    }
    void *library = dlopen("libopenblas.so.0", RTLD_NOW);
    auto sgemm = library ? reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm")) : nullptr;
    if (!sgemm) return;
    auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"));
    if (set_threads) set_threads(thread_count());
    for (const Shape &s : shapes) {
        add("openblas/" + name("forward", s), [=](benchmark::State &state) { openblas(state, sgemm, kForward, s); });
        add("openblas/" + name("backward", s), [=](benchmark::State &state) { openblas(state, sgemm, kBackward, s); });
    }
}

} // namespace

int main(int argc, char **argv) {
    l4j_device *device = nullptr;
    l4j_error error = {};
    must(l4j_device_open(nullptr, &device, &error), error);
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    must(l4j_device_query(device, &info, &error), error);
    l4j_device_close(device, nullptr);
    printf("%s, %d threads, FMA peak avx2 %.0f GFLOP/s", info.cpu_name, thread_count(), peak(L4J_ISA_AVX2) / 1e9);
    if (info.isa >= L4J_ISA_AVX512) printf(", avx512 %.0f GFLOP/s", peak(L4J_ISA_AVX512) / 1e9);
    printf("\n%s\n", l4j_build_info());
    register_all(info.isa);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
