/*
 * dB = dyᵀ·s and dA = dsᵀ·(mask ⊙ x): the contraction runs over an adapter's rows, in chunks of 512 counted from its first one. An
 * adapter of one chunk is written straight to its gradient; chunks of others go to the workspace and are added in order, so the bits
 * depend on the adapter's rows alone.
 */
#include "lora_kernels.cuh"

namespace l4j {

constexpr int kWide = 128, kRanks = 32;
template <class T> using GradientBlock = Block<T, kWide, kRanks, 8, 1>;

__device__ static Chunk chunk_of(const LoraParams &p, int64_t i) {
    if (p.segmented) return i < *p.sorted.chunk_count ? p.sorted.chunks[i] : Chunk{-1, 0, 0, -1};
    int64_t first = i * kChunkRows, rows = p.M - first < kChunkRows ? p.M - first : kChunkRows;
    return Chunk{0, static_cast<int32_t>(first), static_cast<int32_t>(rows),
                 p.M > kChunkRows ? static_cast<int32_t>(i) : -1};
}

/* DA: outputs are [K, ranks] of x and ds, else [n, ranks] of dy and s. */
template <class T, bool DA, bool DROP>
__global__ void __launch_bounds__(kThreads) gradient_kernel(const __grid_constant__ LoraParams p) {
    extern __shared__ uint4 raw[];
    T *shared = reinterpret_cast<T *>(raw);
    int g = blockIdx.z;
    const Projection &q = p.projection[g];
    Chunk chunk = chunk_of(p, blockIdx.x);
    int64_t wide = DA ? p.K : q.n, w0 = static_cast<int64_t>(blockIdx.y) * kWide;
    if (chunk.adapter < 0 || w0 >= wide) return;
    const Adapter &adapter = adapter_of(p, chunk.adapter, g);
    const View &out = DA ? adapter.da : adapter.db;
    if (adapter.rank == 0 || !out.data) return;
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
    const int32_t *gather = p.segmented ? p.sorted.rows : nullptr;
    int64_t k0 = chunk.first, k1 = k0 + chunk.rows;
    for (int64_t r0 = 0; r0 < adapter.rank; r0 += kRanks) {
        GradientBlock<T> acc;
        acc.clear();
        Operand left = operand<T>(DA ? p.x : q.dy, gather), right = operand<T>(DA ? q.ds : q.s, gather);
        if constexpr (DROP) {
            multiply<true, true>(acc, shared, left, w0, wide, right, r0, adapter.rank, k0, k1,
                                 TileMask{dropout_of(p, chunk.adapter, g), gather});
        } else {
            multiply<true, true>(acc, shared, left, w0, wide, right, r0, adapter.rank, k0, k1);
        }
#pragma unroll
        for (int e = 0; e < GradientBlock<T>::kCount; e++) {
            int64_t w = w0 + GradientBlock<T>::row(e), r = r0 + GradientBlock<T>::col(e);
            if (w >= wide || r >= adapter.rank) continue;
            if (chunk.slot >= 0) {
                if (DA) {
                    q.partial_da[(static_cast<int64_t>(chunk.slot) * q.width + r) * p.K + w] = acc.c[e];
                } else {
                    q.partial_db[(static_cast<int64_t>(chunk.slot) * q.n + w) * q.width + r] = acc.c[e];
                }
            } else {
                int64_t i = DA ? r : w, j = DA ? w : r;
                write(out, i, j, add ? read(out, i, j) + acc.c[e] : acc.c[e]);
            }
        }
    }
}

/* Adds up the chunks of adapters that have several; zeroes the gradients of those without rows. */
__global__ void finish_kernel(const __grid_constant__ LoraParams p) {
    int i = blockIdx.x, a = i / p.projections, g = i % p.projections;
    const Projection &q = p.projection[g];
    const Adapter &adapter = adapter_of(p, a, g);
    if (adapter.rank == 0) return;
    int64_t count = p.segmented ? p.sorted.count[a] : p.M;
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
    if (count > 0 && count <= kChunkRows) return;
    if (count == 0 && add) return;
    int64_t first = p.segmented ? p.sorted.slot[a] : 0, chunks = (count + kChunkRows - 1) / kChunkRows;
    for (int part = 0; part < 2; part++) {
        const View &out = part ? adapter.da : adapter.db;
        if (!out.data) continue;
        int64_t rows = part ? adapter.rank : q.n, cols = part ? p.K : adapter.rank, row_length = part ? p.K : q.width;
        int64_t slot_size = part ? q.width * p.K : q.n * q.width;
        const float *partial = part ? q.partial_da : q.partial_db;
        for (int64_t e = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; e < rows * cols;
             e += static_cast<int64_t>(gridDim.y) * blockDim.x) {
            int64_t row = e / cols, col = e % cols;
            float sum = 0.0f;
            for (int64_t c = 0; c < chunks; c++) sum += partial[(first + c) * slot_size + row * row_length + col];
            write(out, row, col, add ? read(out, row, col) + sum : sum);
        }
    }
}

template <class T>
static cudaError_t start(const l4j_queue *queue, const LoraParams &p, int64_t chunks, bool da, int64_t widest) {
    dim3 grid(static_cast<unsigned>(chunks), blocks(widest, kWide), p.projections);
    constexpr size_t bytes = GradientBlock<T>::kShared;
    if (!da) return launch(queue, gradient_kernel<T, false, false>, grid, kThreads, bytes, p);
    return p.threshold ? launch(queue, gradient_kernel<T, true, true>, grid, kThreads, bytes, p)
                       : launch(queue, gradient_kernel<T, true, false>, grid, kThreads, bytes, p);
}

cudaError_t launch_gradients(const l4j_queue *queue, const LoraParams &p, int64_t chunks, int32_t dtype) {
    int64_t widest = 0;
    for (int g = 0; g < p.projections; g++) widest = p.projection[g].n > widest ? p.projection[g].n : widest;
    for (bool da : {false, true}) {
        cudaError_t status = with_dtype(
            dtype, [&](auto zero) { return start<decltype(zero)>(queue, p, chunks, da, da ? p.K : widest); });
        if (status != cudaSuccess) return status;
    }
    if (!p.segmented && p.M > 0 && p.M <= kChunkRows) return cudaSuccess;
    int64_t entries = static_cast<int64_t>(p.adapters) * p.projections;
    return launch(queue, finish_kernel, dim3(static_cast<unsigned>(entries), entries > 64 ? 8 : 64), 256, 0, p);
}

} // namespace l4j
