// The low-rank linear on a GPU: microseconds of forward and backward by graph replay, operands rotated so that no call finds its own in
// the cache, beside the frozen product of the same kernels. One JSON object for each shape.
//   gpu_lora [device]          needs liblora4j_cuda.so beside liblora4j.so or in LORA4J_CUDA_LIBRARY
#include <lora4j/lora4j.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

l4j_error failure;

void must(l4j_status status) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s: %s\n", l4j_status_name(status), failure.message);
    exit(1);
}

l4j_device *device;
l4j_queue *queue;

uint16_t bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return static_cast<uint16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

// Random BF16 values in the GPU's memory; zeros would be multiplied faster.
void *values(int64_t n, float scale) {
    void *memory;
    std::vector<uint16_t> host(static_cast<size_t>(n));
    uint64_t state = static_cast<uint64_t>(n) * 0x9E3779B97F4A7C15ull + 1;
    for (uint16_t &h : host) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        h = bf16(scale * (static_cast<float>(state >> 40) / 8388608.0f - 1.0f));
    }
    must(l4j_memory_allocate(device, host.size() * 2, &memory, &failure));
    must(l4j_memory_copy(queue, memory, host.data(), host.size() * 2, &failure));
    must(l4j_queue_synchronize(queue, &failure));
    return memory;
}

template <class T> T *scalar(T value) {
    void *memory;
    must(l4j_memory_allocate(device, sizeof value, &memory, &failure));
    must(l4j_memory_copy(queue, memory, &value, sizeof value, &failure));
    must(l4j_queue_synchronize(queue, &failure));
    return static_cast<T *>(memory);
}

l4j_tensor matrix(void *data, int32_t dtype, int64_t rows, int64_t cols) {
    l4j_tensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.device_type = L4J_DEVICE_CUDA;
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = cols;
    t.stride[0] = cols;
    t.stride[1] = 1;
    return t;
}

// One set of operands and the call on them.
struct Set {
    l4j_tensor x, a, b, y, s, dy, dx, da, db;
    l4j_weight *weight;
    l4j_lora args;
};

struct Shape {
    int64_t M, K, N, R;
    float p;
};

Set make(const Shape &shape, bool adapter) {
    Set set = {};
    auto [M, K, N, R, p] = shape;
    set.x = matrix(values(M * K, 1), L4J_BF16, M, K);
    set.y = matrix(values(M * N, 1), L4J_BF16, M, N);
    set.dy = matrix(values(M * N, 1), L4J_BF16, M, N);
    set.dx = matrix(values(M * K, 1), L4J_BF16, M, K);
    l4j_tensor w = matrix(values(N * K, 0.02f), L4J_BF16, N, K);
    int32_t role = L4J_ROLE_VALUES;
    l4j_weight_options options = {};
    options.struct_size = sizeof options;
    options.scheme = L4J_SCHEME_DENSE;
    options.mode = L4J_WEIGHT_BORROW;
    options.rows = N;
    options.cols = K;
    options.part_count = 1;
    options.part_roles = &role;
    options.part_values = &w;
    must(l4j_weight_create(device, queue, &options, &set.weight, &failure));
    set.args.struct_size = sizeof set.args;
    set.args.projection_count = 1;
    if (!adapter) return set;
    set.a = matrix(values(R * K, 0.02f), L4J_BF16, R, K);
    set.b = matrix(values(N * R, 0.02f), L4J_BF16, N, R);
    set.s = matrix(values(M * R, 1), L4J_BF16, M, R);
    set.da = matrix(values(2 * R * K, 0), L4J_F32, R, K);
    set.db = matrix(values(2 * N * R, 0), L4J_F32, N, R);
    set.args.adapter_count = 1;
    set.args.scaling = scalar(2.0f);
    set.args.dropout_p = p;
    set.args.dropout_seed = scalar(uint64_t(1));
    set.args.dropout_step = scalar(int64_t(1));
    set.args.token_index = static_cast<uint32_t *>(values(2 * M, 1));
    set.args.module_id = scalar(int32_t(1));
    set.args.adapter_id = scalar(int32_t(1));
    return set;
}

void bind(Set &set) {
    l4j_lora &args = set.args;
    args.x = &set.x;
    args.weights = &set.weight;
    args.y = &set.y;
    args.dy = &set.dy;
    args.dx = &set.dx;
    if (!args.adapter_count) return;
    args.a = &set.a;
    args.b = &set.b;
    args.s = &set.s;
    args.da = &set.da;
    args.db = &set.db;
}

void release(Set &set) {
    must(l4j_weight_destroy(set.weight, &failure));
    for (void *p : {set.x.data, set.a.data, set.b.data, set.y.data, set.s.data, set.dy.data, set.dx.data, set.da.data,
                    set.db.data, const_cast<void *>(static_cast<const void *>(set.args.token_index))}) {
        must(l4j_memory_free(device, p, &failure));
    }
}

// Median microseconds of one call over replays of a graph that runs it once for each set.
double time(std::vector<Set> &sets, bool backward) {
    size_t bytes = 0;
    for (Set &set : sets) bind(set);
    must(backward ? l4j_lora_backward_workspace(queue, &sets[0].args, &bytes, &failure)
                  : l4j_lora_forward_workspace(queue, &sets[0].args, &bytes, &failure));
    void *workspace = nullptr;
    must(l4j_memory_allocate(device, bytes, &workspace, &failure));
    auto run = [&] {
        for (Set &set : sets) {
            must(backward ? l4j_lora_backward(queue, &set.args, workspace, bytes, &failure)
                          : l4j_lora_forward(queue, &set.args, workspace, bytes, &failure));
        }
    };
    run();
    must(l4j_queue_synchronize(queue, &failure));
    l4j_graph *graph;
    must(l4j_graph_begin(queue, &failure));
    run();
    must(l4j_graph_end(queue, &graph, &failure));
    l4j_event *start, *end;
    must(l4j_event_create(device, &start, &failure));
    must(l4j_event_create(device, &end, &failure));
    std::vector<double> times;
    for (int i = 0; i < 22; i++) {
        float ms;
        must(l4j_event_record(start, queue, &failure));
        must(l4j_graph_launch(graph, queue, &failure));
        must(l4j_event_record(end, queue, &failure));
        must(l4j_event_synchronize(end, &failure));
        must(l4j_event_elapsed(start, end, &ms, &failure));
        if (i > 1) times.push_back(1e3 * ms / static_cast<double>(sets.size()));
    }
    must(l4j_queue_synchronize(queue, &failure));
    must(l4j_event_destroy(start, &failure));
    must(l4j_event_destroy(end, &failure));
    must(l4j_graph_destroy(graph, &failure));
    must(l4j_memory_free(device, workspace, &failure));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

} // namespace

int main(int argc, char **argv) {
    l4j_device_options options = {};
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CUDA;
    options.device_id = argc > 1 ? atoi(argv[1]) : 0;
    must(l4j_device_open(&options, &device, &failure));
    must(l4j_queue_create(device, nullptr, &queue, &failure));
    const Shape shapes[] = {{8192, 4096, 4096, 16, 0}, {8192, 4096, 4096, 16, 0.1f}, {8192, 4096, 14336, 16, 0},
                            {8192, 2048, 8192, 16, 0}, {2048, 4096, 4096, 16, 0},    {2048, 4096, 4096, 16, 0.1f},
                            {512, 4096, 4096, 16, 0},  {512, 576, 1536, 16, 0},      {64, 4096, 4096, 16, 0}};
    for (const Shape &shape : shapes) {
        double us[2][2];
        for (int adapter = 0; adapter < 2; adapter++) {
            std::vector<Set> sets;
            for (int i = 0; i < 3; i++) sets.push_back(make(shape, adapter));
            for (int backward = 0; backward < 2; backward++) us[adapter][backward] = time(sets, backward);
            for (Set &set : sets) release(set);
        }
        double flops = 2.0 * static_cast<double>(shape.M) * static_cast<double>(shape.K) * static_cast<double>(shape.N);
        printf("{\"M\": %lld, \"K\": %lld, \"N\": %lld, \"r\": %lld, \"dropout\": %g, \"frozen_forward_us\": %.1f, "
               "\"frozen_dx_us\": %.1f, \"forward_us\": %.1f, \"backward_us\": %.1f, \"frozen_forward_tflops\": %.0f, "
               "\"frozen_dx_tflops\": %.0f}\n",
               static_cast<long long>(shape.M), static_cast<long long>(shape.K), static_cast<long long>(shape.N),
               static_cast<long long>(shape.R), static_cast<double>(shape.p), us[0][0], us[0][1], us[1][0], us[1][1],
               flops / us[0][0] * 1e-6, flops / us[0][1] * 1e-6);
        fflush(stdout);
    }
}
