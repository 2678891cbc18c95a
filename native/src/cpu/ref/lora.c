/* lora_forward and lora_backward, straight from the contract: every output is one chain. */
#include "lora.h"

int64_t lora_index(const l4j_lora *args, int64_t adapter, int g) {
    int64_t i = adapter * args->projection_count + g;
    return adapter >= 0 && args->a[i].data ? i : -1;
}

/* Columns of s_g. */
static int64_t lora_widest(const l4j_lora *args, int g) {
    int64_t widest = 0;
    for (int64_t a = 0; a < args->adapter_count; a++) {
        int64_t i = lora_index(args, a, g);
        if (i >= 0) widest = l4j_max64(widest, args->a[i].shape[0]);
    }
    return widest;
}

void lora_masked_row(const l4j_lora *args, const l4j_dropout *drop, int64_t m, int64_t k0, int64_t k1, real *out) {
    for (int64_t first = k0; first < k1; first += L4J_DROPOUT_BLOCK) {
        uint16_t bits[L4J_DROPOUT_BLOCK] = {0};
        if (drop->threshold) l4j_dropout_bits(drop, drop->token_index[m], first / L4J_DROPOUT_BLOCK, bits);
        int64_t last = l4j_min64(first + L4J_DROPOUT_BLOCK, k1);
        for (int64_t k = first; k < last; k++) {
            out[k - k0] = bits[k - first] >= drop->threshold ? *real_at2(args->x, m, k) : 0;
        }
    }
}

/* ---- forward ---- */

/* s_g of row m. */
static void lora_s(const l4j_lora *args, int64_t adapter, int g, int64_t m, real *row) {
    int64_t K = args->x->shape[1], i = lora_index(args, adapter, g);
    if (i < 0) return;
    l4j_dropout drop = l4j_lora_dropout(args, (int)adapter, g);
    real c = l4j_lora_factor(args->scaling[i], args->dropout_p);
    lora_masked_row(args, &drop, m, 0, K, row);
    for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
        real acc = 0;
        for (int64_t k = 0; k < K; k++) acc = real_fma(row[k], *real_at2(&args->a[i], r, k), acc);
        *real_at2(&args->s[g], m, r) = acc * c;
    }
}

static void lora_forward_task(void *context, int thread, int threads) {
    lora_task *task = context;
    const l4j_lora *args = task->args;
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_forward(task, thread, threads);
        return;
    }
    int64_t K = args->x->shape[1], begin, end;
    l4j_partition(args->x->shape[0], 1, thread, threads, &begin, &end);
    real *row = task->rows + thread * K;
    for (int g = 0; g < args->projection_count; g++) {
        const l4j_weight *w = args->weights[g];
        const l4j_tensor *bias = args->biases && args->biases[g].data ? &args->biases[g] : NULL;
        for (int64_t m = begin; m < end; m++) lora_s(args, task->adapter[m], g, m, row);
        bool int8 = args->compute == L4J_COMPUTE_INT8;
        for (int64_t n = 0; n < w->rows; n++) {
            if (!int8) real_weight_row(w, n, row);
            real start = bias ? real_read(bias->data, bias->dtype, n * bias->stride[0]) : 0;
            for (int64_t m = begin; m < end; m++) {
                real acc = start;
                if (int8) {
                    l4j_int8_unit *units = task->units + thread * (K / L4J_INT8_UNIT);
                    lora_int8_row(args, m, units);
                    acc = lora_int8_base(w, n, units, acc);
                } else {
                    for (int64_t k = 0; k < K; k++) acc = real_fma(*real_at2(args->x, m, k), row[k], acc);
                }
                int64_t i = lora_index(args, task->adapter[m], g), R = i < 0 ? 0 : args->a[i].shape[0];
                for (int64_t r = 0; r < R; r++) {
                    acc = real_fma(*real_at2(&args->s[g], m, r), *real_at2(&args->b[i], n, r), acc);
                }
                *real_at2(&args->y[g], m, n) = acc;
            }
        }
    }
}

static void lora_layout(l4j_arena *arena, int threads, const l4j_lora *args, lora_task *task) {
    task->adapter = l4j_take(arena, sizeof(int32_t) * (size_t)args->x->shape[0]);
    task->rows = l4j_take(arena, sizeof(real) * (size_t)threads * (size_t)args->x->shape[1]);
    bool int8 = args->compute == L4J_COMPUTE_INT8;
    task->units =
        l4j_take(arena, int8 ? sizeof(l4j_int8_unit) * (size_t)(threads * args->x->shape[1] / L4J_INT8_UNIT) : 0);
}

size_t L4J_NAME(lora_forward_workspace)(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    lora_task task;
    lora_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_forward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_forward", error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    lora_task task = {.queue = queue, .args = args};
    lora_layout(&arena, queue->threads, args, &task);
    l4j_lora_rows(args, task.adapter);
    l4j_run(queue, lora_forward_task, &task);
    return L4J_OK;
}

/* ---- backward ---- */

/* ds = c · dy · B for rows [begin, end). */
static void lora_ds(const lora_task *task, int g, real *ds, int64_t width, int64_t begin, int64_t end) {
    const l4j_lora *args = task->args;
    int64_t N = args->weights[g]->rows;
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_ds(task, g, ds, width, begin, end);
        return;
    }
    for (int64_t m = begin; m < end; m++) {
        int64_t i = lora_index(args, task->adapter[m], g);
        if (i < 0) continue;
        real c = l4j_lora_factor(args->scaling[i], args->dropout_p);
        for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
            real acc = 0;
            for (int64_t n = 0; n < N; n++)
                acc = real_fma(*real_at2(&args->dy[g], m, n), *real_at2(&args->b[i], n, r), acc);
            ds[m * width + r] = acc * c;
        }
    }
}

/* dB += dyᵀ · s over the adapter's rows, for rows n of this thread. */
static void lora_db(const lora_task *task, int64_t adapter, int g, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t M = args->x->shape[0], i = lora_index(args, adapter, g), begin, end;
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_db(task, adapter, g, thread, threads);
        return;
    }
    l4j_partition(args->weights[g]->rows, 1, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n++) {
        for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
            real *out = real_at2(&args->db[i], n, r);
            real acc = args->flags & L4J_LORA_ACCUMULATE_GRADS ? *out : 0;
            for (int64_t m = 0; m < M; m++) {
                if (task->adapter[m] != adapter) continue;
                acc = real_fma(*real_at2(&args->dy[g], m, n), *real_at2(&args->s[g], m, r), acc);
            }
            *out = acc;
        }
    }
}

/* dA += dsᵀ · (mask ⊙ x) over the adapter's rows, for columns k of this thread; the chain over m is kept in dA. */
static void lora_da(const lora_task *task, int64_t adapter, int g, const real *ds, int64_t width, real *row, int thread,
                    int threads) {
    const l4j_lora *args = task->args;
    int64_t M = args->x->shape[0], K = args->x->shape[1], i = lora_index(args, adapter, g), begin, end;
    int64_t R = args->a[i].shape[0];
    l4j_dropout drop = l4j_lora_dropout(args, (int)adapter, g);
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_da(task, adapter, g, ds, width, row, thread, threads);
        return;
    }
    l4j_partition(K, L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
    if (!(args->flags & L4J_LORA_ACCUMULATE_GRADS)) {
        for (int64_t r = 0; r < R; r++) {
            for (int64_t k = begin; k < end; k++) *real_at2(&args->da[i], r, k) = 0;
        }
    }
    for (int64_t m = 0; m < M; m++) {
        if (task->adapter[m] != adapter) continue;
        lora_masked_row(args, &drop, m, begin, end, row);
        for (int64_t r = 0; r < R; r++) {
            real *out = real_at2(&args->da[i], r, 0);
            for (int64_t k = begin; k < end; k++) out[k] = real_fma(ds[m * width + r], row[k - begin], out[k]);
        }
    }
}

/* The low-rank part of row m of dx: the first term is assigned, or added to the old dx; further ones are added. */
static void lora_dx_adapter(const l4j_lora *args, int64_t adapter, int g, const real *ds, bool started, int64_t m) {
    int64_t K = args->x->shape[1], i = lora_index(args, adapter, g);
    l4j_dropout drop = l4j_lora_dropout(args, (int)adapter, g);
    uint16_t bits[L4J_DROPOUT_BLOCK] = {0};
    for (int64_t k = 0; k < K; k++) {
        if (drop.threshold && k % L4J_DROPOUT_BLOCK == 0) {
            l4j_dropout_bits(&drop, drop.token_index[m], k / L4J_DROPOUT_BLOCK, bits);
        }
        real t = 0;
        if (args->compute == L4J_COMPUTE_BF16) {
            t = lora_bf16_low_rank(args, i, ds, k);
        } else {
            for (int64_t r = 0; r < args->a[i].shape[0]; r++) t = real_fma(ds[r], *real_at2(&args->a[i], r, k), t);
        }
        if (bits[k % L4J_DROPOUT_BLOCK] < drop.threshold) t = 0;
        real *out = real_at2(args->dx, m, k);
        *out = started ? *out + t : t;
    }
}

static void lora_dx(const lora_task *task, real *row, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t M = args->x->shape[0], K = args->x->shape[1], begin, end;
    l4j_partition(M, 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        bool started = (args->flags & L4J_LORA_ACCUMULATE_DX) != 0;
        const real *ds = task->ds;
        for (int g = 0; g < args->projection_count; g++) {
            int64_t width = lora_widest(args, g);
            if (lora_index(args, task->adapter[m], g) >= 0) {
                lora_dx_adapter(args, task->adapter[m], g, ds + m * width, started, m);
                started = true;
            }
            ds += M * width;
        }
        for (int64_t k = 0; k < K && !started; k++) *real_at2(args->dx, m, k) = 0;
        if (args->compute == L4J_COMPUTE_BF16) lora_bf16_dx(args, m);
    }
    if (args->compute == L4J_COMPUTE_BF16) return;
    for (int g = 0; g < args->projection_count; g++) {
        const l4j_weight *w = args->weights[g];
        for (int64_t n = 0; n < w->rows; n++) {
            real_weight_row(w, n, row);
            for (int64_t m = begin; m < end; m++) {
                real dy = *real_at2(&args->dy[g], m, n), *out = real_at2(args->dx, m, 0);
                for (int64_t k = 0; k < K; k++) out[k] = real_fma(dy, row[k], out[k]);
            }
        }
    }
}

static void lora_backward_task(void *context, int thread, int threads) {
    lora_task *task = context;
    const l4j_lora *args = task->args;
    int64_t M = args->x->shape[0], begin, end;
    real *row = task->rows + thread * args->x->shape[1], *ds = task->ds;
    l4j_partition(M, 1, thread, threads, &begin, &end);
    for (int g = 0; g < args->projection_count; g++) {
        int64_t width = lora_widest(args, g);
        lora_ds(task, g, ds, width, begin, end);
        ds += M * width;
    }
    l4j_pool_barrier(task->queue->pool);
    ds = task->ds;
    for (int g = 0; g < args->projection_count; g++) {
        int64_t width = lora_widest(args, g);
        for (int64_t a = 0; a < args->adapter_count; a++) {
            int64_t i = lora_index(args, a, g);
            if (i < 0) continue;
            if (args->db && args->db[i].data) lora_db(task, a, g, thread, threads);
            if (args->da && args->da[i].data) lora_da(task, a, g, ds, width, row, thread, threads);
        }
        ds += M * width;
    }
    if (args->dx) lora_dx(task, row, thread, threads);
}

static void lora_backward_layout(l4j_arena *arena, int threads, const l4j_lora *args, lora_task *task) {
    int64_t ranks = 0;
    for (int g = 0; g < args->projection_count; g++) ranks += lora_widest(args, g);
    task->ds = l4j_take(arena, sizeof(real) * (size_t)(args->x->shape[0] * ranks));
    lora_layout(arena, threads, args, task);
}

size_t L4J_NAME(lora_backward_workspace)(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    lora_task task;
    lora_backward_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_backward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_backward", error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    lora_task task = {.queue = queue, .args = args};
    lora_backward_layout(&arena, queue->threads, args, &task);
    l4j_lora_rows(args, task.adapter);
    l4j_run(queue, lora_backward_task, &task);
    return L4J_OK;
}
