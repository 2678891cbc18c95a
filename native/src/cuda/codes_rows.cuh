/*
 * y of more than kVectorRows rows and dx of any, up to kFewRows, by a quantized weight. The weight, or its transpose, is the operand A
 * of the tensor cores and is decoded straight into its fragments, once for all rows; the activations are B, from shared memory. A
 * contraction is taken in parts (Parts), each a sum of its own; sum_parts (codes_sum.cu) adds them in order.
 *   y   a warp has 16 rows of the weight. In a step of 128 columns a lane decodes a unit of two rows, as in codes_vector.cuh
 *   dx  a lane decodes the same columns of four rows of the weight, rows 4t to 4t + 3 of 16, and packs values of two rows. Of up to
 *       kVectorRows rows OCTETS is 4: it has a unit, a warp 256 columns, and warp w takes the 16 rows at 16 · w of every 64. Of more
 *       OCTETS is 1: it has an octet, a warp 64 columns, and takes all rows
 */
#pragma once

#include "codes_vector.cuh"

namespace l4j {

constexpr int kRing = 3;          /* of activations in shared memory */
constexpr int kForwardStep = 128; /* columns */
constexpr int kBackwardStep = 64; /* rows of the weight */
constexpr int kForwardThreads = 256, kBackwardThreads = 128;

/* Columns [c0, c0 + COLS) of the first `count` rows of an activation, zeros outside of [rows, cols]. Chunk c of 16 bytes of row r lies at
   place(r, c). */
template <int COLS, int THREADS, class Place>
__device__ void load_rows(bf16 *tile, const Operand &o, int count, int64_t rows, int64_t c0, int64_t cols,
                          Place place) {
    constexpr int CHUNKS = COLS / 8;
    for (int i = threadIdx.x; i < count * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS;
        load_chunk<bf16>(tile + r * COLS + place(r, c) * 8, o, r, rows, c0 + c * 8, cols);
    }
}
/* The eight lanes of a phase have two neighbouring rows at chunks 4t + o. */
__device__ inline int place_of_columns(int r, int c) { return c ^ (c >> 3 & 1) ^ (r & 1) << 1; }
/* The sixteen lanes of a phase have four neighbouring rows at halves of two chunks. */
__device__ inline int place_of_rows(int r, int c) { return c ^ (r & 3) << 1; }

/* ---- y ---- */

template <class Format>
__global__ void __launch_bounds__(kForwardThreads, 2)
    codes_forward_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set,
                         const __grid_constant__ Parts parts) {
    extern __shared__ uint4 raw[];
    int z = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const Coded &q = set.of[z];
    int64_t N = p.projection[z].n;
    int across = static_cast<int>((N + kForwardRows - 1) / kForwardRows), part = static_cast<int>(blockIdx.x) / across;
    if (part >= parts.count[z]) return;
    int64_t n0 = static_cast<int64_t>(blockIdx.x % static_cast<unsigned>(across)) * kForwardRows + warp * 16 + group;
    int units = static_cast<int>(p.K / kUnit), steps = (units + 3) / 4;
    int first = static_cast<int>(static_cast<int64_t>(steps) * part / parts.count[z]),
        end = static_cast<int>(static_cast<int64_t>(steps) * (part + 1) / parts.count[z]);
    int tiles = static_cast<int>(p.M + 7) / 8; /* of eight rows of x */
    bf16 *ring = reinterpret_cast<bf16 *>(reinterpret_cast<char *>(raw) + Decoder<Format>::kShared);
    Operand x = operand<bf16>(p.x);
    auto stage = [&](int i) { return ring + i % kRing * tiles * 8 * kForwardStep; };
    auto load = [&](int i) {
        if (i < end) {
            load_rows<kForwardStep, kForwardThreads>(stage(i), x, tiles * 8, p.M,
                                                     static_cast<int64_t>(i) * kForwardStep, p.K, place_of_columns);
        }
        commit();
    };
    UnitPair<Format> ahead[2];
    auto fetch = [&](UnitPair<Format> &own, int i) {
        if (i >= end) return;
        int u = i * 4 + t < units ? i * 4 + t : units - 1; /* x is zero where there is none */
#pragma unroll
        for (int h = 0; h < 2; h++) own.row[h].load(q, n0 + 8 * h < N ? n0 + 8 * h : N - 1, u);
    };
    load(first);
    load(first + 1);
    fetch(ahead[0], first);
    fetch(ahead[1], first + 1);
    Decoder<Format> decoder(q, raw);

    float c[kFewRows / 8][4];
#pragma unroll
    for (auto &tile : c) tile[0] = tile[1] = tile[2] = tile[3] = 0.0f;
    int turn = t >> 1 | (group & 1) << 1; /* place_of_columns(group, 4t + o) is 4t + (o ^ turn) */
    auto one = [&](UnitPair<Format> &own, int i) {
        wait<1>();
        __syncthreads(); /* step i is there, and all have left step i - 1 */
        load(i + 2);
        const bf16 *at = stage(i) + group * kForwardStep + t * kUnit;
        int u = i * 4 + t < units ? i * 4 + t : units - 1;
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
            const bf16 *octet = at + (o ^ turn) * 8;
#pragma unroll
            for (int j = 0; j < kFewRows / 8; j++) {
                if (j >= tiles) break;
                uint4 b = *reinterpret_cast<const uint4 *>(octet + j * 8 * kForwardStep);
                mma<bf16>(c[j], a[0], b.x, b.y);
                mma<bf16>(c[j], a[1], b.z, b.w);
            }
        }
        fetch(own, i + 2);
    };
    for (int i = first; i < end; i += 2) {
        one(ahead[0], i);
        if (i + 1 < end) one(ahead[1], i + 1);
    }
    wait<0>();
    float *sums = parts.sums[z] + part * p.M * N;
#pragma unroll
    for (int j = 0; j < kFewRows / 8; j++) {
        if (j >= tiles) break;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t m = j * 8 + t * 2 + e % 2, n = n0 + e / 2 * 8;
            if (m < p.M && n < N) sums[m * N + n] = c[j][e];
        }
    }
}

/* ---- dx ---- */

/* Where a contraction over the rows of all projections is: each begins with a step of its own. */
struct RowPlace {
    int g;
    int64_t n;

    __device__ RowPlace(int projection, int64_t row) : g(projection), n(row) {}
    __device__ RowPlace(const LoraParams &p, int64_t step) : g(0) {
        for (; g + 1 < p.projections && step >= steps_of(p, g); g++) step -= steps_of(p, g);
        n = step * kBackwardStep;
    }
    __device__ void move(const LoraParams &p, int rows) {
        n += rows;
        if (n >= steps_of(p, g) * kBackwardStep && g + 1 < p.projections) {
            g++;
            n = 0;
        }
    }
    __device__ static int64_t steps_of(const LoraParams &p, int g) {
        return (p.projection[g].n + kBackwardStep - 1) / kBackwardStep;
    }
};

/* Columns of four rows: OCTETS octets from octet `first` of unit u on. */
template <class Format, int OCTETS> struct FourRows {
    typename Format::Head head[4];
    uint32_t codes[4][OCTETS][Format::kWords];

    __device__ void load(const Coded &q, int64_t n, int64_t rows, int u, int first) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            int64_t row = n + r < rows ? n + r : rows - 1; /* dy is zero where there is none */
            if constexpr (OCTETS == 4) {
                Unit<Format> unit;
                unit.load(q, row, u);
                head[r] = unit.head;
#pragma unroll
                for (int o = 0; o < 4; o++) {
#pragma unroll
                    for (int i = 0; i < Format::kWords; i++) codes[r][o][i] = unit.codes[o][i];
                }
            } else {
                head[r] = Format::head(q, row, u);
                Format::codes(q, row, u, first, codes[r][0]);
            }
        }
    }
};

template <class Format, int OCTETS>
__global__ void __launch_bounds__(kBackwardThreads, OCTETS == 4 && Format::kWords == 1 ? 3 : 2)
    codes_backward_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set,
                          const __grid_constant__ Parts parts) {
    constexpr int TILES = OCTETS == 4 ? kVectorRows / 8 : kFewRows / 8, WARPS = kBackwardThreads / 32;
    constexpr int SUBS = OCTETS == 4 ? 1 : kBackwardStep / 16;  /* times 16 rows of a step that a warp takes */
    constexpr int AHEAD = Format::kWords * OCTETS <= 4 ? 2 : 1; /* of them under way: as many as there are registers */
    extern __shared__ uint4 raw[];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    int64_t steps = 0;
    for (int g = 0; g < p.projections; g++) steps += RowPlace::steps_of(p, g);
    int part = static_cast<int>(blockIdx.y);
    int64_t first = steps * part / parts.count[0], end = steps * (part + 1) / parts.count[0];
    int octets = static_cast<int>(p.K / 8);
    int octet = static_cast<int>(blockIdx.x) * (kBackwardColumns / 8) + (OCTETS == 4 ? group * 4 : warp * 8 + group);
    bool there = octet < octets;
    int unit = (there ? octet : octets - OCTETS) / 4, o0 = OCTETS == 4 ? 0 : octet % 4;
    int tiles = static_cast<int>(p.M + 7) / 8;
    bf16 *ring = reinterpret_cast<bf16 *>(reinterpret_cast<char *>(raw) + Decoder<Format>::kShared);
    auto stage = [&](int64_t i) { return ring + static_cast<int>(i % kRing) * tiles * 8 * kBackwardStep; };

    RowPlace loaded(p, first), fetched(p, first), used(p, first);
    auto load = [&](int64_t i) {
        if (i < end) {
            const Projection &projection = p.projection[loaded.g];
            load_rows<kBackwardStep, kBackwardThreads>(stage(i), operand<bf16>(projection.dy), tiles * 8, p.M, loaded.n,
                                                       projection.n, place_of_rows);
            loaded.move(p, kBackwardStep);
        }
        commit();
    };
    FourRows<Format, OCTETS> ahead[AHEAD];
    int64_t left = (end - first) * SUBS; /* to be fetched */
    auto fetch = [&](FourRows<Format, OCTETS> &own) {
        if (left-- <= 0) return;
        int64_t n = fetched.n + (OCTETS == 4 ? warp * 16 : 0) + t * 4;
        own.load(set.of[fetched.g], n, p.projection[fetched.g].n, unit, o0);
        fetched.move(p, kBackwardStep / SUBS);
    };
    load(first);
    load(first + 1);
#pragma unroll
    for (auto &own : ahead) fetch(own);
    Decoder<Format> decoder(set.of[0], raw);

    float c[OCTETS][4][TILES][4]; /* octet; columns 2f and 2f + 1 of it; eight rows of dy */
#pragma unroll
    for (auto &of_octet : c) {
#pragma unroll
        for (auto &of_pair : of_octet) {
#pragma unroll
            for (auto &tile : of_pair) tile[0] = tile[1] = tile[2] = tile[3] = 0.0f;
        }
    }
    auto one = [&](FourRows<Format, OCTETS> &own, int64_t i, int sub) {
        const Coded &q = set.of[used.g];
        int at = OCTETS == 4 ? warp : sub;
        const bf16 *dy = stage(i) + group * kBackwardStep + place_of_rows(group, 2 * at + t / 2) * 8 + t % 2 * 4;
        uint2 b[TILES];
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            if (j >= tiles) break;
            b[j] = *reinterpret_cast<const uint2 *>(dy + j * 8 * kBackwardStep);
        }
        typename Decoder<Format>::Scale scale[4];
#pragma unroll
        for (int r = 0; r < 4; r++) scale[r] = decoder.scale(q, own.head[r], unit);
#pragma unroll
        for (int o = 0; o < OCTETS; o++) {
            uint32_t pairs[2][8]; /* of rows 0 and 1, of rows 2 and 3 */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float w[2][8];
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    decoder.values(scale[2 * h + r], own.codes[2 * h + r][o], unit, OCTETS == 4 ? o : o0, w[r]);
                }
#pragma unroll
                for (int k = 0; k < 8; k++) pairs[h][k] = packed<bf16>(w[0][k], w[1][k]);
            }
#pragma unroll
            for (int f = 0; f < 4; f++) {
                uint32_t a[4] = {pairs[0][2 * f], pairs[0][2 * f + 1], pairs[1][2 * f], pairs[1][2 * f + 1]};
#pragma unroll
                for (int j = 0; j < TILES; j++) {
                    if (j >= tiles) break;
                    mma<bf16>(c[o][f][j], a, b[j].x, b[j].y);
                }
            }
        }
        fetch(own);
        used.move(p, kBackwardStep / SUBS);
    };
    auto step = [&](int64_t i) {
        wait<1>();
        __syncthreads(); /* step i is there, and all have left step i - 1 */
        load(i + 2);
    };
    constexpr int ROUND = SUBS > 1 ? 1 : AHEAD; /* steps after which the registers repeat */
    for (int64_t i0 = first; i0 < end; i0 += ROUND) {
#pragma unroll
        for (int d = 0; d < ROUND; d++) {
            if (i0 + d == end) break;
            step(i0 + d);
#pragma unroll
            for (int sub = 0; sub < SUBS; sub++) one(ahead[(d + sub) % AHEAD], i0 + d, sub);
        }
    }
    wait<0>();
    float *sums = parts.sums[0] + part * p.M * p.K;
    auto store = [&](const float(&own)[4][TILES][4], int64_t k) {
#pragma unroll
        for (int j = 0; j < TILES; j++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int64_t m = j * 8 + t * 2 + e;
                if (m >= p.M) continue;
                float4 *to = reinterpret_cast<float4 *>(sums + m * p.K + k);
                to[0] = make_float4(own[0][j][e], own[0][j][2 + e], own[1][j][e], own[1][j][2 + e]);
                to[1] = make_float4(own[2][j][e], own[2][j][2 + e], own[3][j][e], own[3][j][2 + e]);
            }
        }
    };
    if constexpr (OCTETS == 4) { /* the warps' sums are added in order, warp o those of octet o */
        __syncthreads();
        float *all = reinterpret_cast<float *>(raw);
#pragma unroll
        for (int o = 0; o < 4; o++) {
#pragma unroll
            for (int e = 0; e < 16; e++) all[((warp * 4 + o) * 16 + e) * 32 + lane] = c[o][e / 4][0][e % 4];
        }
        __syncthreads();
        float own[4][TILES][4];
#pragma unroll
        for (int e = 0; e < 16; e++) {
            float sum = all[(warp * 16 + e) * 32 + lane];
#pragma unroll
            for (int w = 1; w < WARPS; w++) sum += all[((w * 4 + warp) * 16 + e) * 32 + lane];
            own[e / 4][0][e % 4] = sum;
        }
        if (there) store(own, (octet + warp) * 8);
    } else {
        if (there) store(c[0], octet * 8);
    }
}

/* ---- launches ---- */

template <class Format>
cudaError_t launch_parts(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, const Parts &parts,
                         bool backward) {
    size_t rows = static_cast<size_t>(p.M + 7) / 8 * 8, table = Decoder<Format>::kShared;
    if (!backward) {
        unsigned most = 0;
        for (int g = 0; g < p.projections; g++) {
            unsigned own = blocks(p.projection[g].n, kForwardRows) * static_cast<unsigned>(parts.count[g]);
            most = most > own ? most : own;
        }
        return launch(queue, codes_forward_kernel<Format>, dim3(most, 1, p.projections), kForwardThreads,
                      table + kRing * rows * kForwardStep * 2, p, set, parts);
    }
    dim3 grid(blocks(p.K, kBackwardColumns), static_cast<unsigned>(parts.count[0]));
    size_t shared = table + kRing * rows * kBackwardStep * 2, sums = kBackwardThreads * 64 * sizeof(float);
    if (p.M > kVectorRows)
        return launch(queue, codes_backward_kernel<Format, 1>, grid, kBackwardThreads, shared, p, set, parts);
    shared = shared > sums ? shared : sums;
    return launch(queue, codes_backward_kernel<Format, 4>, grid, kBackwardThreads, shared, p, set, parts);
}

} // namespace l4j
