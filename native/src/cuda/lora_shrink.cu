/* s = c · (mask ⊙ x)·Aᵀ and ds = c · dy·B: a block of rows by the ranks, over the whole contraction. */
#include "lora_kernels.cuh"

namespace l4j {

constexpr int kRows = 64, kRanks = 32;
template <class T> using ShrinkBlock = Block<T, kRows, kRanks, 4, 2>;

/* Values that a step may change: one block looks at them. */
__device__ static void check_values(const LoraParams &p, int g) {
    for (int a = threadIdx.x; a < p.adapters; a += kThreads) {
        if (adapter_of(p, a, g).rank == 0) continue;
        if (!isfinite(p.scaling[a * p.projections + g])) report(p.fault, kBadScaling, a * p.projections + g, 0, 0);
        if (p.threshold && (p.adapter_id[a] < 0 || p.adapter_id[a] > 65535)) {
            report(p.fault, kBadAdapterId, a, p.adapter_id[a], 65535);
        }
        if (p.threshold && (p.module_id[g] < 0 || p.module_id[g] > 65535)) {
            report(p.fault, kBadModule, g, p.module_id[g], 65535);
        }
    }
}

template <class T, bool BACK, bool DROP>
__global__ void __launch_bounds__(kThreads) shrink_kernel(const __grid_constant__ LoraParams p) {
    extern __shared__ uint4 raw[];
    __shared__ RowAdapters<kRows> rows;
    T *shared = reinterpret_cast<T *>(raw);
    int g = blockIdx.z;
    const Projection &q = p.projection[g];
    int64_t m0 = static_cast<int64_t>(blockIdx.x) * kRows, r0 = static_cast<int64_t>(blockIdx.y) * kRanks;
    if (r0 >= q.width) return;
    if (blockIdx.x == 0 && blockIdx.y == 0) check_values(p, g);
    rows.load(p, m0);
    for (int a = rows.next(-1); a >= 0; a = rows.next(a)) {
        const Adapter &adapter = adapter_of(p, a, g);
        if (r0 >= adapter.rank) continue;
        ShrinkBlock<T> acc;
        acc.clear();
        if constexpr (BACK) {
            multiply<false, true>(acc, shared, operand<T>(q.dy), m0, p.M, operand<T>(adapter.b), r0, adapter.rank, 0,
                                  q.n);
        } else if constexpr (DROP) {
            multiply<false, false>(acc, shared, operand<T>(p.x), m0, p.M, operand<T>(adapter.a), r0, adapter.rank, 0,
                                   p.K, TileMask{dropout_of(p, a, g), nullptr});
        } else {
            multiply<false, false>(acc, shared, operand<T>(p.x), m0, p.M, operand<T>(adapter.a), r0, adapter.rank, 0,
                                   p.K);
        }
        float c = lora_factor(p, a, g);
        const View &out = BACK ? q.ds : q.s;
#pragma unroll
        for (int e = 0; e < ShrinkBlock<T>::kCount; e++) {
            int row = ShrinkBlock<T>::row(e);
            int64_t m = m0 + row, r = r0 + ShrinkBlock<T>::col(e);
            if (m < p.M && r < adapter.rank && rows.of[row] == a) write(out, m, r, acc.c[e] * c);
        }
    }
}

cudaError_t launch_shrink(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    int width = 0;
    for (int g = 0; g < p.projections; g++) width = p.projection[g].width > width ? p.projection[g].width : width;
    dim3 grid(blocks(p.M, kRows), blocks(width, kRanks), p.projections);
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr size_t bytes = ShrinkBlock<T>::kShared;
        if (backward) return launch(queue, shrink_kernel<T, true, false>, grid, kThreads, bytes, p);
        return p.threshold ? launch(queue, shrink_kernel<T, false, true>, grid, kThreads, bytes, p)
                           : launch(queue, shrink_kernel<T, false, false>, grid, kThreads, bytes, p);
    });
}

} // namespace l4j
