/* The parts of the products of a few rows (codes_rows.cuh), added up. */
#include "dropout.cuh"
#include "lora_codes.cuh"

namespace l4j {

constexpr int kSumThreads = 256, kSumRows = 4; /* of a block: a column for each thread, and rows */

/* Output = old dx, or bias, + (low-rank product + sum of the parts). */
template <bool BACK>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ Parts parts) {
    await_previous();
    int z = BACK ? 0 : blockIdx.z;
    int64_t N = BACK ? p.K : p.projection[z].n, n = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x,
            m0 = static_cast<int64_t>(blockIdx.y) * kSumRows;
    if (n >= N) return;
    auto each_row = [&](auto f) {
#pragma unroll
        for (int i = 0; i < kSumRows; i++) {
            if (m0 + i < p.M) f(i, m0 + i);
        }
    };
    float sum[kSumRows] = {}, low[kSumRows] = {};
#pragma unroll 4
    for (int part = 0; part < parts.count[z]; part++) {
        const float *own = parts.sums[z] + (part * p.M + m0) * N + n;
        each_row([&](int i, int64_t) {
            sum[i] = part ? sum[i] + *own : *own;
            own += N;
        });
    }
    bool any = false;
    for (int g = BACK ? 0 : z; g < (BACK ? p.projections : z + 1); g++) {
        const Projection &projection = p.projection[g];
        if (projection.width == 0 || !p.adapters) continue;
        const Adapter &adapter = adapter_of(p, 0, g);
        const View &left = BACK ? projection.ds : projection.s;
        float own[kSumRows] = {};
        for (int r = 0; r < adapter.rank; r++) {
            float right = to_float(from_float<bf16>(BACK ? read(adapter.a, r, n) : read(adapter.b, n, r)));
            each_row([&](int i, int64_t m) { own[i] = __fmaf_rn(read(left, m, r), right, own[i]); });
        }
        if (BACK && p.threshold) {
            Dropout drop = dropout_of(p, 0, g);
            each_row([&](int i, int64_t m) { own[i] = drop.kept(m, n) ? own[i] : 0.0f; });
        }
        each_row([&](int i, int64_t) { low[i] = any ? low[i] + own[i] : own[i]; });
        any = true;
    }
    each_row([&](int i, int64_t m) {
        float v = any ? low[i] + sum[i] : sum[i];
        if (BACK) {
            if (p.flags & L4J_LORA_ACCUMULATE_DX) v = read(p.dx, m, n) + v;
            write(p.dx, m, n, v);
        } else {
            const Projection &projection = p.projection[z];
            if (projection.bias.data) v = read(projection.bias, n) + v;
            write(projection.y, m, n, v);
        }
    });
}

cudaError_t launch_sum(const l4j_queue *queue, const LoraParams &p, const Parts &parts, bool backward) {
    int64_t widest = backward ? p.K : 0;
    for (int g = 0; g < p.projections && !backward; g++)
        widest = widest > p.projection[g].n ? widest : p.projection[g].n;
    dim3 grid(blocks(widest, kSumThreads), blocks(p.M, kSumRows), backward ? 1 : p.projections);
    return backward ? launch_next(queue, sum_kernel<true>, grid, kSumThreads, 0, p, parts)
                    : launch_next(queue, sum_kernel<false>, grid, kSumThreads, 0, p, parts);
}

} // namespace l4j
