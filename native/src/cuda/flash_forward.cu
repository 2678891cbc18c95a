/* attention_forward of 16-bit values: a block for a tile of queries of one head; keys pass by in tiles, with an online softmax. */
#include "flash.cuh"

namespace l4j {

template <int D> struct ForwardTile {
    static constexpr int COLS = kColumns<D>, MT = D <= 128 ? 2 : 1, THREADS = 128, BQ = 64 * MT,
                         BK = D <= 128 ? 64 : 32;
    static constexpr int kStage = 2 * BK * COLS; /* keys and values */
    static constexpr size_t kShared = 2 * (BQ * COLS + 2 * kStage);
};

template <class T, int D>
__global__ void __launch_bounds__(ForwardTile<D>::THREADS, D <= 128 ? 2 : 1)
    flash_forward_kernel(const __grid_constant__ AttentionParams p) {
    using Tile = ForwardTile<D>;
    constexpr int COLS = Tile::COLS, MT = Tile::MT, BQ = Tile::BQ, BK = Tile::BK;
    extern __shared__ uint4 raw[];
    if (!*p.good) return;
    int64_t head = blockIdx.x % p.heads, kv_head = head / p.group;
    Sequence s = sequence_of(p, static_cast<int>(blockIdx.x / p.heads));
    int i0 = static_cast<int>(gridDim.y - 1 - blockIdx.y) * BQ; /* the longest rows first */
    if (i0 >= s.queries) return;
    T *q = reinterpret_cast<T *>(raw), *stages = q + BQ * COLS;
    const float lowest = -__int_as_float(0x7F800000);
    float c = p.scale * kLog2E;
    bool turned = c < 0; /* scores are multiplied by what is not negative: the highest stays the highest */
    c = fmaxf(fabsf(c), 1e-30f);

    Feed<T, BQ, COLS, Tile::THREADS, false> queries(head_rows(p.q, s.q0, head), 0, p.depth, i0, s.queries);
    queries.copy(shared_address(q));
    int first = first_key(p, s, i0) / BK, end = last_key(p, s, min(i0 + BQ, s.queries) - 1);
    Feed<T, BK, COLS, Tile::THREADS, false> keys(head_rows(p.k, s.k0, kv_head), 0, p.depth, first * BK, s.keys);
    Feed<T, BK, COLS, Tile::THREADS, false> values(head_rows(p.v, s.k0, kv_head), 0, p.depth, first * BK, s.keys);

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = i0 + warp * 16 * MT + lane / 4;
    float o[MT][D / 8][4] = {}, top[MT][2], sum[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        top[m][0] = top[m][1] = lowest;
        sum[m][0] = sum[m][1] = 0.0f;
    }
    auto load = [&](int stage) {
        uint32_t to = shared_address(stages + stage * Tile::kStage);
        keys.copy(to);
        values.copy(to + BK * COLS * 2);
    };
    pass<2>((end + BK - 1) / BK - first, load, [&](int tile, int stage) {
        const T *k = stages + stage * Tile::kStage, *v = k + BK * COLS;
        float z[MT][BK / 8][4];
        scores<COLS, D, MT, BK>(
            z, k, [&](uint32_t(&f)[4], int m, int d) { rows_fragment<COLS>(f, q, (warp * MT + m) * 16, d); });
        if (turned) {
#pragma unroll
            for (int e = 0; e < MT * BK / 2; e++) (&z[0][0][0])[e] = -(&z[0][0][0])[e];
        }
        int j0 = (first + tile) * BK;
        if (j0 + BK > last_key(p, s, i0) || (p.window && j0 < first_key(p, s, i0 + BQ - 1))) {
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int row = row0 + 16 * m + 8 * half, from = first_key(p, s, row), to = last_key(p, s, row);
#pragma unroll
                    for (int j = 0; j < BK / 8; j++) {
                        int key = j0 + 8 * j + 2 * (lane % 4);
                        if (key < from || key >= to) z[m][j][2 * half] = lowest;
                        if (key + 1 < from || key + 1 >= to) z[m][j][2 * half + 1] = lowest;
                    }
                }
            }
        }
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float highest = top[m][half];
#pragma unroll
                for (int j = 0; j < BK / 8; j++) {
                    highest = fmaxf(highest, fmaxf(z[m][j][2 * half], z[m][j][2 * half + 1]));
                }
                highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 1));
                highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 2));
                float base = highest == lowest ? 0.0f : highest * c;
                float keep = exp2_fast(__fmaf_rn(top[m][half], c, -base)), part = 0.0f;
                top[m][half] = highest;
#pragma unroll
                for (int j = 0; j < BK / 8; j++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float x = exp2_fast(__fmaf_rn(z[m][j][2 * half + e], c, -base));
                        z[m][j][2 * half + e] = x;
                        part += x;
                    }
                }
                sum[m][half] = __fmaf_rn(sum[m][half], keep, part);
#pragma unroll
                for (int d = 0; d < D / 8; d++) {
                    o[m][d][2 * half] *= keep;
                    o[m][d][2 * half + 1] *= keep;
                }
            }
        }
        weigh<COLS, D, MT, BK>(o, z, v);
    });
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float &total = sum[m][half];
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
            int row = row0 + 16 * m + 8 * half;
            if (p.lse.data && lane % 4 == 0 && row < s.queries) {
                write(p.lse, s.q0 + row, head, top[m][half] * fabsf(p.scale) + logf(total));
            }
        }
    }
    store_fragments<MT, D / 8, T>(o, p.o, s.q0, row0, s.queries, head, p.D,
                                  [&](int m, int half) { return 1.0f / sum[m][half]; });
}

cudaError_t flash_forward(const l4j_queue *queue, const AttentionParams &p) {
    return with_depth(p, [&](auto zero, auto depth) {
        using T = decltype(zero);
        constexpr int D = decltype(depth)::value;
        using Tile = ForwardTile<D>;
        dim3 grid(static_cast<unsigned>(p.heads * p.sequences), blocks(p.max_q, Tile::BQ));
        return launch(queue, flash_forward_kernel<T, D>, grid, Tile::THREADS, Tile::kShared, p);
    });
}

/* ---- operands that cannot be copied 16 bytes at a time ---- */

static bool aligned(const View &x, int64_t D) {
    return x.s2 == 1 && x.s0 % 8 == 0 && x.s1 % 8 == 0 && D % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

Packing plan_packing(l4j_arena *arena, AttentionParams *p, bool backward) {
    Packing packing = {};
    if (p->q.dtype == L4J_F32) return packing;
    View *all[] = {&p->q, &p->k, &p->v, &p->o, &p->d_o};
    for (int i = 0; i < (backward ? 5 : 3); i++) {
        if (aligned(*all[i], p->D)) continue;
        bool of_keys = i == 1 || i == 2;
        int64_t rows = of_keys ? p->k_rows : p->q_rows, heads = of_keys ? p->kv_heads : p->heads;
        size_t bytes = 2 * static_cast<size_t>(rows * heads * p->depth);
        View to = {static_cast<char *>(l4j_take(arena, bytes)), heads * p->depth, p->depth, 1, p->q.dtype};
        int at = packing.count++;
        packing.from[at] = *all[i];
        packing.to[at] = to;
        packing.rows[at] = rows;
        packing.heads[at] = heads;
        *all[i] = to;
    }
    return packing;
}

__global__ void __launch_bounds__(256)
    pack_kernel(View from, View to, int64_t rows, int64_t heads, int64_t D, int64_t depth) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= rows * heads * depth) return;
    int64_t d = i % depth, h = i / depth % heads, m = i / depth / heads;
    const uint16_t *x = reinterpret_cast<const uint16_t *>(from.data) + m * from.s0 + h * from.s1 + d * from.s2;
    reinterpret_cast<uint16_t *>(to.data)[i] = d < D ? *x : 0;
}

cudaError_t pack(const l4j_queue *queue, const Packing &packing, const AttentionParams &p) {
    for (int i = 0; i < packing.count; i++) {
        int64_t rows = packing.rows[i], heads = packing.heads[i];
        cudaError_t status = launch(queue, pack_kernel, blocks(rows * heads * p.depth, 256), 256, 0, packing.from[i],
                                    packing.to[i], rows, heads, p.D, p.depth);
        if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

} // namespace l4j
