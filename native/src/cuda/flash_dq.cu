/* dq of 16-bit values, and delta = Σ_d d_o·o for flash_dkv: a block for a tile of queries of one head, keys pass by. */
#include "flash.cuh"

namespace l4j {

/* KEEP: fragments of q and d_o stay in registers, and the keys' stages take their place in shared memory. */
template <int D> struct DqTile {
    static constexpr int COLS = kColumns<D>, WARPS = D <= 64 || D > 128 ? 4 : 8, THREADS = WARPS * 32, BQ = WARPS * 16;
    static constexpr int BK = D <= 128 ? 64 : 32, STAGES = D <= 128 ? 2 : 1;
    static constexpr bool KEEP = D <= 128;
    static constexpr int kStage = 2 * BK * COLS, kQueries = 2 * BQ * COLS;
    static constexpr size_t kShared = 2 * (KEEP ? STAGES * kStage : STAGES * kStage + kQueries);
    static_assert(!KEEP || kQueries <= STAGES * kStage);
};

/* Σ_d a·b of a row that four lanes share, over eight values at a time. */
template <class T> __device__ static float row_dot(const Operand &a, const Operand &b, int64_t row, int64_t depth) {
    float sum = 0.0f;
    for (int64_t d = threadIdx.x % 4 * 8; d < depth; d += 32) {
        uint4 va = *reinterpret_cast<const uint4 *>(a.data + (row * a.rs + d) * 2);
        uint4 vb = *reinterpret_cast<const uint4 *>(b.data + (row * b.rs + d) * 2);
        const T *x = reinterpret_cast<const T *>(&va), *y = reinterpret_cast<const T *>(&vb);
#pragma unroll
        for (int e = 0; e < 8; e++) sum = __fmaf_rn(to_float(x[e]), to_float(y[e]), sum);
    }
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    return sum + __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
}

template <class T, int D>
__global__ void __launch_bounds__(DqTile<D>::THREADS, 1) flash_dq_kernel(const __grid_constant__ AttentionParams p) {
    using Tile = DqTile<D>;
    constexpr int COLS = Tile::COLS, BQ = Tile::BQ, BK = Tile::BK;
    extern __shared__ uint4 raw[];
    if (!*p.good) return;
    int64_t head = blockIdx.x % p.heads, kv_head = head / p.group;
    Sequence s = sequence_of(p, static_cast<int>(blockIdx.x / p.heads));
    int i0 = static_cast<int>(gridDim.y - 1 - blockIdx.y) * BQ; /* the longest rows first */
    if (i0 >= s.queries) return;
    T *q = reinterpret_cast<T *>(raw), *d_o = q + BQ * COLS, *stages = Tile::KEEP ? q : d_o + BQ * COLS;
    Operand from_o = head_rows(p.o, s.q0, head), from_do = head_rows(p.d_o, s.q0, head);
    Feed<T, BQ, COLS, Tile::THREADS, false>(head_rows(p.q, s.q0, head), 0, p.depth, i0, s.queries)
        .copy(shared_address(q));
    Feed<T, BQ, COLS, Tile::THREADS, false>(from_do, 0, p.depth, i0, s.queries).copy(shared_address(d_o));
    commit();

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = i0 + warp * 16 + lane / 4;
    float lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = row0 + 8 * half, there = min(row, s.queries - 1);
        delta[half] = row_dot<T>(from_do, from_o, there, p.depth);
        lse[half] = read(p.lse, s.q0 + there, head) * kLog2E;
        if (row < s.queries && lane % 4 == 0) p.delta[(s.q0 + row) * p.heads + head] = delta[half];
    }
    uint32_t kept[2][Tile::KEEP ? D / 16 : 1][4];
    if constexpr (Tile::KEEP) {
        wait<0>();
        __syncthreads();
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            rows_fragment<COLS>(kept[0][d], q, warp * 16, d * 16);
            rows_fragment<COLS>(kept[1][d], d_o, warp * 16, d * 16);
        }
        __syncthreads();
    }
    auto fragment = [&](const T *tile, int which) {
        return [&, tile, which](uint32_t(&f)[4], int, int d) {
            if constexpr (Tile::KEEP) {
#pragma unroll
                for (int i = 0; i < 4; i++) f[i] = kept[which][d / 16][i];
            } else {
                rows_fragment<COLS>(f, tile, warp * 16, d);
            }
        };
    };

    int first = first_key(p, s, i0) / BK, end = last_key(p, s, min(i0 + BQ, s.queries) - 1);
    Feed<T, BK, COLS, Tile::THREADS, false> keys(head_rows(p.k, s.k0, kv_head), 0, p.depth, first * BK, s.keys);
    Feed<T, BK, COLS, Tile::THREADS, false> values(head_rows(p.v, s.k0, kv_head), 0, p.depth, first * BK, s.keys);
    float dq[1][D / 8][4] = {}, c = p.scale * kLog2E;
    auto load = [&](int stage) {
        uint32_t to = shared_address(stages + stage * Tile::kStage);
        keys.copy(to);
        values.copy(to + BK * COLS * 2);
    };
    pass<Tile::STAGES>((end + BK - 1) / BK - first, load, [&](int tile, int stage) {
        const T *k = stages + stage * Tile::kStage, *v = k + BK * COLS;
        float z[1][BK / 8][4], dp[1][BK / 8][4];
        scores<COLS, D, 1, BK>(z, k, fragment(q, 0));
        scores<COLS, D, 1, BK>(dp, v, fragment(d_o, 1));
        int j0 = (first + tile) * BK;
        bool cut = j0 + BK > last_key(p, s, i0) || (p.window && j0 < first_key(p, s, i0 + BQ - 1));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int from = first_key(p, s, row0 + 8 * half), to = last_key(p, s, row0 + 8 * half);
#pragma unroll
            for (int j = 0; j < BK / 8; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int key = j0 + 8 * j + 2 * (lane % 4) + e;
                    float &x = z[0][j][2 * half + e];
                    float probability = exp2_fast(__fmaf_rn(x, c, -lse[half]));
                    if (cut && (key < from || key >= to)) probability = 0.0f;
                    x = probability * (dp[0][j][2 * half + e] - delta[half]);
                }
            }
        }
        weigh<COLS, D, 1, BK>(dq, z, k);
    });
    store_fragments<1, D / 8, T>(dq, p.dq, s.q0, row0, s.queries, head, p.D, [&](int, int) { return p.scale; });
}

cudaError_t flash_dq(const l4j_queue *queue, const AttentionParams &p) {
    return with_depth(p, [&](auto zero, auto depth) {
        using T = decltype(zero);
        constexpr int D = decltype(depth)::value;
        using Tile = DqTile<D>;
        dim3 grid(static_cast<unsigned>(p.heads * p.sequences), blocks(p.max_q, Tile::BQ));
        return launch(queue, flash_dq_kernel<T, D>, grid, Tile::THREADS, Tile::kShared, p);
    });
}

} // namespace l4j
