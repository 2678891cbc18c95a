/*
 * attention_backward in fp32: probabilities are made again from q, k and the log-sum-exp. One kernel owns queries and gives dq, another owns keys
 * and gives dk and dv over the query heads of a group in order: each output is summed by one block, so nothing is added atomically.
 */
#include "attention.cuh"

namespace l4j {

/* delta[m][h] = Σ_d d_o·o, a warp for each. */
__global__ void __launch_bounds__(kAttentionThreads) attention_delta_kernel(const __grid_constant__ AttentionParams p) {
    int64_t i = (static_cast<int64_t>(blockIdx.x) * kAttentionThreads + threadIdx.x) / 32;
    if (i >= p.q_rows * p.heads) return;
    int64_t m = i / p.heads, h = i % p.heads;
    float sum = 0.0f;
    for (int64_t d = threadIdx.x % 32; d < p.D; d += 32) sum = __fmaf_rn(read(p.d_o, m, h, d), read(p.o, m, h, d), sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) p.delta[i] = sum;
}

template <int DMAX, int BQ, int BK> struct Tiles {
    static constexpr int RI = BQ / 16, CI = BK / 16, DI = DMAX / 16;
    static constexpr size_t kBytes = sizeof(float) * (2 * (BQ + BK) * (DMAX + 1) + 2 * BQ * BK);
    float *q, *d_o, *k, *v, *probability, *ds; /* the last two [BQ, BK] */

    __device__ explicit Tiles(float *shared) {
        q = shared;
        d_o = q + BQ * (DMAX + 1);
        k = d_o + BQ * (DMAX + 1);
        v = k + BK * (DMAX + 1);
        probability = v + BK * (DMAX + 1);
        ds = probability + BQ * BK;
    }
    __device__ void load_queries(const AttentionParams &p, const Sequence &s, int i0, int64_t head) {
        load_rows<BQ, DMAX>(q, p.q, s.q0, i0, s.queries, head, p.D);
        load_rows<BQ, DMAX>(d_o, p.d_o, s.q0, i0, s.queries, head, p.D);
    }
    __device__ void load_keys(const AttentionParams &p, const Sequence &s, int j0, int64_t kv_head) {
        load_rows<BK, DMAX>(k, p.k, s.k0, j0, s.keys, kv_head, p.D);
        load_rows<BK, DMAX>(v, p.v, s.k0, j0, s.keys, kv_head, p.D);
    }
    /* Probabilities and ds of the queries and keys that are loaded. */
    __device__ void gradients(const AttentionParams &p, const Sequence &s, int i0, int j0, int64_t head) {
        int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
        float z[RI][CI], dp[RI][CI];
        dots<RI, CI, DMAX>(z, q, k);
        dots<RI, CI, DMAX>(dp, d_o, v);
#pragma unroll
        for (int i = 0; i < RI; i++) {
            int query = i0 + ty + 16 * i, from = first_key(p, s, query), to = last_key(p, s, query);
            bool inside = query < s.queries;
            float lse = inside ? read(p.lse, s.q0 + query, head) : 0.0f;
            float delta = inside ? p.delta[(s.q0 + query) * p.heads + head] : 0.0f;
#pragma unroll
            for (int j = 0; j < CI; j++) {
                int key = j0 + tx + 16 * j, at = (ty + 16 * i) * BK + tx + 16 * j;
                float e = inside && key >= from && key < to ? exact_exp(z[i][j] * p.scale - lse) : 0.0f;
                probability[at] = e;
                ds[at] = e * (dp[i][j] - delta) * p.scale;
            }
        }
    }
};

template <int RI, int DI> __device__ void clear(float (&acc)[RI][DI]) {
#pragma unroll
    for (int i = 0; i < RI; i++) {
#pragma unroll
        for (int d = 0; d < DI; d++) acc[i][d] = 0.0f;
    }
}

template <int DMAX, int BQ, int BK>
__global__ void __launch_bounds__(kAttentionThreads) attention_dq_kernel(const __grid_constant__ AttentionParams p) {
    using T = Tiles<DMAX, BQ, BK>;
    extern __shared__ float shared[];
    if (!*p.good) return;
    Sequence s = sequence_of(p, blockIdx.z);
    int i0 = blockIdx.x * BQ;
    int64_t head = blockIdx.y;
    if (i0 >= s.queries) return;
    T tiles(shared);
    float dq[T::RI][T::DI];
    clear(dq);
    tiles.load_queries(p, s, i0, head);
    int last = last_key(p, s, min(i0 + BQ, s.queries) - 1);
    for (int j0 = first_key(p, s, i0) / BK * BK; j0 < last; j0 += BK) {
        __syncthreads();
        tiles.load_keys(p, s, j0, head / p.group);
        __syncthreads();
        tiles.gradients(p, s, i0, j0, head);
        __syncthreads();
        weighted<T::RI, T::DI, DMAX>(dq, tiles.ds, BK, 1, tiles.k, BK);
    }
    store_rows<T::RI, T::DI>(dq, p.dq, s.q0, i0, s.queries, head, p.D);
}

template <int DMAX, int BQ, int BK>
__global__ void __launch_bounds__(kAttentionThreads) attention_dkv_kernel(const __grid_constant__ AttentionParams p) {
    using T = Tiles<DMAX, BQ, BK>;
    extern __shared__ float shared[];
    if (!*p.good) return;
    Sequence s = sequence_of(p, blockIdx.z);
    int j0 = blockIdx.x * BK, first, last;
    int64_t kv_head = blockIdx.y;
    if (j0 >= s.keys) return;
    T tiles(shared);
    float dk[T::CI][T::DI], dv[T::CI][T::DI];
    clear(dk);
    clear(dv);
    tiles.load_keys(p, s, j0, kv_head);
    queries_of<BQ, BK>(p, s, j0, first, last);
    for (int64_t head = kv_head * p.group; head < (kv_head + 1) * p.group; head++) {
        for (int tile = first; tile < last; tile++) {
            __syncthreads();
            tiles.load_queries(p, s, tile * BQ, head);
            __syncthreads();
            tiles.gradients(p, s, tile * BQ, j0, head);
            __syncthreads();
            weighted<T::CI, T::DI, DMAX>(dk, tiles.ds, 1, BK, tiles.q, BQ);
            weighted<T::CI, T::DI, DMAX>(dv, tiles.probability, 1, BK, tiles.d_o, BQ);
        }
    }
    store_rows<T::CI, T::DI>(dk, p.dk, s.k0, j0, s.keys, kv_head, p.D);
    store_rows<T::CI, T::DI>(dv, p.dv, s.k0, j0, s.keys, kv_head, p.D);
}

template <int DMAX, int BQ, int BK> static cudaError_t start(const l4j_queue *queue, const AttentionParams &p) {
    constexpr size_t bytes = Tiles<DMAX, BQ, BK>::kBytes;
    unsigned heads = static_cast<unsigned>(p.heads), sequences = static_cast<unsigned>(p.sequences);
    cudaError_t status = launch(queue, attention_dq_kernel<DMAX, BQ, BK>, dim3(blocks(p.max_q, BQ), heads, sequences),
                                kAttentionThreads, bytes, p);
    if (status != cudaSuccess) return status;
    return launch(queue, attention_dkv_kernel<DMAX, BQ, BK>,
                  dim3(blocks(p.max_kv, BK), heads / static_cast<unsigned>(p.group), sequences), kAttentionThreads,
                  bytes, p);
}

static Packing lay_out(l4j_arena *arena, AttentionParams *p) {
    p->good = static_cast<int32_t *>(l4j_take(arena, sizeof(int32_t)));
    p->delta = static_cast<float *>(l4j_take(arena, sizeof(float) * static_cast<size_t>(p->q_rows * p->heads)));
    return plan_packing(arena, p, true);
}

size_t attention_backward_workspace(int, const l4j_attention *args) {
    AttentionParams p = attention_params(args, true);
    l4j_arena arena = {};
    lay_out(&arena, &p);
    return arena.used;
}
l4j_status attention_backward(l4j_queue *queue, const l4j_attention *args, void *workspace, l4j_error *error) {
    AttentionParams p = attention_params(args, true);
    p.fault = fault_of(queue);
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    Packing packing = lay_out(&arena, &p);
    if (p.sequences == 0) return L4J_OK;
    L4J_CUDA("attention_backward", check_sequences(queue, p, true));
    if (p.q.dtype != L4J_F32) {
        L4J_CUDA("attention_backward", pack(queue, packing, p));
        L4J_CUDA("attention_backward", flash_dq(queue, p));
        L4J_CUDA("attention_backward", flash_dkv(queue, p));
        return L4J_OK;
    }
    L4J_CUDA("attention_backward",
             launch(queue, attention_delta_kernel, dim3(blocks(p.q_rows * p.heads * 32, kAttentionThreads)),
                    kAttentionThreads, 0, p));
    L4J_CUDA("attention_backward", p.D <= 64    ? start<64, 64, 64>(queue, p)
                                   : p.D <= 128 ? start<128, 32, 64>(queue, p)
                                                : start<256, 16, 32>(queue, p));
    return L4J_OK;
}

} // namespace l4j
