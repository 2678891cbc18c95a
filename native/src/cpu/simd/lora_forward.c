/*
 * lora_forward. Rows go in chunks. Each thread packs rows of x for the whole group of projections and forms their s from the
 * packed panels; then all threads run one product for each projection, whose contraction is k followed by r.
 */
#include "../values.h"
#include "lora.h"
#include <string.h>

typedef struct {
    l4j_queue *queue;
    const l4j_lora *args;
    lora_ranks ranks;
    int64_t chunk;
    float *x;       /* packed rows of x */
    float *s;       /* packed rows of each s_g, one after the other */
    float *adapter; /* A_gᵀ in panels of 16 ranks */
    float *bias;    /* fp32, [ΣN_g] */
    float *acc;     /* [threads][GEMM_MC][width] s of the rows in work */
    float *masked;  /* [threads] one panel of masked x */
    float *own;
    float *b[2];
} forward_task;

static void forward_layout(l4j_arena *arena, int threads, const l4j_lora *args, forward_task *task) {
    int64_t K = args->x->shape[1], M = args->x->shape[0], bias = 0, widest = 0;
    task->ranks = lora_group_ranks(args);
    task->chunk = lora_chunk(M, K);
    for (int g = 0; g < args->projection_count; g++) {
        int64_t N = args->weights[g]->rows;
        bias += args->biases && args->biases[g].data ? N : 0;
        if (!gemm_streams(task->chunk, N, threads) || !gemm_streams(M % l4j_max64(task->chunk, 1), N, threads)) {
            widest = l4j_max64(widest, N);
        }
    }
    int64_t rows = task->chunk + GEMM_MR, width = task->ranks.width;
    task->x = l4j_take(arena, sizeof(float) * (size_t)(rows * K));
    task->s = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->adapter = l4j_take(arena, sizeof(float) * (size_t)(width * K));
    task->bias = l4j_take(arena, sizeof(float) * (size_t)bias);
    task->acc = l4j_take(arena, sizeof(float) * (size_t)(threads * GEMM_MC * width));
    task->masked = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_MR * GEMM_KC);
    task->own = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_OWN_FLOATS);
    for (int i = 0; i < 2; i++)
        task->b[i] = l4j_take(arena, sizeof(float) * (size_t)gemm_b_floats(widest, K + task->ranks.width));
}

/* Adapters and biases, shared out by panels and by projections. */
static void forward_prepare(const forward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    float *bias = task->bias;
    for (int g = 0; g < args->projection_count; g++) {
        if (task->ranks.rank[g]) {
            gemm_b a = lora_b(&args->a[g], true);
            l4j_partition(task->ranks.rank[g], L4J_PANEL, thread, threads, &begin, &end);
            gemm_pack_b(task->adapter + (task->ranks.offset[g] + begin) * K, &a, 0, K, begin, end - begin);
        }
        if (args->biases && args->biases[g].data) {
            const l4j_tensor *t = &args->biases[g];
            for (int64_t n = thread; n < t->shape[0]; n += threads)
                bias[n] = gemm_read(t->data, t->dtype, n * t->stride[0]);
            bias += t->shape[0];
        }
    }
}

/* Packs panels [i0, i1) of the chunk at row m0 and leaves their s, unscaled, in acc. */
static void forward_panels(const forward_task *task, const l4j_dropout *drop, float *acc, float *masked, int height,
                           int64_t m0, int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t K = args->x->shape[1], padded = gemm_panels(rows, height) * height;
    for (int64_t k = 0, steps; k < K; k += steps) {
        steps = l4j_min64(gemm_block(K), K - k);
        for (int64_t i = i0; i < i1; i++) {
            int64_t m = i * height;
            int live = (int)l4j_min64(height, rows - m);
            float *panel = task->x + k * padded + m * steps;
            gemm_a x = lora_a(args->x, NULL);
            gemm_pack_a(panel, height, &x, m0 + m, live, k, steps);
            for (int g = 0; g < args->projection_count; g++) {
                if (!ranks->rank[g]) continue;
                const float *from = panel;
                if (drop[g].threshold) {
                    x.dropout = &drop[g];
                    gemm_pack_a(masked, height, &x, m0 + m, live, k, steps);
                    from = masked;
                }
                lora_skinny(acc + (m - i0 * height) * ranks->width + ranks->offset[g], ranks->width, ranks->rank[g],
                            from, height, live, task->adapter + ranks->offset[g] * K + k * L4J_PANEL, K * L4J_PANEL,
                            steps, k == 0);
            }
        }
    }
}

/* Scales the s in acc, hands it to the caller, and packs it for the product. */
static void forward_finish(const forward_task *task, float *acc, int height, int64_t m0, int64_t rows, int64_t i0,
                           int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t padded = gemm_panels(rows, height) * height, first = i0 * height, last = l4j_min64(i1 * height, rows);
    for (int g = 0; g < args->projection_count; g++) {
        int64_t rank = ranks->rank[g];
        if (!rank) continue;
        float c = l4j_lora_factor(args->scaling[g], args->dropout_p);
        for (int64_t m = first; m < last; m++) {
            float *row = acc + (m - first) * ranks->width + ranks->offset[g];
            lora_scale(row, rank, c);
            memcpy((float *)args->s[g].data + (m0 + m) * args->s[g].stride[0], row, sizeof(float) * (size_t)rank);
        }
        gemm_a s = {acc + ranks->offset[g], ranks->width, 1, NULL};
        for (int64_t k = 0, steps; k < rank; k += steps) {
            steps = l4j_min64(gemm_block(rank), rank - k);
            for (int64_t m = first; m < last; m += height) {
                gemm_pack_a(task->s + ranks->offset[g] * padded + k * padded + m * steps, height, &s, m - first,
                            (int)l4j_min64(height, last - m), k, steps);
            }
        }
    }
}

/* y_g of one chunk. */
static void forward_product(const forward_task *task, gemm_team *team, int g, const float *bias, int height, int64_t m0,
                            int64_t rows) {
    const l4j_lora *args = task->args;
    const l4j_weight *w = args->weights[g];
    int64_t rank = task->ranks.rank[g], padded = gemm_panels(rows, height) * height;
    gemm_product p = {.m = rows,
                      .n = w->rows,
                      .height = height,
                      .start = bias,
                      .c = (float *)args->y[g].data + m0 * args->y[g].stride[0],
                      .ldc = args->y[g].stride[0],
                      .segments = rank ? 2 : 1};
    p.segment[0] = (gemm_segment){.k = w->cols, .packed = task->x, .b = {.kind = GEMM_B_WEIGHT_TRANS, .weight = w}};
    if (rank) {
        p.segment[1] = (gemm_segment){
            .k = rank, .packed = task->s + task->ranks.offset[g] * padded, .b = lora_b(&args->b[g], true)};
    }
    gemm_run(team, &p);
}

static void forward_run(void *context, int thread, int threads) {
    const forward_task *task = context;
    const l4j_lora *args = task->args;
    l4j_pool *pool = task->queue->pool;
    gemm_team team = {.pool = pool,
                      .thread = thread,
                      .threads = threads,
                      .b = {task->b[0], task->b[1]},
                      .own = task->own + (int64_t)thread * GEMM_OWN_FLOATS};
    float *acc = task->acc + (int64_t)thread * GEMM_MC * task->ranks.width;
    float *masked = task->masked + (int64_t)thread * GEMM_MR * GEMM_KC;
    l4j_dropout drop[LORA_PROJECTIONS] = {0};
    for (int g = 0; g < args->projection_count; g++) {
        if (task->ranks.rank[g]) drop[g] = l4j_lora_dropout(args, g);
    }
    forward_prepare(task, thread, threads);
    l4j_pool_barrier(pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        int height = gemm_height(rows);
        int64_t group = GEMM_MC / height, begin, end;
        l4j_partition(gemm_panels(rows, height), 1, thread, threads, &begin, &end);
        for (int64_t i = begin; i < end; i += group) {
            int64_t last = l4j_min64(i + group, end);
            forward_panels(task, drop, acc, masked, height, m0, rows, i, last);
            forward_finish(task, acc, height, m0, rows, i, last);
        }
        l4j_pool_barrier(pool);
        const float *bias = task->bias;
        for (int g = 0; g < args->projection_count; g++) {
            bool has_bias = args->biases && args->biases[g].data;
            forward_product(task, &team, g, has_bias ? bias : NULL, height, m0, rows);
            bias += has_bias ? args->weights[g]->rows : 0;
        }
        l4j_pool_barrier(pool);
    }
}

size_t L4J_NAME(lora_forward_workspace)(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    forward_task task;
    forward_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_forward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_forward", error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    forward_task task = {.queue = queue, .args = args};
    forward_layout(&arena, queue->threads, args, &task);
    double columns = 0;
    for (int g = 0; g < args->projection_count; g++) columns += (double)args->weights[g]->rows;
    l4j_run_work(queue, (double)args->x->shape[0] * (double)args->x->shape[1] * columns, forward_run, &task);
    return L4J_OK;
}
