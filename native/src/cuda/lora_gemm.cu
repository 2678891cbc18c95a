/* Which kernel a product takes. */
#include "lora_gemm.cuh"

namespace l4j {

static bool pairs(const View &out) {
    size_t bytes = 2 * static_cast<size_t>(element_bytes(out.dtype));
    return out.s1 == 1 && out.s0 % 2 == 0 && reinterpret_cast<uintptr_t>(out.data) % bytes == 0;
}

/* Whether all operands may be copied 16 bytes at a time, and outputs written two values at a time. */
static bool aligned(const LoraParams &p, bool backward, int32_t dtype) {
    auto rows = [&](const View &v) { return rows_are_aligned(v, dtype); };
    bool good = p.adapters_aligned && p.K % 8 == 0 && (backward ? pairs(p.dx) : rows(p.x));
    for (int g = 0; g < p.projections; g++) {
        const Projection &q = p.projection[g];
        good &= q.n % 8 == 0 && rows(q.w) && (backward ? rows(q.dy) : pairs(q.y));
        if (q.width) good &= rows(backward ? q.ds : q.s);
    }
    return good;
}

cudaError_t launch_gemm(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    GemmChoice c = {};
    c.backward = backward;
    c.multi = p.segmented || p.fold || (backward && p.threshold && p.projections > 1);
    c.fast = dtype != L4J_F32 && aligned(p, backward, dtype);
    c.widest = backward ? p.K : 0;
    for (int g = 0; g < p.projections && !backward; g++) {
        c.widest = p.projection[g].n > c.widest ? p.projection[g].n : c.widest;
    }
    c.multiprocessors = queue->threads;
    switch (dtype) {
    case L4J_BF16: return launch_gemm_bf16(queue, p, c);
    case L4J_F16: return launch_gemm_f16(queue, p, c);
    default: return launch_gemm_f32(queue, p, c);
    }
}

} // namespace l4j
