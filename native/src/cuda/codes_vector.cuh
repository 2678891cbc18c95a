/*
 * y of up to kVectorRows rows by a quantized weight. The weight is the 16 x 16 operand A of the tensor cores and x the 16 x 8 operand B:
 * a lane decodes a unit of two rows of the weight, and of the contraction's 128 columns at hand step s takes columns 4s to 4s + 3 of
 * every unit; x is read in the same order. So codes go from memory into fragments, and each is read once. A block takes one 16 rows of
 * the weight after another, and its loads run ahead into the next ones.
 * Order: of eight sums sum w takes the 128 columns at 128 · w, 128 · (w + 8), ...; they are added in order, then behind s · B.
 */
#pragma once

#include "codes_decoder.cuh"
#include "lora_codes.cuh"
#include "tile.cuh"

namespace l4j {

constexpr int kVectorWarps = 8, kVectorThreads = 32 * kVectorWarps;

/* Two rows' units at a place of the contraction. */
template <class Format> struct UnitPair { Unit<Format> row[2]; };
/* Fragments of A of two rows' octets: columns 0 to 3 and 4 to 7. */
__device__ inline void fragments_of_rows(const float (&w)[2][8], uint32_t (&a)[2][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        a[i][0] = packed<bf16>(w[0][4 * i], w[0][4 * i + 1]);
        a[i][1] = packed<bf16>(w[1][4 * i], w[1][4 * i + 1]);
        a[i][2] = packed<bf16>(w[0][4 * i + 2], w[0][4 * i + 3]);
        a[i][3] = packed<bf16>(w[1][4 * i + 2], w[1][4 * i + 3]);
    }
}

/* `pairs` pairs of a row of x whose rows lie anyhow. */
static __device__ __noinline__ void read_pairs(const View &x, int64_t m, int64_t k, int pairs, uint32_t *to) {
    for (int i = 0; i < pairs; i++) to[i] = packed<bf16>(read(x, m, k + 2 * i), read(x, m, k + 2 * i + 1));
}

/* What the warps of a block have summed of 16 rows of the weight, [row][m]. */
using VectorSums = float[kVectorWarps][16][8];

/* y of the 16 columns from 16 * tile on: the warps' sums in order, behind s · B; then the bias. */
__device__ inline void store_sums(const LoraParams &p, int z, int tile, const VectorSums &sums) {
    const Projection &projection = p.projection[z];
    int r = static_cast<int>(threadIdx.x) / 8, m = threadIdx.x % 8, n = tile * 16 + r;
    if (r >= 16 || n >= projection.n || m >= p.M) return;
    float sum = sums[0][r][m];
#pragma unroll
    for (int w = 1; w < kVectorWarps; w++) sum += sums[w][r][m];
    if (projection.width && p.adapters) {
        const Adapter &adapter = adapter_of(p, 0, z);
        float low = 0.0f;
        for (int i = 0; i < adapter.rank; i++) {
            low = __fmaf_rn(read(projection.s, m, i), to_float(from_float<bf16>(read(adapter.b, n, i))), low);
        }
        sum = low + sum;
    }
    if (projection.bias.data) sum = read(projection.bias, n) + sum;
    write(projection.y, m, n, sum);
}

template <class Format>
__global__ void __launch_bounds__(kVectorThreads, 2)
    codes_vector_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set) {
    constexpr int AHEAD = Format::kWords == 1 ? 4 : Format::kWords < 4 ? 2 : 1; /* steps */
    extern __shared__ uint4 raw[];
    __shared__ VectorSums sums[2];
    int z = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const Coded &q = set.of[z];
    int N = static_cast<int>(p.projection[z].n), tiles = (N + 15) / 16;
    int units = static_cast<int>(p.K / kUnit), steps = (units + 3) / 4,
        slots = (steps + kVectorWarps - 1) / kVectorWarps;
    int mine = (steps - warp + kVectorWarps - 1) / kVectorWarps;          /* slot i is step warp + i · kVectorWarps */
    int whole = mine - (units % 4 && (steps - 1) % kVectorWarps == warp); /* slots of four units */
    bool fast = rows_are_aligned(p.x, L4J_BF16);
    int64_t m = group < p.M ? group : 0; /* lanes without a row repeat the first: nobody reads their sums */
    const char *x = held(p.x.data + m * p.x.s0 * 2);
    int unit = held(warp * 4 + t); /* of slot 0 */

    UnitPair<Format> ahead[AHEAD];
    auto fetch = [&](UnitPair<Format> &own, int tile, int i) {
        if (tile >= tiles || i >= mine) return;
        int u = unit + i * (4 * kVectorWarps), n = tile * 16 + group;
        u = u < units ? u : units - 1;
#pragma unroll
        for (int h = 0; h < 2; h++) own.row[h].load(q, n + 8 * h < N ? n + 8 * h : N - 1, u);
    };
    int tile = static_cast<int>(blockIdx.x);
#pragma unroll
    for (int d = 0; d < AHEAD; d++) fetch(ahead[d], tile, d);
    Decoder<Format> decoder(q, raw);
    __syncthreads();

    float c[4];
    auto one = [&](const UnitPair<Format> &own, int i) {
        int u = unit + i * (4 * kVectorWarps);
        bool there = u < units;
        u = there ? u : units - 1;
        uint32_t xs[kUnit / 2];
        if (fast) {
            const uint4 *from = reinterpret_cast<const uint4 *>(x + static_cast<int64_t>(u) * kUnit * 2);
#pragma unroll
            for (int k = 0; k < kUnit / 8; k++) {
                uint4 v = __ldg(from + k);
                xs[4 * k] = v.x;
                xs[4 * k + 1] = v.y;
                xs[4 * k + 2] = v.z;
                xs[4 * k + 3] = v.w;
            }
        } else {
            uint32_t slow[kUnit / 2];
            read_pairs(p.x, m, static_cast<int64_t>(u) * kUnit, kUnit / 2, slow);
#pragma unroll
            for (int k = 0; k < kUnit / 2; k++) xs[k] = slow[k];
        }
        if (i >= whole) {                  /* the last step is not whole */
            asm volatile("" ::: "memory"); /* a branch, rather than sixteen selections every time */
#pragma unroll
            for (uint32_t &v : xs) v = there ? v : 0;
        }
        typename Decoder<Format>::Scale scale[2];
#pragma unroll
        for (int h = 0; h < 2; h++) scale[h] = decoder.scale(q, own.row[h].head, u);
#pragma unroll
        for (int o = 0; o < 4; o++) {
            float w[2][8];
            uint32_t a[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++) decoder.values(scale[h], own.row[h].codes[o], u, o, w[h]);
            fragments_of_rows(w, a);
#pragma unroll
            for (int k = 0; k < 2; k++) mma<bf16>(c, a[k], xs[4 * o + 2 * k], xs[4 * o + 2 * k + 1]);
        }
    };
    for (int parity = 0; tile < tiles; tile += static_cast<int>(gridDim.x), parity ^= 1) {
#pragma unroll
        for (float &v : c) v = 0.0f;
        for (int i = 0; i < slots; i += AHEAD) {
#pragma unroll
            for (int d = 0; d < AHEAD; d++) {
                if (i + d < mine) one(ahead[d], i + d);
                bool last = i + AHEAD >= slots; /* of this tile */
                fetch(ahead[d], last ? tile + static_cast<int>(gridDim.x) : tile, last ? d : i + d + AHEAD);
            }
        }
        /* Two sets of sums: while some still read one, others write the other. */
#pragma unroll
        for (int e = 0; e < 4; e++) sums[parity][warp][group + e / 2 * 8][t * 2 + e % 2] = c[e];
        __syncthreads();
        store_sums(p, z, tile, sums[parity]);
    }
}

/* About as many blocks as there is room for, each for 16 rows of the weight after another. */
inline dim3 vector_grid(const l4j_queue *queue, const LoraParams &p) {
    int64_t widest = 0;
    for (int g = 0; g < p.projections; g++) widest = widest > p.projection[g].n ? widest : p.projection[g].n;
    int64_t tiles = ceil_div(widest, 16), resident = ceil_div(2 * queue->threads, p.projections);
    return dim3(static_cast<unsigned>(tiles < resident ? tiles : resident), 1, p.projections);
}

template <class Format> cudaError_t launch_vector(const l4j_queue *queue, const LoraParams &p, const CodedSet &set) {
    return launch(queue, codes_vector_kernel<Format>, vector_grid(queue, p), kVectorThreads, Decoder<Format>::kShared,
                  p, set);
}

} // namespace l4j
