/* dk and dv of 16-bit values: a block for a tile of keys of one head; the queries of the group's heads pass by in order, and scores are
   made with keys as rows, so that they are already where dk and dv multiply them. */
#include "flash.cuh"

namespace l4j {

template <int D> struct DkvTile {
    static constexpr int COLS = kColumns<D>, WARPS = D <= 64 || D > 128 ? 4 : 8, THREADS = WARPS * 32, BK = WARPS * 16;
    static constexpr int BQ = D <= 64 ? 64 : 32, STAGES = D <= 128 ? 2 : 1;
    static constexpr int kStage = 2 * BQ * COLS; /* queries and d_o; then BQ of lse and of delta */
    static constexpr size_t kShared = 2 * (2 * BK * COLS + STAGES * kStage) + STAGES * 2 * BQ * sizeof(float);
};

/* WITH_DK, WITH_DV: which of the two; a head of 256 has no registers for both. */
template <class T, int D, bool WITH_DK, bool WITH_DV>
__global__ void __launch_bounds__(DkvTile<D>::THREADS, 1) flash_dkv_kernel(const __grid_constant__ AttentionParams p) {
    using Tile = DkvTile<D>;
    constexpr int COLS = Tile::COLS, BQ = Tile::BQ, BK = Tile::BK;
    extern __shared__ uint4 raw[];
    if (!*p.good) return;
    int64_t kv_head = blockIdx.x % p.kv_heads;
    Sequence s = sequence_of(p, static_cast<int>(blockIdx.x / p.kv_heads));
    int j0 = blockIdx.y * BK, first, last;
    if (j0 >= s.keys) return;
    queries_of<BQ, BK>(p, s, j0, first, last);
    T *k = reinterpret_cast<T *>(raw), *v = k + BK * COLS, *stages = v + BK * COLS;
    float *numbers = reinterpret_cast<float *>(stages + Tile::STAGES * Tile::kStage);
    Feed<T, BK, COLS, Tile::THREADS, false>(head_rows(p.k, s.k0, kv_head), 0, p.depth, j0, s.keys)
        .copy(shared_address(k));
    if (WITH_DK) {
        Feed<T, BK, COLS, Tile::THREADS, false>(head_rows(p.v, s.k0, kv_head), 0, p.depth, j0, s.keys)
            .copy(shared_address(v));
    }

    /* Tiles of all heads of the group in one row. Queries that are not there are zeros, with an lse and a delta of zero. */
    using Rows = Feed<T, BQ, COLS, Tile::THREADS, false>;
    int tiles = last > first ? last - first : 0, next = 0;
    int64_t next_head = kv_head * p.group;
    Rows queries(head_rows(p.q, s.q0, next_head), 0, p.depth, first * BQ, s.queries);
    Rows gradients(head_rows(p.d_o, s.q0, next_head), 0, p.depth, first * BQ, s.queries);
    auto load = [&](int stage) {
        uint32_t to = shared_address(stages + stage * Tile::kStage);
        queries.copy(to);
        gradients.copy(to + BQ * COLS * 2);
        for (int i = threadIdx.x; i < 2 * BQ; i += Tile::THREADS) {
            int row = (first + next) * BQ + i % BQ;
            int64_t m = s.q0 + min(row, s.queries - 1);
            const float *from = i < BQ
                                    ? reinterpret_cast<const float *>(p.lse.data) + m * p.lse.s0 + next_head * p.lse.s1
                                    : p.delta + m * p.heads + next_head;
            copy4(shared_address(numbers + stage * 2 * BQ + i), from, row < s.queries);
        }
        if (++next < tiles) return;
        next = 0;
        if (++next_head == (kv_head + 1) * p.group) return;
        queries = Rows(head_rows(p.q, s.q0, next_head), 0, p.depth, first * BQ, s.queries);
        gradients = Rows(head_rows(p.d_o, s.q0, next_head), 0, p.depth, first * BQ, s.queries);
    };

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, key0 = j0 + warp * 16 + lane / 4;
    float dk[1][WITH_DK ? D / 8 : 1][4] = {}, dv[1][WITH_DV ? D / 8 : 1][4] = {}, c = p.scale * kLog2E;
    int done = 0; /* tiles of the head */
    pass<Tile::STAGES>(tiles * p.group, load, [&](int, int stage) {
        const T *q = stages + stage * Tile::kStage, *d_o = q + BQ * COLS;
        const float *lse = numbers + stage * 2 * BQ, *delta = lse + BQ;
        int i0 = (first + done) * BQ;
        done = done + 1 == tiles ? 0 : done + 1;
        float z[1][BQ / 8][4];
        scores<COLS, D, 1, BQ>(z, q, [&](uint32_t(&f)[4], int, int d) { rows_fragment<COLS>(f, k, warp * 16, d); });
        bool cut = j0 + BK > last_key(p, s, i0) || (p.window && j0 < first_key(p, s, i0 + BQ - 1));
#pragma unroll
        for (int j = 0; j < BQ / 8; j++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int in = 8 * j + 2 * (lane % 4) + e;
                float base = lse[in] * kLog2E;
                int from = first_key(p, s, i0 + in), to = last_key(p, s, i0 + in);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float &x = z[0][j][2 * half + e];
                    x = exp2_fast(__fmaf_rn(x, c, -base));
                    if (cut && (key0 + 8 * half < from || key0 + 8 * half >= to)) x = 0.0f;
                }
            }
        }
        if constexpr (WITH_DV) weigh<COLS, D, 1, BQ>(dv, z, d_o);
        if constexpr (WITH_DK) {
            float dp[1][BQ / 8][4];
            scores<COLS, D, 1, BQ>(dp, d_o,
                                   [&](uint32_t(&f)[4], int, int d) { rows_fragment<COLS>(f, v, warp * 16, d); });
#pragma unroll
            for (int j = 0; j < BQ / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) z[0][j][e] *= dp[0][j][e] - delta[8 * j + 2 * (lane % 4) + e % 2];
            }
            weigh<COLS, D, 1, BQ>(dk, z, q);
        }
    });
    if constexpr (WITH_DK) {
        store_fragments<1, D / 8, T>(dk, p.dk, s.k0, key0, s.keys, kv_head, p.D, [&](int, int) { return p.scale; });
    }
    if constexpr (WITH_DV) {
        store_fragments<1, D / 8, T>(dv, p.dv, s.k0, key0, s.keys, kv_head, p.D, [](int, int) { return 1.0f; });
    }
}

cudaError_t flash_dkv(const l4j_queue *queue, const AttentionParams &p) {
    return with_depth(p, [&](auto zero, auto depth) {
        using T = decltype(zero);
        constexpr int D = decltype(depth)::value;
        using Tile = DkvTile<D>;
        dim3 grid(static_cast<unsigned>(p.kv_heads * p.sequences), blocks(p.max_kv, Tile::BK));
        if constexpr (D <= 128) {
            return launch(queue, flash_dkv_kernel<T, D, true, true>, grid, Tile::THREADS, Tile::kShared, p);
        } else {
            cudaError_t status =
                launch(queue, flash_dkv_kernel<T, D, false, true>, grid, Tile::THREADS, Tile::kShared, p);
            if (status != cudaSuccess) return status;
            return launch(queue, flash_dkv_kernel<T, D, true, false>, grid, Tile::THREADS, Tile::kShared, p);
        }
    });
}

} // namespace l4j
