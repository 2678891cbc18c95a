// Causal attention on a GPU: microseconds of forward and backward by graph replay at the head layouts of two models; bench/cublas.py
// has the same shapes in PyTorch. One JSON object for each shape.
//   gpu_attention [device]     needs liblora4j_cuda.so beside liblora4j.so or in LORA4J_CUDA_LIBRARY
#include "gpu_bench.h"

namespace {

struct Shape {
    int64_t sequences, q_heads, kv_heads, length, depth;
};

int32_t *integers(const std::vector<int32_t> &host) {
    void *memory;
    must(l4j_memory_allocate(device, host.size() * 4, &memory, &failure));
    must(l4j_memory_copy(queue, memory, host.data(), host.size() * 4, &failure));
    must(l4j_queue_synchronize(queue, &failure));
    return static_cast<int32_t *>(memory);
}

void measure(const Shape &shape) {
    auto [B, H, G, L, D] = shape;
    auto bf16_tensor = [&](int64_t heads) { return tensor(values(B * L * heads * D, 1), L4J_BF16, {B * L, heads, D}); };
    l4j_tensor q = bf16_tensor(H), k = bf16_tensor(G), v = bf16_tensor(G), o = bf16_tensor(H), d_o = bf16_tensor(H);
    l4j_tensor dq = bf16_tensor(H), dk = bf16_tensor(G), dv = bf16_tensor(G);
    l4j_tensor lse = tensor(values(2 * B * L * H, 0), L4J_F32, {B * L, H});
    std::vector<int32_t> offsets, lengths(static_cast<size_t>(B), static_cast<int32_t>(L));
    for (int64_t b = 0; b <= B; b++) offsets.push_back(static_cast<int32_t>(b * L));
    l4j_attention args = {};
    args.struct_size = sizeof args;
    args.flags = L4J_ATTENTION_CAUSAL;
    args.scale = D == 128 ? 0.08838834765f : 0.125f;
    args.sequences = static_cast<int32_t>(B);
    args.max_q_length = args.max_kv_length = L;
    args.q_offsets = args.kv_starts = integers(offsets);
    args.kv_lengths = integers(lengths);
    args.q = &q;
    args.k = &k;
    args.v = &v;
    args.o = &o;
    args.lse = &lse;
    args.d_o = &d_o;
    args.dq = &dq;
    args.dk = &dk;
    args.dv = &dv;
    size_t bytes = 0;
    must(l4j_attention_backward_workspace(queue, &args, &bytes, &failure)); /* more than forward's */
    void *workspace;
    must(l4j_memory_allocate(device, bytes, &workspace, &failure));
    double forward = microseconds([&] { must(l4j_attention_forward(queue, &args, workspace, bytes, &failure)); }, 1);
    double backward = microseconds([&] { must(l4j_attention_backward(queue, &args, workspace, bytes, &failure)); }, 1);
    double flops = 2.0 * static_cast<double>(B * H * L * L * D); /* of the causal half of the two products of forward */
    printf("{\"sequences\": %lld, \"q_heads\": %lld, \"kv_heads\": %lld, \"length\": %lld, \"depth\": %lld, "
           "\"forward_us\": %.1f, \"backward_us\": %.1f, \"forward_tflops\": %.0f, \"backward_tflops\": %.0f}\n",
           static_cast<long long>(B), static_cast<long long>(H), static_cast<long long>(G), static_cast<long long>(L),
           static_cast<long long>(D), forward, backward, flops / forward * 1e-6, 2.5 * flops / backward * 1e-6);
    fflush(stdout);
    for (void *p : {q.data, k.data, v.data, o.data, d_o.data, dq.data, dk.data, dv.data, lse.data, workspace}) {
        must(l4j_memory_free(device, p, &failure));
    }
}

} // namespace

int main(int argc, char **argv) {
    open_gpu(argc, argv);
    for (const Shape &shape : {Shape{2, 32, 8, 2048, 128}, Shape{8, 9, 3, 1024, 64}}) measure(shape);
}
