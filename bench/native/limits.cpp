// What the machine can do at most, on as many threads as the kernels have. Family limit; key what:
//   fma     fused multiply-adds in registers; isa=avx2 or avx512, default the tier of the device
//   bf16    products of bf16 in registers, by the instruction that L4J_COMPUTE_BF16 uses on the device: TDPBF16PS or VDPBF16PS
//   read    a pass over more memory than the caches hold (mib, default 256, of all threads together)
//   copy    the same, copied with stores that pass the caches by; bytes are those read and those written
#include <benchmark/benchmark.h>
#include <immintrin.h>
#include <sched.h>

#include <stdexcept>
#include <thread>

#include "bf16_peak.h"
#include "library.h"
#include "work.h"

namespace {

const int64_t kSteps = 3000000; // some 10 ms: starting the threads does not count

__attribute__((target("avx2,fma"))) void fma_avx2() {
    __m256 acc[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (__m256 &a : acc) a = y;
    for (int64_t i = 0; i < kSteps; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    }
    for (__m256 &a : acc) benchmark::DoNotOptimize(a);
}

__attribute__((target("avx512f"))) void fma_avx512() {
    __m512 acc[24], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (__m512 &a : acc) a = y;
    for (int64_t i = 0; i < kSteps; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; j++) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
    }
    for (__m512 &a : acc) benchmark::DoNotOptimize(a);
}

__attribute__((target("avx2"))) void read_all(const char *from, size_t bytes) {
    __m256i sum[4] = {};
    for (size_t i = 0; i < bytes; i += 128) {
        _mm_prefetch(from + i + 2048, _MM_HINT_T0);
        _mm_prefetch(from + i + 2112, _MM_HINT_T0);
        for (size_t j = 0; j < 4; j++) {
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i *>(from + i) + j));
        }
    }
    for (__m256i &s : sum) benchmark::DoNotOptimize(s);
}

__attribute__((target("avx2"))) void copy_all(const char *from, char *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 128) {
        for (size_t j = 0; j < 4; j++) {
            _mm256_stream_si256(reinterpret_cast<__m256i *>(to + i) + j,
                                _mm256_load_si256(reinterpret_cast<const __m256i *>(from + i) + j));
        }
    }
    _mm_sfence();
}

// Each thread on a processor of its own: left to the scheduler, two of them share one for longer than these loops take.
void on_threads(int threads, const std::function<void(int)> &work) {
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    std::vector<int> processors;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &allowed)) processors.push_back(i);
    }
    auto pinned = [&](int t) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(processors[static_cast<size_t>(t) % processors.size()], &one);
        sched_setaffinity(0, sizeof one, &one);
        work(t);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; t++) others.emplace_back(pinned, t);
    pinned(0);
    for (std::thread &t : others) t.join();
    sched_setaffinity(0, sizeof allowed, &allowed);
}

Work arithmetic(int threads, const std::function<void()> &loop, double flops) {
    Work work;
    work.flops = threads * flops;
    work.run = [=] { on_threads(threads, [loop](int) { loop(); }); };
    return work;
}

Work bf16_arithmetic(const Spec &spec, int threads) {
    int32_t isa = device_info().bf16_isa; // where it is AMX, the device has asked Linux for the tiles
    if (isa == L4J_ISA_AMX_BF16)
        return arithmetic(
            threads, [] { tmul(kSteps / 10); }, kTmulFlops * (kSteps / 10));
    if (isa == L4J_ISA_AVX512_BF16)
        return arithmetic(
            threads, [] { vdpbf16(kSteps); }, kVdpbf16Flops * kSteps);
    throw std::invalid_argument(spec.text() +
                                ": the device has no instruction for products of bf16, or a cap forbids it");
}

} // namespace

Work make_limit(const Spec &spec) {
    int threads = threads_of(spec);
    std::string what = spec.word("what");
    if (what == "fma") {
        std::string isa = spec.word("isa", device_info().isa_name);
        if (isa == "avx2") return arithmetic(threads, fma_avx2, 12.0 * 16 * kSteps);
        if (isa == "avx512") return arithmetic(threads, fma_avx512, 24.0 * 32 * kSteps);
        throw std::invalid_argument(spec.text() + ": isa is '" + isa + "', expected avx2 or avx512");
    }
    if (what == "bf16") return bf16_arithmetic(spec, threads);
    if (what != "read" && what != "copy") {
        throw std::invalid_argument(spec.text() + ": what is '" + what + "', expected fma, bf16, read or copy");
    }
    size_t part = (static_cast<size_t>(spec.number("mib", 256)) << 20) / static_cast<size_t>(threads) & ~size_t{4095};
    auto from = random_values(L4J_F32, static_cast<int64_t>(part / 4 * static_cast<size_t>(threads)) + 1024);
    char *source = static_cast<char *>(from.get());
    Work work;
    work.bytes = static_cast<double>(part) * threads;
    if (what == "read") {
        work.run = [=] {
            (void)from;
            on_threads(threads, [=](int t) { read_all(source + part * static_cast<size_t>(t), part); });
        };
    } else {
        auto into = random_values(L4J_F32, static_cast<int64_t>(part / 4 * static_cast<size_t>(threads)));
        char *target = static_cast<char *>(into.get());
        work.bytes *= 2;
        work.run = [=] {
            (void)from, (void)into;
            on_threads(threads, [=](int t) {
                copy_all(source + part * static_cast<size_t>(t), target + part * static_cast<size_t>(t), part);
            });
        };
    }
    return work;
}
