// Products of L4J_COMPUTE_BF16: GFLOP/s and the share of the instruction's own loop, measured on the same threads in the same run.
//   bf16_bench [threads [one]]     prints one JSON object a line, with `one` for M = 512, 4096 x 4096 only; LORA4J_MAX_ISA caps the tier
#include "bf16_peak.h"

#include <lora4j/lora4j.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

void check(l4j_status status, const l4j_error &error) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s\n", error.message);
    exit(1);
}

// FLOP/s of all threads together: median of the attempts.
double peak(double (*loop)(int64_t), int threads, int64_t steps) {
    std::vector<double> rates;
    for (int attempt = 0; attempt < 15; attempt++) {
        std::vector<std::thread> workers;
        std::vector<double> rate(static_cast<size_t>(threads));
        for (double &r : rate) {
            workers.emplace_back([&r, loop, steps] {
                loop(steps / 8);
                double start = now(), flops = loop(steps);
                r = flops / (now() - start);
            });
        }
        for (std::thread &w : workers) w.join();
        double sum = 0;
        for (double r : rate) sum += r;
        rates.push_back(sum);
    }
    return median(rates);
}

struct Matrix {
    std::vector<float> values;
    l4j_tensor tensor = {};
    Matrix(int64_t rows, int64_t cols, float scale) : values(static_cast<size_t>(rows * cols)) {
        uint64_t state = 88172645463325252ull + static_cast<uint64_t>(rows * 31 + cols);
        for (float &x : values) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            x = scale * static_cast<float>(static_cast<int64_t>(state >> 40) - (1 << 23)) * 0x1p-23f;
        }
        tensor.data = values.data();
        tensor.dtype = L4J_F32;
        tensor.device_type = L4J_DEVICE_CPU;
        tensor.ndim = 2;
        tensor.shape[0] = rows;
        tensor.shape[1] = tensor.stride[0] = cols;
        tensor.stride[1] = 1;
    }
};

struct Bench {
    l4j_device *device = nullptr;
    l4j_queue *queue = nullptr;
    int threads = 0;
    double peak_rate = 0;
    l4j_error error = {};

    double time(const std::function<void()> &run) {
        double start = now();
        int64_t rounds = 0;
        run();
        do {
            run();
            rounds++;
        } while (now() - start < 0.05);
        std::vector<double> seconds;
        rounds = std::max<int64_t>(1, rounds / 5);
        for (int i = 0; i < 15; i++) {
            double begin = now();
            for (int64_t r = 0; r < rounds; r++) run();
            seconds.push_back((now() - begin) / static_cast<double>(rounds));
        }
        return median(seconds);
    }

    void report(const char *what, int64_t M, int64_t K, int64_t N, int64_t R, double flops, double seconds) {
        printf("{\"what\": \"%s\", \"M\": %ld, \"K\": %ld, \"N\": %ld, \"R\": %ld, \"threads\": %d, \"ms\": %.4f, "
               "\"gflops\": %.1f, \"share_of_peak\": %.3f}\n",
               what, static_cast<long>(M), static_cast<long>(K), static_cast<long>(N), static_cast<long>(R), threads,
               seconds * 1e3, flops / seconds / 1e9, peak_rate > 0 ? flops / seconds / peak_rate : 0);
        fflush(stdout);
    }

    void product(int64_t M, int64_t K, int64_t N, int64_t R, int32_t compute) {
        Matrix x(M, K, 1), w(N, K, 0.02f), y(M, N, 1), a(R ? R : 1, K, 0.02f), b(N, R ? R : 1, 0.02f),
            s(M, R ? R : 1, 1), dy(M, N, 1), dx(M, K, 1), da(R ? R : 1, K, 0), db(N, R ? R : 1, 0);
        std::vector<uint16_t> half(w.values.size());
        for (size_t i = 0; i < half.size(); i++) {
            uint32_t u;
            memcpy(&u, &w.values[i], 4);
            half[i] = static_cast<uint16_t>((u + 0x8000) >> 16);
        }
        l4j_tensor stored = w.tensor;
        stored.data = half.data();
        stored.dtype = L4J_BF16;
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options options = {};
        options.struct_size = sizeof options;
        options.scheme = L4J_SCHEME_DENSE;
        options.mode = L4J_WEIGHT_PACK;
        options.compute = compute;
        options.rows = N;
        options.cols = K;
        options.part_count = 1;
        options.part_roles = &role;
        options.part_values = &stored;
        l4j_weight *weight = nullptr;
        check(l4j_weight_create(device, queue, &options, &weight, &error), error);
        const l4j_weight *weights[] = {weight};
        float scaling = 2;
        l4j_lora args = {};
        args.struct_size = sizeof args;
        args.projection_count = 1;
        args.adapter_count = R > 0;
        args.compute = compute;
        args.x = &x.tensor;
        args.weights = weights;
        args.a = &a.tensor;
        args.b = &b.tensor;
        args.s = &s.tensor;
        args.scaling = &scaling;
        args.y = &y.tensor;
        args.dy = &dy.tensor;
        args.dx = &dx.tensor;
        args.da = &da.tensor;
        args.db = &db.tensor;
        size_t bytes = 0, more = 0;
        check(l4j_lora_forward_workspace(queue, &args, &bytes, &error), error);
        check(l4j_lora_backward_workspace(queue, &args, &more, &error), error);
        bytes = std::max(bytes, more) + 64;
        void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
        memset(workspace, 0, bytes);
        double base = 2.0 * static_cast<double>(M) * static_cast<double>(K) * static_cast<double>(N);
        double low = 2.0 * static_cast<double>(M) * static_cast<double>(R) * static_cast<double>(K + N);
        const char *forward = compute ? R ? "bf16 lora forward" : "bf16 forward"
                              : R     ? "fp32 lora forward"
                                      : "fp32 forward";
        const char *backward = compute ? R ? "bf16 lora backward" : "bf16 dx" : R ? "fp32 lora backward" : "fp32 dx";
        report(forward, M, K, N, R, base + low,
               time([&] { check(l4j_lora_forward(queue, &args, workspace, bytes, &error), error); }));
        report(backward, M, K, N, R, base + 2 * low,
               time([&] { check(l4j_lora_backward(queue, &args, workspace, bytes, &error), error); }));
        l4j_weight_destroy(weight, &error);
        free(workspace);
    }
};

} // namespace

int main(int argc, char **argv) {
    Bench bench;
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    check(l4j_device_open(nullptr, &bench.device, &bench.error), bench.error);
    check(l4j_device_query(bench.device, &info, &bench.error), bench.error);
    bench.threads = argc > 1 ? atoi(argv[1]) : info.logical_cpus;
    l4j_queue_options options = {};
    options.struct_size = sizeof options;
    options.threads = bench.threads;
    check(l4j_queue_create(bench.device, &options, &bench.queue, &bench.error), bench.error);
    bench.peak_rate = info.bf16_isa == L4J_ISA_AMX_BF16      ? peak(l4j_bench::peak_tmul, bench.threads, 200'000)
                      : info.bf16_isa == L4J_ISA_AVX512_BF16 ? peak(l4j_bench::peak_vdpbf16, bench.threads, 2'000'000)
                                                             : 0;
    printf(
        "{\"cpu\": \"%s\", \"isa\": \"%s\", \"bf16_isa\": %d, \"cpus\": %d, \"threads\": %d, \"peak_gflops\": %.1f}\n",
        info.cpu_name, info.isa_name, info.bf16_isa, info.logical_cpus, bench.threads, bench.peak_rate / 1e9);
    if (argc > 2) {
        bench.product(512, 4096, 4096, 0, L4J_COMPUTE_BF16);
        return 0;
    }
    for (int64_t M : {512, 64, 8, 1}) bench.product(M, 4096, 4096, 0, L4J_COMPUTE_BF16);
    bench.product(512, 4096, 4096, 16, L4J_COMPUTE_BF16);
    bench.product(512, 4096, 14336, 0, L4J_COMPUTE_BF16);
    bench.product(1024, 576, 1536, 8, L4J_COMPUTE_BF16);
    bench.product(512, 4096, 4096, 0, L4J_COMPUTE_F32);
    l4j_queue_destroy(bench.queue, &bench.error);
    l4j_device_close(bench.device, &bench.error);
    return 0;
}
