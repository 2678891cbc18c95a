/* What the attention kernels share: sequences, tiles of rows in fp32, and the products between them on the CUDA cores. */
#pragma once

#include "exp.cuh"
#include "operations.cuh"

namespace l4j {

constexpr int kAttentionThreads = 256; /* 16 x 16: rows ty + 16·i, columns tx + 16·j of every product */

struct AttentionParams {
    View q, k, v, o, lse, d_o, dq, dk, dv;
    const int32_t *q_offsets, *kv_starts, *kv_lengths;
    int64_t q_rows, k_rows, D, max_q, max_kv;
    int64_t depth; /* D rounded up to 8: columns that the tensor cores multiply */
    int32_t sequences, group, window;
    float scale;
    bool causal;
    int32_t *good; /* workspace [1]: whether the sequences were found right */
    float *delta;  /* backward, workspace [q rows, heads]: Σ_d d_o·o */
    int64_t heads, kv_heads;
    Fault *fault;
};

struct Sequence {
    int32_t q0, queries, k0, keys;
};
__device__ inline Sequence sequence_of(const AttentionParams &p, int b) {
    int32_t q0 = p.q_offsets[b];
    return Sequence{q0, p.q_offsets[b + 1] - q0, p.kv_starts[b], p.kv_lengths[b]};
}
/* Query i sees the keys [first, last). */
__device__ inline int last_key(const AttentionParams &p, const Sequence &s, int i) {
    return p.causal ? s.keys - s.queries + i + 1 : s.keys;
}
__device__ inline int first_key(const AttentionParams &p, const Sequence &s, int i) {
    int last = last_key(p, s, i);
    return p.window && last > p.window ? last - p.window : 0;
}

/* Queries that see a key of [j0, j0 + BK): the tiles [first, last). */
template <int BQ, int BK>
__device__ void queries_of(const AttentionParams &p, const Sequence &s, int j0, int &first, int &last) {
    first = 0;
    last = (s.queries + BQ - 1) / BQ;
    if (!p.causal) return;
    int from = j0 - (s.keys - s.queries); /* the first query that sees key j0 */
    first = from > 0 ? from / BQ : 0;
    if (p.window) { /* the last one that sees key j0 + BK - 1 */
        int to = j0 + BK - 1 - (s.keys - s.queries) + p.window;
        int tiles = to > 0 ? (to + BQ - 1) / BQ : 0;
        last = tiles < last ? tiles : last;
    }
}

/* Rows [r0, r0 + ROWS) of one head as fp32, zeros outside of [rows, D]; one value of padding keeps columns in different banks. */
template <int ROWS, int DMAX>
__device__ void load_rows(float *tile, const View &x, int64_t first, int r0, int rows, int64_t head, int64_t D) {
    for (int i = threadIdx.x; i < ROWS * DMAX; i += kAttentionThreads) {
        int r = i / DMAX, d = i % DMAX;
        tile[r * (DMAX + 1) + d] = r0 + r < rows && d < D ? read(x, first + r0 + r, head, d) : 0.0f;
    }
}

/* out[i][j] = Σ_d a[ty + 16·i][d] · b[tx + 16·j][d] */
template <int RI, int CI, int DMAX> __device__ void dots(float (&out)[RI][CI], const float *a, const float *b) {
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < RI; i++) {
#pragma unroll
        for (int j = 0; j < CI; j++) out[i][j] = 0.0f;
    }
#pragma unroll 8
    for (int d = 0; d < DMAX; d++) {
        float av[RI], bv[CI];
#pragma unroll
        for (int i = 0; i < RI; i++) av[i] = a[(ty + 16 * i) * (DMAX + 1) + d];
#pragma unroll
        for (int j = 0; j < CI; j++) bv[j] = b[(tx + 16 * j) * (DMAX + 1) + d];
#pragma unroll
        for (int i = 0; i < RI; i++) {
#pragma unroll
            for (int j = 0; j < CI; j++) out[i][j] = __fmaf_rn(av[i], bv[j], out[i][j]);
        }
    }
}

/* acc[i][j] += Σ_n w[n] of row ty + 16·i · x[n][tx + 16·j], n < N; w at weights[row * row_step + n * n_step] */
template <int RI, int DI, int DMAX>
__device__ void weighted(float (&acc)[RI][DI], const float *weights, int row_step, int n_step, const float *x, int N) {
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll 4
    for (int n = 0; n < N; n++) {
        float wv[RI];
#pragma unroll
        for (int i = 0; i < RI; i++) wv[i] = weights[(ty + 16 * i) * row_step + n * n_step];
#pragma unroll
        for (int j = 0; j < DI; j++) {
            float xv = x[n * (DMAX + 1) + tx + 16 * j];
#pragma unroll
            for (int i = 0; i < RI; i++) acc[i][j] = __fmaf_rn(wv[i], xv, acc[i][j]);
        }
    }
}

/* Rows ty + 16·i of an accumulator to rows r0 + … of one head. */
template <int RI, int DI>
__device__ void store_rows(const float (&acc)[RI][DI], const View &x, int64_t first, int r0, int rows, int64_t head,
                           int64_t D) {
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < RI; i++) {
#pragma unroll
        for (int j = 0; j < DI; j++) {
            int r = r0 + ty + 16 * i, d = tx + 16 * j;
            if (r < rows && d < D) write(x, first + r, head, d, acc[i][j]);
        }
    }
}

/* Over the sixteen threads that share a row. */
__device__ inline float row_max(float x) {
#pragma unroll
    for (int d = 8; d >= 1; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, d, 16));
    return x;
}
__device__ inline float row_total(float x) {
#pragma unroll
    for (int d = 8; d >= 1; d /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, d, 16);
    return x;
}

/* Fills in everything but the workspace and the record of faults. */
AttentionParams attention_params(const l4j_attention *args, bool backward);
/* Lets p's operands of 16 bits that cannot be copied 16 bytes at a time lead to copies in the workspace; `plan` gets them. */
struct Packing {
    View from[5], to[5];
    int64_t rows[5], heads[5];
    int count;
};
Packing plan_packing(l4j_arena *arena, AttentionParams *p, bool backward);
cudaError_t pack(const l4j_queue *queue, const Packing &packing, const AttentionParams &p);

/* The same operations for 16-bit values on the tensor cores. */
cudaError_t flash_forward(const l4j_queue *queue, const AttentionParams &p);
cudaError_t flash_dq(const l4j_queue *queue, const AttentionParams &p); /* writes p.delta too */
cudaError_t flash_dkv(const l4j_queue *queue, const AttentionParams &p);

/* Looks at the sequences and writes p.good. */
cudaError_t check_sequences(const l4j_queue *queue, const AttentionParams &p, bool backward);

} // namespace l4j
