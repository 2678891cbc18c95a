// The operations of a training step beside the products, on every vector tier: time, and the share of the limit, both measured in
// this process. The limit of norm, rope, swiglu, axpby and adamw, which run on operands larger than the caches, is a plain copy
// loop of as many bytes read and written; the limit of attention is the FMA rate, over the pairs that the causal mask leaves.
//   ops_bench [--benchmark_filter=...]      environment: THREADS (default 2)
// With one thread a figure is the median of its iterations in processor time, with several the fastest in wall-clock time: on a
// shared machine these are disturbed least.
#include <benchmark/benchmark.h>
#include <immintrin.h>
#include <lora4j/lora4j.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
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

double typical(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    return times[thread_count() == 1 ? times.size() / 2 : 0];
}

void on_all_threads(const std::function<void(int)> &work) {
    std::vector<std::thread> others;
    for (int t = 1; t < thread_count(); t++) others.emplace_back(work, t);
    work(0);
    for (std::thread &t : others) t.join();
}

void check(l4j_status status, const l4j_error &error) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s: %s\n", l4j_status_name(status), error.message);
    exit(1);
}

// Bytes per second, read and written, of a copy with ordinary stores over 128 MiB for each thread.
double copy_rate() {
    const size_t n = 32u << 20;
    std::vector<std::unique_ptr<float[]>> from, to;
    for (int t = 0; t < thread_count(); t++) {
        from.emplace_back(new float[n]());
        to.emplace_back(new float[n]());
    }
    std::vector<double> times;
    for (int run = 0; run < 7; run++) {
        double start = now();
        on_all_threads([&](int t) {
            float *x = to[static_cast<size_t>(t)].get();
            const float *y = from[static_cast<size_t>(t)].get();
            for (size_t i = 0; i < n; i += 8) {
                __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y + i));
                __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i *>(y + i + 4));
                _mm_storeu_si128(reinterpret_cast<__m128i *>(x + i), a);
                _mm_storeu_si128(reinterpret_cast<__m128i *>(x + i + 4), b);
            }
            benchmark::ClobberMemory();
        });
        times.push_back(now() - start);
    }
    return 8.0 * static_cast<double>(n) * thread_count() / typical(times);
}

__attribute__((target("avx512f"))) double fma_steps_avx512(int64_t steps) {
    __m512 acc[24], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (__m512 &a : acc) a = y;
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; j++) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
    }
    for (__m512 &a : acc) benchmark::DoNotOptimize(a);
    return 24.0 * 32 * static_cast<double>(steps);
}

__attribute__((target("avx2,fma"))) double fma_steps_avx2(int64_t steps) {
    __m256 acc[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (__m256 &a : acc) a = y;
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    }
    for (__m256 &a : acc) benchmark::DoNotOptimize(a);
    return 12.0 * 16 * static_cast<double>(steps);
}

double fma_rate(int32_t isa) {
    std::vector<double> times;
    double flops = 0;
    for (int run = 0; run < 7; run++) {
        double start = now();
        on_all_threads([&](int t) {
            double f = isa == L4J_ISA_AVX512 ? fma_steps_avx512(2000000) : fma_steps_avx2(4000000);
            if (t == 0) flops = f * thread_count();
        });
        times.push_back(now() - start);
    }
    return flops / typical(times);
}

// ---- operands ----

struct Machine {
    l4j_device *device = nullptr;
    l4j_queue *queue = nullptr;
    explicit Machine(int32_t isa) {
        l4j_error error = {};
        l4j_device_options device_options = {};
        device_options.struct_size = sizeof device_options;
        device_options.device_type = L4J_DEVICE_CPU;
        device_options.max_isa = isa;
        check(l4j_device_open(&device_options, &device, &error), error);
        l4j_queue_options queue_options = {};
        queue_options.struct_size = sizeof queue_options;
        queue_options.threads = thread_count();
        check(l4j_queue_create(device, &queue_options, &queue, &error), error);
    }
    int32_t isa() const {
        l4j_device_info info = {};
        info.struct_size = sizeof info;
        l4j_error error = {};
        check(l4j_device_query(device, &info, &error), error);
        return info.isa;
    }
    ~Machine() {
        l4j_queue_destroy(queue, nullptr);
        l4j_device_close(device, nullptr);
    }
};

// Tensors live as long as the benchmark that uses them.
struct Operands {
    std::vector<std::unique_ptr<float[]>> memory;
    std::vector<std::unique_ptr<l4j_tensor>> tensors;
    const l4j_tensor *operator()(std::vector<int64_t> shape, float scale = 1) {
        int64_t n = 1;
        auto t = std::make_unique<l4j_tensor>();
        *t = {};
        t->dtype = L4J_F32;
        t->device_type = L4J_DEVICE_CPU;
        t->ndim = static_cast<int32_t>(shape.size());
        for (int i = t->ndim - 1; i >= 0; i--) {
            t->shape[i] = shape[static_cast<size_t>(i)];
            t->stride[i] = n;
            n *= t->shape[i];
        }
        memory.emplace_back(new float[static_cast<size_t>(n)]);
        uint32_t u = 1;
        for (int64_t i = 0; i < n; i++) {
            u = u * 1664525 + 1013904223;
            memory.back()[static_cast<size_t>(i)] = scale * (static_cast<float>(u >> 8) * 0x1p-23f - 1);
        }
        t->data = memory.back().get();
        tensors.push_back(std::move(t));
        return tensors.back().get();
    }
};

#define CALL(op, machine, args)                                                             \
    [&machine, &args] {                                                                     \
        l4j_error error = {};                                                               \
        size_t bytes = 0;                                                                   \
        check(l4j_##op##_workspace(machine.queue, &args, &bytes, &error), error);           \
        std::shared_ptr<void> workspace(aligned_alloc(64, (bytes + 64) / 64 * 64), free);   \
        return std::function<void()>([&machine, &args, workspace, bytes] {                  \
            l4j_error failed = {};                                                          \
            check(l4j_##op(machine.queue, &args, workspace.get(), bytes, &failed), failed); \
        });                                                                                 \
    }()

void measure(benchmark::State &state, const std::function<void()> &run, double bytes, double flops, double limit) {
    run();
    std::vector<double> times;
    for (auto _ : state) {
        double start = now();
        run();
        times.push_back(now() - start);
        state.SetIterationTime(times.back());
    }
    double t = typical(times);
    state.counters["ms"] = 1e3 * t;
    if (bytes > 0) state.counters["GB/s"] = 1e-9 * bytes / t;
    if (flops > 0) state.counters["GFLOP/s"] = 1e-9 * flops / t;
    if (limit > 0) state.counters["share"] = (bytes > 0 ? bytes : flops) / t / limit;
}

// ---- operations larger than the caches: 8192 x 1536, 48 MiB a tensor ----

const int64_t M = 8192, N = 1536;
const double kTensor = 4.0 * static_cast<double>(M * N);

void rms_norm(benchmark::State &state, int32_t isa, double limit, bool backward) {
    Machine machine(isa);
    Operands make;
    l4j_rms_norm args = {};
    args.struct_size = sizeof args;
    args.eps = 1e-5f;
    args.x = make({M, N});
    args.weight = make({N});
    args.h = backward ? args.x : nullptr;
    args.y = make({M, N});
    args.rstd = make({M});
    args.dy = make({M, N});
    args.dx = args.y;
    measure(state, backward ? CALL(rms_norm_backward, machine, args) : CALL(rms_norm_forward, machine, args),
            backward ? 3 * kTensor : 2 * kTensor, 0, limit);
}

void rms_norm_residual(benchmark::State &state, int32_t isa, double limit) {
    Machine machine(isa);
    Operands make;
    l4j_rms_norm args = {};
    args.struct_size = sizeof args;
    args.eps = 1e-5f;
    args.x = make({M, N});
    args.residual = make({M, N});
    args.h = args.residual;
    args.weight = make({N});
    args.y = args.x;
    args.rstd = make({M});
    measure(state, CALL(rms_norm_forward, machine, args), 4 * kTensor, 0, limit);
}

void swiglu(benchmark::State &state, int32_t isa, double limit, bool backward) {
    Machine machine(isa);
    Operands make;
    l4j_swiglu args = {};
    args.struct_size = sizeof args;
    args.gate = make({M, N}, 4);
    args.up = make({M, N});
    args.out = make({M, N});
    args.dout = make({M, N});
    args.dgate = args.out;
    args.dup = make({M, N});
    measure(state, backward ? CALL(swiglu_backward, machine, args) : CALL(swiglu_forward, machine, args),
            backward ? 5 * kTensor : 3 * kTensor, 0, limit);
}

void rope(benchmark::State &state, int32_t isa, double limit, uint32_t flags) {
    Machine machine(isa);
    Operands make;
    std::vector<int32_t> positions(M);
    for (int64_t m = 0; m < M; m++) positions[static_cast<size_t>(m)] = static_cast<int32_t>(m % 2048);
    l4j_rope args = {};
    args.struct_size = sizeof args;
    args.flags = flags;
    args.src = make({M, N / 64, 64});
    args.dst = make({M, N / 64, 64});
    args.cosine = make({2048, 32});
    args.sine = make({2048, 32});
    args.positions = positions.data();
    measure(state, CALL(rope_forward, machine, args), 2 * kTensor, 0, limit);
}

void axpby(benchmark::State &state, int32_t isa, double limit) {
    Machine machine(isa);
    Operands make;
    float alpha = 0.5f, beta = 0.5f;
    l4j_axpby args = {};
    args.struct_size = sizeof args;
    args.alpha = &alpha;
    args.beta = &beta;
    args.x = make({M, N});
    args.y = make({M, N});
    measure(state, CALL(axpby_forward, machine, args), 3 * kTensor, 0, limit);
}

// 210 adapters of 40000 parameters: reads of four tensors, writes of four, and the gradients once more for the norm.
void adamw(benchmark::State &state, int32_t isa, double limit) {
    Machine machine(isa);
    Operands make;
    const int64_t count = 210, size = 40000;
    std::vector<l4j_tensor> lists[4];
    for (auto &list : lists) {
        for (int64_t i = 0; i < count; i++) {
            list.push_back(*make({size}));
            for (int64_t j = 0; j < size; j++)
                static_cast<float *>(list.back().data)[j] = std::fabs(static_cast<float *>(list.back().data)[j]);
        }
    }
    l4j_adamw_hyper hyper = {1e-4, 0.9, 0.999, 1e-8, 0, 1, 1, 1};
    double norm = 0;
    l4j_adamw_group group = {count, lists[0].data(), lists[1].data(), lists[2].data(), lists[3].data(), &hyper, &norm};
    l4j_adamw args = {};
    args.struct_size = sizeof args;
    args.flags = L4J_ADAMW_ZERO_GRADS;
    args.group_count = 1;
    args.groups = &group;
    measure(state, CALL(adamw_step, machine, args), 9.0 * 4 * static_cast<double>(count * size), 0, limit);
}

void sample(benchmark::State &state, int32_t isa, double top_p, int32_t top_k) {
    Machine machine(isa);
    Operands make;
    int32_t id = 0;
    l4j_sample_hyper hyper = {0.7, top_p, top_k, 0, 1, 0};
    l4j_sample args = {};
    args.struct_size = sizeof args;
    args.logits = make({1, 49152}, 10);
    args.hyper = &hyper;
    args.ids = &id;
    measure(state, CALL(sample_forward, machine, args), 0, 0, 0);
}

// ---- attention: B sequences of T tokens, 9 query and 3 key/value heads of 64, as SmolLM2-135M has ----

void attention(benchmark::State &state, int32_t isa, double limit, int B, int64_t T, int64_t keys, bool backward) {
    Machine machine(isa);
    Operands make;
    const int64_t H = 9, Hkv = 3, D = 64;
    std::vector<int32_t> offsets = {0}, starts, lengths;
    for (int b = 0; b < B; b++) {
        offsets.push_back(static_cast<int32_t>((b + 1) * T));
        starts.push_back(static_cast<int32_t>(b * keys));
        lengths.push_back(static_cast<int32_t>(keys));
    }
    l4j_attention args = {};
    args.struct_size = sizeof args;
    args.flags = L4J_ATTENTION_CAUSAL;
    args.scale = 0.125f;
    args.sequences = B;
    args.max_q_length = T;
    args.max_kv_length = keys;
    args.q_offsets = offsets.data();
    args.kv_starts = starts.data();
    args.kv_lengths = lengths.data();
    args.q = make({B * T, H, D});
    args.k = make({B * keys, Hkv, D});
    args.v = make({B * keys, Hkv, D});
    args.o = make({B * T, H, D});
    args.lse = make({B * T, H});
    args.d_o = make({B * T, H, D});
    args.dq = make({B * T, H, D});
    args.dk = make({B * keys, Hkv, D});
    args.dv = make({B * keys, Hkv, D});
    CALL(attention_forward, machine, args)();
    double pairs = 0;
    for (int64_t i = 0; i < T; i++) pairs += static_cast<double>(keys - T + i + 1);
    double flops = (backward ? 10.0 : 4.0) * static_cast<double>(D * H * B) * pairs;
    measure(state, backward ? CALL(attention_backward, machine, args) : CALL(attention_forward, machine, args), 0,
            flops, limit);
}

} // namespace

int main(int argc, char **argv) {
    benchmark::Initialize(&argc, argv);
    double copy = copy_rate();
    printf("threads %d, copy %.1f GB/s\n", thread_count(), 1e-9 * copy);
    for (int32_t isa : {static_cast<int32_t>(L4J_ISA_AVX2), static_cast<int32_t>(L4J_ISA_AVX512)}) {
        if (Machine(isa).isa() != isa) continue;
        double peak = fma_rate(isa);
        std::string tier = isa == L4J_ISA_AVX2 ? "avx2/" : "avx512/";
        printf("%s peak %.1f GFLOP/s\n", tier.c_str(), 1e-9 * peak);
        auto add = [&](const std::string &name, const std::function<void(benchmark::State &)> &run) {
            benchmark::RegisterBenchmark((tier + name).c_str(), run)->UseManualTime()->Unit(benchmark::kMillisecond);
        };
        add("rms_norm_forward", [=](benchmark::State &s) { rms_norm(s, isa, copy, false); });
        add("rms_norm_forward_residual", [=](benchmark::State &s) { rms_norm_residual(s, isa, copy); });
        add("rms_norm_backward", [=](benchmark::State &s) { rms_norm(s, isa, copy, true); });
        add("rope_halves", [=](benchmark::State &s) { rope(s, isa, copy, 0); });
        add("rope_interleaved", [=](benchmark::State &s) { rope(s, isa, copy, L4J_ROPE_INTERLEAVED); });
        add("swiglu_forward", [=](benchmark::State &s) { swiglu(s, isa, copy, false); });
        add("swiglu_backward", [=](benchmark::State &s) { swiglu(s, isa, copy, true); });
        add("axpby", [=](benchmark::State &s) { axpby(s, isa, copy); });
        add("adamw", [=](benchmark::State &s) { adamw(s, isa, copy); });
        add("sample_all", [=](benchmark::State &s) { sample(s, isa, 1, 0); });
        add("sample_top_p", [=](benchmark::State &s) { sample(s, isa, 0.9, 0); });
        add("sample_top_k", [=](benchmark::State &s) { sample(s, isa, 1, 50); });
        for (bool backward : {false, true}) {
            std::string way = backward ? "attention_backward/" : "attention_forward/";
            add(way + "4x256", [=](benchmark::State &s) { attention(s, isa, peak, 4, 256, 256, backward); });
            add(way + "1x2048", [=](benchmark::State &s) { attention(s, isa, peak, 1, 2048, 2048, backward); });
            add(way + "1x8192", [=](benchmark::State &s) { attention(s, isa, peak, 1, 8192, 8192, backward); });
        }
        add("attention_forward/decode_8192", [=](benchmark::State &s) { attention(s, isa, peak, 1, 1, 8192, false); });
    }
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
