/* Which kernel a product takes. */
#include "cublas.cuh"
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

static cudaError_t launch_own(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c, int32_t dtype) {
    switch (dtype) {
    case L4J_BF16: return launch_gemm_bf16(queue, p, c);
    case L4J_F16: return launch_gemm_f16(queue, p, c);
    default: return launch_gemm_f32(queue, p, c);
    }
}

/* The base product of projection g, added to the low-rank one or to the old dx. */
static CublasProduct base_product(const LoraParams &p, int g, bool backward) {
    const Projection &q = p.projection[g];
    bool add = q.width > 0 || (backward && (p.flags & L4J_LORA_ACCUMULATE_DX));
    return backward ? CublasProduct{q.dy, q.w, p.dx, p.M, p.K, q.n, true, add}
                    : CublasProduct{p.x, q.w, q.y, p.M, q.n, p.K, false, add};
}

/* Measured on an H100 (bench/results/h100-cuda.md): from 256 rows of wide layers on, cuBLASLt and a pass of ours over the output are
   faster than ours alone. Several adapters stay with the kernels that give a row the same bits in every batch, unless told otherwise. */
static bool takes_cublas(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c, int32_t dtype) {
    constexpr int64_t kRows = 256, kWidth = 1024;
    bool invariant = p.segmented && !(p.flags & L4J_LORA_BATCH_DEPENDENT);
    if (!c.fast || invariant || p.fold || p.row_scale || p.M < kRows || p.K < kWidth ||
        (c.backward && p.projections > 1))
        return false;
    for (int g = 0; g < p.projections; g++) {
        const Projection &q = p.projection[g];
        if (q.n < kWidth || q.bias.data || !rows_are_aligned(c.backward ? p.dx : q.y, dtype)) return false;
        if (!cublas_has(queue, base_product(p, g, c.backward))) return false;
    }
    return true;
}

static cudaError_t launch_cublas(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c, int32_t dtype) {
    cudaError_t status = cudaSuccess;
    if (p.adapters && !p.low_rank_there) {
        LoraParams low = p;
        low.low_rank_only = true;
        status = launch_own(queue, low, c, dtype);
    }
    for (int g = 0; g < p.projections && status == cudaSuccess; g++) {
        status = cublas_multiply(queue, base_product(p, g, c.backward));
    }
    return status;
}

static GemmChoice choose(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    GemmChoice c = {};
    c.backward = backward;
    c.multi = p.segmented || p.fold || (backward && p.threshold && p.projections > 1);
    c.fast = dtype != L4J_F32 && aligned(p, backward, dtype);
    c.widest = backward ? p.K : 0;
    for (int g = 0; g < p.projections && !backward; g++) {
        c.widest = p.projection[g].n > c.widest ? p.projection[g].n : c.widest;
    }
    c.multiprocessors = queue->threads;
    return c;
}

bool takes_cublas(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    return takes_cublas(queue, p, choose(queue, p, backward, dtype), dtype);
}

cudaError_t launch_gemm(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    GemmChoice c = choose(queue, p, backward, dtype);
    cudaError_t status = cudaDeviceGetAttribute(&c.shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, queue->device->id);
    if (status != cudaSuccess) return status;
    return takes_cublas(queue, p, c, dtype) ? launch_cublas(queue, p, c, dtype) : launch_own(queue, p, c, dtype);
}

} // namespace l4j
