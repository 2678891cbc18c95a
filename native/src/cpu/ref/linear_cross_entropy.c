/* linear_cross_entropy_forward: a few rows at a time, so that each row of the weight is converted once for all of them. */
#include "../values.h"
#include "chain.h"
#include "real.h"

enum { LCE_ROWS = 4 };

typedef struct {
    const l4j_linear_cross_entropy *args;
    real *scratch;   /* [threads][LCE_ROWS · V + (1 + LCE_ROWS) · K] */
    int64_t *failed; /* [threads] first row with a non-finite loss, or M */
} lce_task;

static int64_t lce_scratch(const l4j_linear_cross_entropy *args) {
    return LCE_ROWS * args->weight->rows + (1 + LCE_ROWS) * args->weight->cols;
}

/* Logits z of one row become dz; the row's loss, lse and prediction are written. */
static void lce_softmax(const l4j_linear_cross_entropy *args, int64_t m, real *z) {
    int64_t V = args->weight->rows, best = 0;
    for (int64_t v = 1; v < V; v++) best = z[v] > z[best] ? v : best;
    real max = z[best], z_target = z[args->targets[m]], lane[L4J_PANEL] = {0};
    for (int64_t v = 0; v < V; v++) {
        z[v] = real_exp(z[v] - max);
        lane[v % L4J_PANEL] += z[v];
    }
    real sum = real_fold16(lane), log_sum = real_log(sum), inv = 1 / sum;
    real loss = log_sum + (max - z_target);
    *real_at1(args->loss, m) = loss;
    *real_at1(args->lse, m) = max + log_sum;
    if (args->predicted) args->predicted[m] = isfinite(loss) ? (int32_t)best : -1;
    if (!args->dx) return;
    real g = (args->row_weight ? (real)args->row_weight[m] : 1) * (args->grad_scale ? (real)*args->grad_scale : 1);
    for (int64_t v = 0; v < V; v++) {
        real p = z[v] * inv;
        z[v] = (v == args->targets[m] ? p - 1 : p) * g;
    }
}

/* The logits of a row of x with the weight's row w. */
static real lce_logit(const l4j_linear_cross_entropy *args, int64_t m, const real *w) {
    int64_t K = args->weight->cols;
    if (args->compute == L4J_COMPUTE_BF16) {
        bf16_chain chain = bf16_start(0);
        for (int64_t k = 0; k < K; k++) bf16_step(&chain, bf16_operand(*real_at2(args->x, m, k)), bf16_operand(w[k]));
        return bf16_end(&chain);
    }
    real acc = 0;
    for (int64_t k = 0; k < K; k++) acc = real_fma(*real_at2(args->x, m, k), w[k], acc);
    return acc;
}

/* dx of row m from its dz, of L4J_COMPUTE_BF16. */
static void lce_bf16_dx(const l4j_linear_cross_entropy *args, int64_t m, const real *dz) {
    int64_t V = args->weight->rows;
    for (int64_t k = 0; k < args->weight->cols; k++) {
        real *dx = real_at2(args->dx, m, k);
        for (int64_t first = 0; first < V; first += L4J_LCE_BLOCK) {
            bf16_chain chain = bf16_start(0);
            for (int64_t v = first; v < l4j_min64(first + L4J_LCE_BLOCK, V); v++)
                bf16_step(&chain, bf16_operand(dz[v]), bf16_operand(real_weight(args->weight, v, k)));
            real sum = bf16_end(&chain);
            *dx = first == 0 ? sum : *dx + sum;
        }
    }
}

static void lce_rows(const l4j_linear_cross_entropy *args, const int64_t *rows, int count, real *z, real *w) {
    int64_t V = args->weight->rows, K = args->weight->cols;
    for (int64_t v = 0; v < V; v++) {
        real_weight_row(args->weight, v, w);
        for (int i = 0; i < count; i++) z[i * V + v] = lce_logit(args, rows[i], w);
    }
    for (int i = 0; i < count; i++) lce_softmax(args, rows[i], z + i * V);
    if (args->compute == L4J_COMPUTE_BF16) {
        for (int i = 0; i < count && args->dx; i++) lce_bf16_dx(args, rows[i], z + i * V);
        return;
    }
    real *part = w + K;
    for (int64_t v = 0; v < V && args->dx; v++) {
        bool first = v % L4J_LCE_BLOCK == 0, last = v % L4J_LCE_BLOCK == L4J_LCE_BLOCK - 1 || v == V - 1;
        real_weight_row(args->weight, v, w);
        for (int i = 0; i < count; i++) {
            real *dx = real_at2(args->dx, rows[i], 0), *sum = part + i * K;
            for (int64_t k = 0; k < K; k++) sum[k] = real_fma(z[i * V + v], w[k], first ? 0 : sum[k]);
            for (int64_t k = 0; k < K && last; k++) dx[k] = v < L4J_LCE_BLOCK ? sum[k] : dx[k] + sum[k];
        }
    }
}

static void lce_ignored_row(const l4j_linear_cross_entropy *args, int64_t m) {
    *real_at1(args->loss, m) = 0;
    *real_at1(args->lse, m) = 0;
    if (args->predicted) args->predicted[m] = -1;
    for (int64_t k = 0; k < args->weight->cols && args->dx; k++) *real_at2(args->dx, m, k) = 0;
}

static void lce_forward_task(void *context, int thread, int threads) {
    lce_task *task = context;
    const l4j_linear_cross_entropy *args = task->args;
    real *z = task->scratch + thread * lce_scratch(args), *w = z + LCE_ROWS * args->weight->rows;
    int64_t M = args->x->shape[0], begin, end, rows[LCE_ROWS];
    int count = 0;
    l4j_partition(M, 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        if (args->targets[m] == args->ignore_index) {
            lce_ignored_row(args, m);
        } else {
            rows[count++] = m;
        }
        if (count == LCE_ROWS || (count > 0 && m == end - 1)) {
            lce_rows(args, rows, count, z, w);
            count = 0;
        }
    }
    task->failed[thread] = M;
    for (int64_t m = end - 1; m >= begin; m--) {
        if (!isfinite(*real_at1(args->loss, m)) || !isfinite(*real_at1(args->lse, m))) task->failed[thread] = m;
    }
}

static void lce_layout(l4j_arena *arena, int threads, const l4j_linear_cross_entropy *args, lce_task *task) {
    task->scratch = l4j_take(arena, sizeof(real) * (size_t)threads * (size_t)lce_scratch(args));
    task->failed = l4j_take(arena, sizeof(int64_t) * (size_t)threads);
}

size_t L4J_NAME(linear_cross_entropy_forward_workspace)(int threads, const l4j_linear_cross_entropy *args) {
    l4j_arena arena = {0};
    lce_task task;
    lce_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(linear_cross_entropy_forward)(l4j_queue *queue, const l4j_linear_cross_entropy *args,
                                                  void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_targets(args, error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    lce_task task = {.args = args};
    lce_layout(&arena, queue->threads, args, &task);
    l4j_run(queue, lce_forward_task, &task);
    int64_t first = args->x->shape[0];
    for (int t = 0; t < queue->threads; t++) first = l4j_min64(first, task.failed[t]);
    if (args->numeric && args->numeric->operation == L4J_OP_NONE && first < args->x->shape[0]) {
        *args->numeric = (l4j_numeric_status){
            .step = args->step ? *args->step : 0, .operation = L4J_OP_LINEAR_CROSS_ENTROPY, .tensor = (int32_t)first};
    }
    return L4J_OK;
}
