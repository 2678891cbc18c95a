/*
 * A few rows by a quantized weight. The weight is the 16 x 16 operand A of the tensor cores and x the 16 x 8 operand B: a lane decodes a
 * unit of two rows of the weight, and of the contraction's 128 columns at hand step s takes columns 4s to 4s + 3 of every unit; x is
 * read in the same order. So codes go from memory into fragments, and each is read once.
 * Order: of four sums sum w takes the 128 columns at 128 · w, 128 · (w + 4), ...; they are added in order, then behind s · B.
 */
#pragma once

#include "codes_tile.cuh"

namespace l4j {

constexpr int kVectorWarps = 4, kVectorThreads = 32 * kVectorWarps, kVectorAhead = 2;

/* Two rows' units at a place of the contraction. */
template <class Format> struct RawRows { Raw<Format> row[2]; };

template <class Format>
__global__ void __launch_bounds__(kVectorThreads)
    codes_vector_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set) {
    using T = bf16;
    __shared__ float sums[kVectorWarps][16][8];
    int z = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const Projection &projection = p.projection[z];
    const Coded &q = set.of[z];
    int64_t N = projection.n, n0 = static_cast<int64_t>(blockIdx.x) * 16;
    if (n0 >= N) return;
    int64_t rows[2] = {n0 + group < N ? n0 + group : N - 1, n0 + group + 8 < N ? n0 + group + 8 : N - 1};
    int units = static_cast<int>(p.K / kUnit), steps = (units + 3) / 4;
    bool fast = rows_are_aligned(p.x, L4J_BF16), live = group < p.M;
    const char *x = p.x.data + (live ? group : 0) * p.x.s0 * 2;

    RawRows<Format> ahead[kVectorAhead];
    auto fetch = [&](RawRows<Format> &raw, int j) {
        int u = j * 4 + t < units ? j * 4 + t : units - 1;
#pragma unroll
        for (int h = 0; h < 2; h++) raw.row[h].load(q, rows[h], u);
    };
#pragma unroll
    for (int d = 0; d < kVectorAhead; d++) {
        if (warp + d * kVectorWarps < steps) fetch(ahead[d], warp + d * kVectorWarps);
    }
    float c[4] = {0, 0, 0, 0};
    auto one = [&](RawRows<Format> &raw, int j) {
        int u = j * 4 + t;
        bool there = u < units, whole = j * 4 + 4 <= units;
        u = there ? u : units - 1;
        uint32_t xs[kUnit / 2];
        if (!live || !there) {
#pragma unroll
            for (int i = 0; i < kUnit / 2; i++) xs[i] = 0;
        } else if (fast) {
            const uint4 *from = reinterpret_cast<const uint4 *>(x + static_cast<int64_t>(u) * kUnit * 2);
#pragma unroll
            for (int i = 0; i < kUnit / 8; i++) {
                uint4 v = __ldg(from + i);
                xs[4 * i] = v.x;
                xs[4 * i + 1] = v.y;
                xs[4 * i + 2] = v.z;
                xs[4 * i + 3] = v.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < kUnit / 2; i++) {
                int64_t k = static_cast<int64_t>(u) * kUnit + 2 * i;
                xs[i] = pack<T>(read(p.x, group, k), read(p.x, group, k + 1));
            }
        }
        typename Format::Scale scale[2] = {Format::scale(q, raw.row[0].head, u), Format::scale(q, raw.row[1].head, u)};
#pragma unroll
        for (int o = 0; o < 4; o++) {
            float w[2][8];
#pragma unroll
            for (int h = 0; h < 2; h++) Format::values(scale[h], raw.row[h].codes[o], o, w[h]);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t a[4] = {pack<T>(w[0][4 * i], w[0][4 * i + 1]), pack<T>(w[1][4 * i], w[1][4 * i + 1]),
                                 pack<T>(w[0][4 * i + 2], w[0][4 * i + 3]), pack<T>(w[1][4 * i + 2], w[1][4 * i + 3])};
                if (!whole) {
#pragma unroll
                    for (uint32_t &pair : a) pair = there ? pair : 0;
                }
                mma<T>(c, a, xs[4 * o + 2 * i], xs[4 * o + 2 * i + 1]);
            }
        }
    };
    for (int j = warp; j < steps; j += kVectorAhead * kVectorWarps) {
#pragma unroll
        for (int d = 0; d < kVectorAhead; d++) {
            int at = j + d * kVectorWarps;
            if (at >= steps) break;
            RawRows<Format> own = ahead[d];
            if (at + kVectorAhead * kVectorWarps < steps) fetch(ahead[d], at + kVectorAhead * kVectorWarps);
            one(own, at);
        }
    }
#pragma unroll
    for (int e = 0; e < 4; e++) sums[warp][group + e / 2 * 8][t * 2 + e % 2] = c[e];
    __syncthreads();

    int64_t n = n0 + threadIdx.x / 8, m = threadIdx.x % 8;
    if (n >= N || m >= p.M) return;
    float sum = sums[0][threadIdx.x / 8][m];
#pragma unroll
    for (int w = 1; w < kVectorWarps; w++) sum += sums[w][threadIdx.x / 8][m];
    if (projection.width && p.adapters) {
        const Adapter &adapter = adapter_of(p, 0, z);
        float low = 0.0f;
        for (int r = 0; r < adapter.rank; r++) {
            low = __fmaf_rn(read(projection.s, m, r), to_float(from_float<T>(read(adapter.b, n, r))), low);
        }
        sum = low + sum;
    }
    if (p.row_scale) sum *= p.row_scale[m];
    if (projection.bias.data) sum = read(projection.bias, n) + sum;
    write(projection.y, m, n, sum);
}

#define L4J_VECTOR_OF(format)                                                                                         \
    cudaError_t launch_vector_##format(const l4j_queue *queue, const LoraParams &p, const CodedSet &set) {            \
        int64_t widest = 0;                                                                                           \
        for (int g = 0; g < p.projections; g++) widest = widest > p.projection[g].n ? widest : p.projection[g].n;     \
        return launch(queue, codes_vector_kernel<format>, dim3(blocks(widest, 16), 1, p.projections), kVectorThreads, \
                      0, p, set);                                                                                     \
    }

} // namespace l4j
