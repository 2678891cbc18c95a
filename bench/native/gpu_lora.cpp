// The low-rank linear on a GPU: microseconds of forward and backward by graph replay, operands rotated so that no call finds its own in
// the cache, beside the frozen product of the same kernels. One JSON object for each shape.
//   gpu_lora [device [shape ...]]     shapes by number, from 0; all without any. Needs liblora4j_cuda.so beside liblora4j.so or in
//                                     LORA4J_CUDA_LIBRARY
#include "gpu_bench.h"

#include <iterator>

namespace {

l4j_tensor matrix(void *data, int32_t dtype, int64_t rows, int64_t cols) { return tensor(data, dtype, {rows, cols}); }

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
    double median = microseconds(
        [&] {
            for (Set &set : sets) {
                must(backward ? l4j_lora_backward(queue, &set.args, workspace, bytes, &failure)
                              : l4j_lora_forward(queue, &set.args, workspace, bytes, &failure));
            }
        },
        sets.size());
    must(l4j_memory_free(device, workspace, &failure));
    return median;
}

} // namespace

int main(int argc, char **argv) {
    open_gpu(argc, argv);
    const Shape shapes[] = {{8192, 4096, 4096, 16, 0}, {8192, 4096, 4096, 16, 0.1f}, {8192, 4096, 14336, 16, 0},
                            {8192, 2048, 8192, 16, 0}, {2048, 4096, 4096, 16, 0},    {2048, 4096, 4096, 16, 0.1f},
                            {512, 4096, 4096, 16, 0},  {512, 576, 1536, 16, 0},      {64, 4096, 4096, 16, 0}};
    std::vector<Shape> chosen;
    for (int i = 2; i < argc; i++) chosen.push_back(shapes[static_cast<size_t>(atoi(argv[i])) % std::size(shapes)]);
    if (chosen.empty()) chosen.assign(std::begin(shapes), std::end(shapes));
    for (const Shape &shape : chosen) {
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
