// What the machine can do at most, on as many threads as the kernels have. Family limit; key what:
//   fma     fused multiply-adds in registers; isa=avx2 or avx512, default the tier of the device
//   tmul    products of bf16 tiles in registers (AMX)
//   read    a pass over more memory than the caches hold (mib, default 256, of all threads together)
//   copy    the same, copied with stores that pass the caches by; bytes are those read and those written
#include <benchmark/benchmark.h>
#include <immintrin.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <stdexcept>
#include <thread>

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

// Four tiles of sums, two of each factor: what a product keeps in registers.
__attribute__((target("amx-tile,amx-bf16"))) void tmul() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    alignas(64) static const uint16_t ones[16 * 32] = {};
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (int64_t i = 0; i < kSteps / 10; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}

void permit_amx() {
    const long kRequest = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM
    if (syscall(SYS_arch_prctl, kRequest, kTileData) != 0) {
        throw std::runtime_error(
            "limit/what=tmul: this CPU or operating system has no AMX (arch_prctl refused the tiles)");
    }
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

Work arithmetic(int threads, void (*loop)(), double flops) {
    Work work;
    work.flops = threads * flops;
    work.run = [=] { on_threads(threads, [loop](int) { loop(); }); };
    return work;
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
    if (what == "tmul") {
        permit_amx();
        return arithmetic(threads, tmul, 4.0 * 2 * 16 * 16 * 32 * (kSteps / 10));
    }
    if (what != "read" && what != "copy") {
        throw std::invalid_argument(spec.text() + ": what is '" + what + "', expected fma, tmul, read or copy");
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
