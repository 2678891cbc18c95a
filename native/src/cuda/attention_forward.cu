/* attention_forward in fp32: a block for a tile of queries of one head; keys pass by in tiles, with an online softmax (Milakov &
   Gimelshein 2018; Dao et al. 2022). */
#include "attention.cuh"

namespace l4j {

/* ---- sequences ---- */

__global__ void __launch_bounds__(256)
    check_sequences_kernel(const __grid_constant__ AttentionParams p, bool backward) {
    bool good = true;
    for (int b = threadIdx.x; b < p.sequences; b += 256) {
        Sequence s = sequence_of(p, b);
        if (s.q0 < 0 || s.queries < 0 || static_cast<int64_t>(s.q0) + s.queries > p.q_rows) {
            report(p.fault, kBadOffsets, b, s.q0, p.q_rows);
            good = false;
        } else if (s.k0 < 0 || s.keys < 0 || static_cast<int64_t>(s.k0) + s.keys > p.k_rows) {
            report(p.fault, kBadKeys, b, static_cast<int64_t>(s.k0) + s.keys, p.k_rows);
            good = false;
        } else if (s.queries > p.max_q || s.keys > p.max_kv) {
            report(p.fault, kBadLength, b, s.queries > p.max_q ? s.queries : s.keys,
                   s.queries > p.max_q ? p.max_q : p.max_kv);
            good = false;
        } else if (s.queries > 0 && (p.causal ? s.keys < s.queries : s.keys == 0)) {
            report(p.fault, kUnseen, b, s.queries, s.keys);
            good = false;
        } else if (backward) { /* the gradients of keys are written once */
            for (int a = 0; a < b; a++) {
                int begin = max(s.k0, p.kv_starts[a]), end = min(s.k0 + s.keys, p.kv_starts[a] + p.kv_lengths[a]);
                if (begin >= end) continue;
                report(p.fault, kSharedKeys, a, b, begin);
                good = false;
            }
        }
    }
    good = __syncthreads_and(good);
    if (threadIdx.x == 0) *p.good = good;
}

cudaError_t check_sequences(const l4j_queue *queue, const AttentionParams &p, bool backward) {
    return launch(queue, check_sequences_kernel, 1, 256, 0, p, backward);
}

AttentionParams attention_params(const l4j_attention *args, bool backward) {
    AttentionParams p = {};
    p.q = view(args->q);
    p.k = view(args->k);
    p.v = view(args->v);
    p.o = view(args->o);
    p.lse = view(args->lse);
    if (backward) {
        p.d_o = view(args->d_o);
        p.dq = view(args->dq);
        p.dk = view(args->dk);
        p.dv = view(args->dv);
    }
    p.q_offsets = args->q_offsets;
    p.kv_starts = args->kv_starts;
    p.kv_lengths = args->kv_lengths;
    p.q_rows = args->q->shape[0];
    p.k_rows = args->k->shape[0];
    p.heads = args->q->shape[1];
    p.kv_heads = args->k->shape[1];
    p.D = args->q->shape[2];
    p.depth = (p.D + 7) / 8 * 8;
    p.max_q = args->max_q_length;
    p.max_kv = args->max_kv_length;
    p.sequences = args->sequences;
    p.group = static_cast<int32_t>(args->q->shape[1] / args->k->shape[1]);
    p.window = args->window;
    p.scale = args->scale;
    p.causal = args->flags & L4J_ATTENTION_CAUSAL;
    return p;
}

/* ---- the kernel ---- */

template <int DMAX, int BQ, int BK> constexpr size_t forward_shared() {
    return sizeof(float) * ((BQ + 2 * BK) * (DMAX + 1) + BQ * BK);
}

template <int DMAX, int BQ, int BK>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_forward_kernel(const __grid_constant__ AttentionParams p) {
    constexpr int RI = BQ / 16, CI = BK / 16, DI = DMAX / 16;
    extern __shared__ float shared[];
    float *qs = shared, *ks = qs + BQ * (DMAX + 1), *vs = ks + BK * (DMAX + 1), *ps = vs + BK * (DMAX + 1);
    if (!*p.good) return;
    Sequence s = sequence_of(p, blockIdx.z);
    int i0 = blockIdx.x * BQ, ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    int64_t head = blockIdx.y, kv_head = head / p.group;
    if (i0 >= s.queries) return;
    const float lowest = -__int_as_float(0x7F800000);

    float acc[RI][DI], top[RI], sum[RI];
#pragma unroll
    for (int i = 0; i < RI; i++) {
        top[i] = lowest;
        sum[i] = 0.0f;
#pragma unroll
        for (int d = 0; d < DI; d++) acc[i][d] = 0.0f;
    }
    load_rows<BQ, DMAX>(qs, p.q, s.q0, i0, s.queries, head, p.D);
    int last = last_key(p, s, min(i0 + BQ, s.queries) - 1);
    for (int j0 = first_key(p, s, i0) / BK * BK; j0 < last; j0 += BK) {
        __syncthreads();
        load_rows<BK, DMAX>(ks, p.k, s.k0, j0, s.keys, kv_head, p.D);
        load_rows<BK, DMAX>(vs, p.v, s.k0, j0, s.keys, kv_head, p.D);
        __syncthreads();
        float z[RI][CI];
        dots<RI, CI, DMAX>(z, qs, ks);
#pragma unroll
        for (int i = 0; i < RI; i++) {
            int query = i0 + ty + 16 * i, from = first_key(p, s, query), to = last_key(p, s, query);
            float highest = lowest;
#pragma unroll
            for (int j = 0; j < CI; j++) {
                int key = j0 + tx + 16 * j;
                z[i][j] = key >= from && key < to && query < s.queries ? z[i][j] * p.scale : lowest;
                highest = fmaxf(highest, z[i][j]);
            }
            highest = fmaxf(top[i], row_max(highest));
            float keep = top[i] == lowest ? 0.0f : exact_exp(top[i] - highest), part = 0.0f;
#pragma unroll
            for (int j = 0; j < CI; j++) {
                float e = z[i][j] == lowest ? 0.0f : exact_exp(z[i][j] - highest);
                part += e;
                ps[(ty + 16 * i) * BK + tx + 16 * j] = e;
            }
            sum[i] = __fmaf_rn(sum[i], keep, row_total(part));
            top[i] = highest;
#pragma unroll
            for (int d = 0; d < DI; d++) acc[i][d] *= keep;
        }
        __syncthreads();
        weighted<RI, DI, DMAX>(acc, ps, BK, 1, vs, BK);
    }
#pragma unroll
    for (int i = 0; i < RI; i++) {
        float inverse = 1.0f / sum[i];
#pragma unroll
        for (int d = 0; d < DI; d++) acc[i][d] *= inverse;
        int query = i0 + ty + 16 * i;
        if (p.lse.data && tx == 0 && query < s.queries) {
            write(p.lse, s.q0 + query, head, top[i] + static_cast<float>(log(static_cast<double>(sum[i]))));
        }
    }
    store_rows<RI, DI>(acc, p.o, s.q0, i0, s.queries, head, p.D);
}

template <int DMAX, int BQ, int BK> static cudaError_t start(const l4j_queue *queue, const AttentionParams &p) {
    dim3 grid(blocks(p.max_q, BQ), static_cast<unsigned>(p.heads), static_cast<unsigned>(p.sequences));
    return launch(queue, attention_forward_kernel<DMAX, BQ, BK>, grid, kAttentionThreads,
                  forward_shared<DMAX, BQ, BK>(), p);
}

static Packing lay_out(l4j_arena *arena, AttentionParams *p) {
    p->good = static_cast<int32_t *>(l4j_take(arena, sizeof(int32_t)));
    return plan_packing(arena, p, false);
}

size_t attention_forward_workspace(int, const l4j_attention *args) {
    AttentionParams p = attention_params(args, false);
    l4j_arena arena = {};
    lay_out(&arena, &p);
    return arena.used;
}
l4j_status attention_forward(l4j_queue *queue, const l4j_attention *args, void *workspace, l4j_error *error) {
    AttentionParams p = attention_params(args, false);
    p.fault = fault_of(queue);
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    Packing packing = lay_out(&arena, &p);
    if (p.sequences == 0) return L4J_OK;
    L4J_CUDA("attention_forward", check_sequences(queue, p, false));
    if (p.q.dtype != L4J_F32) {
        L4J_CUDA("attention_forward", pack(queue, packing, p));
        L4J_CUDA("attention_forward", flash_forward(queue, p));
        return L4J_OK;
    }
    L4J_CUDA("attention_forward", p.D <= 64    ? start<64, 64, 64>(queue, p)
                                  : p.D <= 128 ? start<128, 64, 64>(queue, p)
                                               : start<256, 32, 32>(queue, p));
    return L4J_OK;
}

} // namespace l4j
