/* attention_forward and attention_backward: one query, and in backward one key, at a time. */
#include "../values.h"
#include "real.h"

typedef struct {
    const l4j_attention *args;
    real *rows; /* [threads][2 · max_kv_length] */
} attention_task;

/* Query i of sequence b sees the keys [start, limit). */
static int64_t attention_limit(const l4j_attention *args, int b, int64_t i) {
    int64_t keys = args->kv_lengths[b], queries = args->q_offsets[b + 1] - args->q_offsets[b];
    return args->flags & L4J_ATTENTION_CAUSAL ? keys - queries + i + 1 : keys;
}
static int64_t attention_start(const l4j_attention *args, int b, int64_t i) {
    return args->window ? l4j_max64(0, attention_limit(args, b, i) - args->window) : 0;
}

static real attention_dot(const l4j_tensor *x, int64_t xm, int64_t xh, const l4j_tensor *y, int64_t ym, int64_t yh) {
    real acc = 0;
    for (int64_t d = 0; d < x->shape[2]; d++) acc = real_fma(*real_at3(x, xm, xh, d), *real_at3(y, ym, yh, d), acc);
    return acc;
}

/* ---- forward ---- */

static void attention_forward_query(const l4j_attention *args, int b, int64_t i, int64_t h, real *p) {
    int64_t m = args->q_offsets[b] + i, first = args->kv_starts[b];
    int64_t start = attention_start(args, b, i), limit = attention_limit(args, b, i);
    int64_t kh = h / (args->q->shape[1] / args->k->shape[1]);
    real max = -INFINITY, lane[L4J_PANEL] = {0};
    for (int64_t j = start; j < limit; j++) {
        p[j] = attention_dot(args->q, m, h, args->k, first + j, kh) * args->scale;
        max = p[j] > max ? p[j] : max;
    }
    for (int64_t j = start; j < limit; j++) {
        p[j] = real_exp(p[j] - max);
        lane[j % L4J_PANEL] += p[j];
    }
    real sum = real_fold16(lane), inv = 1 / sum;
    for (int64_t d = 0; d < args->q->shape[2]; d++) {
        real acc = 0;
        for (int64_t j = start; j < limit; j++) acc = real_fma(p[j], *real_at3(args->v, first + j, kh, d), acc);
        *real_at3(args->o, m, h, d) = acc * inv;
    }
    if (args->lse) *real_at2(args->lse, m, h) = max + real_log(sum);
}

static void attention_forward_task(void *context, int thread, int threads) {
    attention_task *task = context;
    const l4j_attention *args = task->args;
    for (int b = 0; b < args->sequences; b++) {
        int64_t H = args->q->shape[1], queries = args->q_offsets[b + 1] - args->q_offsets[b], begin, end;
        l4j_partition(queries * H, 1, thread, threads, &begin, &end);
        for (int64_t row = begin; row < end; row++) {
            attention_forward_query(args, b, row / H, row % H, task->rows + 2 * thread * args->max_kv_length);
        }
    }
}

size_t L4J_NAME(attention_forward_workspace)(int threads, const l4j_attention *args) {
    return 2 * sizeof(real) * (size_t)threads * (size_t)args->max_kv_length;
}

l4j_status L4J_NAME(attention_forward)(l4j_queue *queue, const l4j_attention *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_sequences(args, false, error);
    if (status != L4J_OK) return status;
    attention_task task = {.args = args, .rows = workspace};
    l4j_run(queue, attention_forward_task, &task);
    return L4J_OK;
}

/* ---- backward: one kv head of one sequence; dk and dv grow query by query ---- */

static void attention_backward_query(const l4j_attention *args, int b, int64_t i, int64_t h, real *p, real *ds) {
    int64_t m = args->q_offsets[b] + i, first = args->kv_starts[b];
    int64_t start = attention_start(args, b, i), limit = attention_limit(args, b, i);
    int64_t D = args->q->shape[2], kh = h / (args->q->shape[1] / args->k->shape[1]);
    real lane[L4J_PANEL] = {0}, lse = *real_at2(args->lse, m, h);
    for (int64_t d = 0; d < D; d++) {
        lane[d % L4J_PANEL] = real_fma(*real_at3(args->d_o, m, h, d), *real_at3(args->o, m, h, d), lane[d % L4J_PANEL]);
    }
    real delta = real_fold16(lane);
    for (int64_t j = start; j < limit; j++) {
        real z = attention_dot(args->q, m, h, args->k, first + j, kh) * args->scale;
        p[j] = real_exp(z - lse);
        ds[j] = p[j] * (attention_dot(args->d_o, m, h, args->v, first + j, kh) - delta) * args->scale;
    }
    for (int64_t d = 0; d < D; d++) {
        real dq = 0, q = *real_at3(args->q, m, h, d), d_o = *real_at3(args->d_o, m, h, d);
        for (int64_t j = start; j < limit; j++) {
            real *dk = real_at3(args->dk, first + j, kh, d), *dv = real_at3(args->dv, first + j, kh, d);
            dq = real_fma(ds[j], *real_at3(args->k, first + j, kh, d), dq);
            *dk = real_fma(ds[j], q, *dk);
            *dv = real_fma(p[j], d_o, *dv);
        }
        *real_at3(args->dq, m, h, d) = dq;
    }
}

static void attention_backward_task(void *context, int thread, int threads) {
    attention_task *task = context;
    const l4j_attention *args = task->args;
    int64_t Hkv = args->k->shape[1], group = args->q->shape[1] / Hkv, begin, end;
    real *p = task->rows + 2 * thread * args->max_kv_length, *ds = p + args->max_kv_length;
    l4j_partition(args->sequences * Hkv, 1, thread, threads, &begin, &end);
    for (int64_t pair = begin; pair < end; pair++) {
        int b = (int)(pair / Hkv);
        int64_t kh = pair % Hkv;
        for (int64_t j = 0; j < args->kv_lengths[b]; j++) {
            for (int64_t d = 0; d < args->k->shape[2]; d++) {
                *real_at3(args->dk, args->kv_starts[b] + j, kh, d) = 0;
                *real_at3(args->dv, args->kv_starts[b] + j, kh, d) = 0;
            }
        }
        for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
            for (int64_t i = 0; i < args->q_offsets[b + 1] - args->q_offsets[b]; i++) {
                attention_backward_query(args, b, i, h, p, ds);
            }
        }
    }
}

size_t L4J_NAME(attention_backward_workspace)(int threads, const l4j_attention *args) {
    return 2 * sizeof(real) * (size_t)threads * (size_t)args->max_kv_length;
}

l4j_status L4J_NAME(attention_backward)(l4j_queue *queue, const l4j_attention *args, void *workspace,
                                        l4j_error *error) {
    l4j_status status = l4j_check_sequences(args, true, error);
    if (status != L4J_OK) return status;
    attention_task task = {.args = args, .rows = workspace};
    l4j_run(queue, attention_backward_task, &task);
    return L4J_OK;
}
