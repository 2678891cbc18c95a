/*
 * linear_cross_entropy_forward. Rows with a target are gathered and go in chunks, so that their logits fit into the workspace:
 * one product for the logits, one pass of each thread over its rows for the softmax and its gradient, one product for dx. That one goes
 * in spans of several of the contract's blocks: all threads pack the span, then each takes areas of dx through its blocks.
 */
#include "linear_cross_entropy.h"

#include "vexp.h"
#include <string.h>

enum {
    LCE_LOGITS = 12 << 20, /* floats of a chunk's logits: 48 MiB */
    LCE_ROWS = 64,         /* rows of a chunk at most */
    LCE_SCAN = 256,        /* logits between two looks at the maximum */
    LCE_SPAN = 8           /* blocks of L4J_LCE_BLOCK values that are packed at a time */
};

static void lce_layout(l4j_arena *arena, int threads, const l4j_linear_cross_entropy *args, lce_task *task) {
    task->args = args;
    int64_t M = args->x->shape[0], K = args->weight->cols, V = args->weight->rows;
    int64_t rows = l4j_min64(M, l4j_min64(LCE_ROWS, l4j_max64(LCE_LOGITS / V, GEMM_MR)));
    task->chunk = rows;
    task->ldz = gemm_ceil(V, L4J_PANEL);
    task->rows = l4j_take(arena, sizeof(int64_t) * (size_t)M);
    task->z = l4j_take(arena, sizeof(float) * (size_t)(rows * task->ldz));
    task->dx = l4j_take(arena, args->dx ? sizeof(float) * (size_t)(rows * K) : 0);
    task->part = l4j_take(arena, args->dx ? sizeof(float) * (size_t)(rows * K) : 0);
    if (args->compute == L4J_COMPUTE_BF16) {
        lce_bf16_layout(arena, threads, task);
        return;
    }
    task->x = l4j_take(arena, sizeof(float) * (size_t)((rows + GEMM_MR) * K));
    task->panel = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_MR * GEMM_KC);
    task->own = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_OWN_FLOATS);
    int64_t values = args->dx ? l4j_min64(V, LCE_SPAN * L4J_LCE_BLOCK) : 0;
    for (int i = 0; i < 2; i++) task->span[i] = l4j_take(arena, sizeof(float) * (size_t)((rows + GEMM_MR) * values));
}

/* Packs panels [begin, end) of the gathered rows. */
static void lce_pack(const lce_task *task, float *buffer, const int64_t *rows, int64_t count, int height, int64_t begin,
                     int64_t end) {
    const l4j_tensor *x = task->args->x;
    int64_t K = x->shape[1], padded = gemm_panels(count, height) * height;
    for (int64_t i = begin; i < end; i++) {
        int live = (int)l4j_min64(height, count - i * height);
        for (int64_t k = 0, steps; k < K; k += steps) {
            steps = l4j_min64(gemm_block(K), K - k);
            for (int r = 0; r < live; r++) {
                const float *from = (const float *)x->data + rows[i * height + r] * x->stride[0] + k * x->stride[1];
                for (int64_t s = 0; s < steps; s++) buffer[r * GEMM_KC + s] = from[s * x->stride[1]];
            }
            gemm_a a = {buffer, GEMM_KC, 1, NULL};
            gemm_pack_a(task->x + k * padded + i * height * steps, height, &a, 0, live, 0, steps);
        }
    }
}

/* The largest logit and the first index that has it. */
static float lce_max(const float *z, int64_t V, int64_t *index) {
    float best = -INFINITY;
    int64_t block = 0;
    for (int64_t v = 0; v < V; v += LCE_SCAN) {
        int64_t n = l4j_min64(LCE_SCAN, V - v), i = 0;
        v16 m = v16_set1(-INFINITY);
        for (; i + L4J_PANEL <= n; i += L4J_PANEL) m = v16_max(m, v16_load(z + v + i));
        if (i < n) m = v16_max(m, v16_first_n(v16_load(z + v + i), v16_set1(-INFINITY), (int)(n - i)));
        float max = v16_hmax(m);
        if (max > best) {
            best = max;
            block = v;
        }
    }
    int64_t v = block;
    while (v < V - 1 && z[v] != best) v++;
    *index = v;
    return best;
}

/* Logits of one row (with room for whole vectors) become dz; loss, lse and prediction are written. */
static void lce_softmax(const l4j_linear_cross_entropy *args, int64_t m, float *z) {
    int64_t V = args->weight->rows, best, v = 0;
    int32_t target = args->targets[m];
    float z_target = z[target], max = lce_max(z, V, &best);
    v16 lanes = v16_zero(), shift = v16_set1(max);
    for (; v + L4J_PANEL <= V; v += L4J_PANEL) {
        v16 e = v16_exp(v16_sub(v16_load(z + v), shift));
        v16_store(z + v, e);
        lanes = v16_add(lanes, e);
    }
    if (v < V) {
        v16 e = v16_first_n(v16_exp(v16_sub(v16_load(z + v), shift)), v16_zero(), (int)(V - v));
        v16_store(z + v, e);
        lanes = v16_add(lanes, e);
    }
    float sum = v16_sum(lanes), log_sum = l4j_log(sum), inv = 1.0f / sum, loss = log_sum + (max - z_target);
    ((float *)args->loss->data)[m * args->loss->stride[0]] = loss;
    ((float *)args->lse->data)[m * args->lse->stride[0]] = max + log_sum;
    if (args->predicted) args->predicted[m] = isfinite(loss) ? (int32_t)best : -1;
    if (!args->dx) return;
    float g = (args->row_weight ? args->row_weight[m] : 1.0f) * (args->grad_scale ? *args->grad_scale : 1.0f);
    float at_target = (z[target] * inv - 1.0f) * g;
    for (v = 0; v < V; v += L4J_PANEL) {
        v16_store(z + v, v16_mul(v16_mul(v16_load(z + v), v16_set1(inv)), v16_set1(g)));
    }
    z[target] = at_target;
}

/* The product of a packed block of the gradient of z, values [v, v + L4J_LCE_BLOCK), with its rows of the weight. */
static gemm_product lce_product(const lce_task *task, l4j_weight *block, const float *packed, int64_t count,
                                int64_t v) {
    int64_t K = task->args->weight->cols;
    *block = lce_weight(task->args->weight, v);
    gemm_product p = {
        .m = count, .n = K, .height = gemm_height(count), .c = v == 0 ? task->dx : task->part, .ldc = K, .segments = 1};
    p.segment[0] = (gemm_segment){.k = block->rows, .packed = packed, .b = {.kind = GEMM_B_WEIGHT, .weight = block}};
    return p;
}

/* Packs values [from, to) of the gradient of z, a panel of rows and a block at a time. */
static void lce_pack_span(const lce_task *task, gemm_team *team, float *span, int64_t count, int64_t from, int64_t to) {
    int height = gemm_height(count);
    int64_t panels = gemm_panels(count, height), blocks = (to - from + L4J_LCE_BLOCK - 1) / L4J_LCE_BLOCK;
    int64_t taken = gemm_begin(team), begin, end;
    while (gemm_claim(team, &taken, panels * blocks, LCE_SPAN, &begin, &end)) {
        for (int64_t unit = begin; unit < end; unit++) {
            int64_t v = from + unit % blocks * L4J_LCE_BLOCK, size = l4j_min64(L4J_LCE_BLOCK, to - v);
            int64_t m = unit / blocks * height, live = l4j_min64(height, count - m);
            gemm_a z = {task->z + v, task->ldz, 1, NULL};
            for (int64_t k = 0, steps; k < size; k += steps) {
                steps = l4j_min64(gemm_block(size), size - k);
                float *out = span + (v - from + k) * panels * height + m * steps;
                gemm_pack_a(out, height, &z, m, (int)live, k, steps);
            }
        }
    }
}

/* An area of dx continues over the blocks of a span: the first block of all is dx, the others are added. */
static void lce_area(const lce_task *task, const gemm_team *team, const float *span, int64_t count, int64_t from,
                     int64_t to, const gemm_area *area) {
    int64_t K = task->args->weight->cols, height = gemm_height(count),
            padded = gemm_panels(count, (int)height) * height;
    for (int64_t v = from; v < to; v += L4J_LCE_BLOCK) {
        l4j_weight block;
        gemm_product p = lce_product(task, &block, span + (v - from) * padded, count, v);
        gemm_stream(team, &p, area);
        for (int64_t m = area->i0 * height; m < l4j_min64(area->i1 * height, count) && v > 0; m++) {
            for (int64_t n = area->n0; n < area->n1; n += L4J_PANEL) {
                int lanes = (int)l4j_min64(L4J_PANEL, area->n1 - n);
                float *dx = task->dx + m * K + n;
                gemm_store(dx, v16_add(gemm_load(dx, lanes), gemm_load(task->part + m * K + n, lanes)), lanes);
            }
        }
    }
}

static void lce_dx(const lce_task *task, gemm_team *team, int64_t count) {
    int64_t V = task->args->weight->rows;
    int turn = 0;
    for (int64_t from = 0, to; from < V; from = to, turn ^= 1) {
        to = l4j_min64(from + LCE_SPAN * L4J_LCE_BLOCK, V);
        lce_pack_span(task, team, task->span[turn], count, from, to);
        l4j_pool_barrier(team->pool);
        l4j_weight block;
        gemm_product shape = lce_product(task, &block, task->span[turn], count, from);
        gemm_areas areas = gemm_share(team, &shape);
        gemm_area area;
        while (gemm_next_area(team, &areas, &area)) lce_area(task, team, task->span[turn], count, from, to, &area);
    }
    l4j_pool_barrier(team->pool);
}

/* The logits of the gathered rows. */
static void lce_logits(const lce_task *task, gemm_team *team, const int64_t *rows, int64_t count) {
    const l4j_linear_cross_entropy *args = task->args;
    int height = gemm_height(count);
    int64_t begin, end;
    l4j_partition(gemm_panels(count, height), 1, team->thread, team->threads, &begin, &end);
    lce_pack(task, task->panel + (int64_t)team->thread * GEMM_MR * GEMM_KC, rows, count, height, begin, end);
    l4j_pool_barrier(team->pool);
    gemm_product logits = {
        .m = count, .n = args->weight->rows, .height = height, .c = task->z, .ldc = task->ldz, .segments = 1};
    logits.segment[0] = (gemm_segment){
        .k = args->weight->cols, .packed = task->x, .b = {.kind = GEMM_B_WEIGHT_TRANS, .weight = args->weight}};
    gemm_run(team, &logits);
}

static void lce_chunk(const lce_task *task, lce_team *team, const int64_t *rows, int64_t count) {
    const l4j_linear_cross_entropy *args = task->args;
    bool bf16 = args->compute == L4J_COMPUTE_BF16;
    l4j_pool *pool = task->queue->pool;
    int64_t K = args->weight->cols, begin, end;
    if (bf16) {
        lce_bf16_logits(task, &team->bf16, rows, count);
    } else {
        lce_logits(task, &team->f32, rows, count);
    }
    l4j_pool_barrier(pool);
    l4j_partition(count, 1, team->f32.thread, team->f32.threads, &begin, &end);
    for (int64_t i = begin; i < end; i++) lce_softmax(args, rows[i], task->z + i * task->ldz);
    if (!args->dx) return;
    l4j_pool_barrier(pool);
    if (bf16) {
        lce_bf16_dx(task, &team->bf16, count);
    } else {
        lce_dx(task, &team->f32, count);
    }
    for (int64_t i = begin; i < end; i++) {
        memcpy((float *)args->dx->data + rows[i] * args->dx->stride[0], task->dx + i * K, sizeof(float) * (size_t)K);
    }
}

static void lce_run(void *context, int thread, int threads) {
    const lce_task *task = context;
    l4j_pool *pool = task->queue->pool;
    lce_team team = {.f32 = {.pool = pool, .thread = thread, .threads = threads},
                     .bf16 = bf16_join(pool, thread, threads, task->kernel, task->own_tiles)};
    if (task->own) team.f32.own = task->own + (int64_t)thread * GEMM_OWN_FLOATS;
    int64_t chunks = (task->count + task->chunk - 1) / l4j_max64(task->chunk, 1);
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin, end;
        l4j_partition(task->count, 1, (int)c, (int)chunks, &begin, &end);
        lce_chunk(task, &team, task->rows + begin, end - begin);
        l4j_pool_barrier(pool);
    }
}

static void lce_ignored_row(const l4j_linear_cross_entropy *args, int64_t m) {
    ((float *)args->loss->data)[m * args->loss->stride[0]] = 0;
    ((float *)args->lse->data)[m * args->lse->stride[0]] = 0;
    if (args->predicted) args->predicted[m] = -1;
    if (args->dx) {
        memset((float *)args->dx->data + m * args->dx->stride[0], 0, sizeof(float) * (size_t)args->weight->cols);
    }
}

static void lce_report(const l4j_linear_cross_entropy *args) {
    if (!args->numeric || args->numeric->operation != L4J_OP_NONE) return;
    for (int64_t m = 0; m < args->x->shape[0]; m++) {
        float loss = ((float *)args->loss->data)[m * args->loss->stride[0]];
        float lse = ((float *)args->lse->data)[m * args->lse->stride[0]];
        if (isfinite(loss) && isfinite(lse)) continue;
        *args->numeric = (l4j_numeric_status){
            .step = args->step ? *args->step : 0, .operation = L4J_OP_LINEAR_CROSS_ENTROPY, .tensor = (int32_t)m};
        return;
    }
}

size_t L4J_NAME(linear_cross_entropy_forward_workspace)(int threads, const l4j_linear_cross_entropy *args) {
    l4j_arena arena = {0};
    lce_task task = {0};
    lce_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(linear_cross_entropy_forward)(l4j_queue *queue, const l4j_linear_cross_entropy *args,
                                                  void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_targets(args, error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    lce_task task = {.queue = queue, .args = args, .kernel = bf16_kernel(queue->device)};
    lce_layout(&arena, queue->threads, args, &task);
    for (int64_t m = 0; m < args->x->shape[0]; m++) {
        if (args->targets[m] == args->ignore_index) {
            lce_ignored_row(args, m);
        } else {
            task.rows[task.count++] = m;
        }
    }
    l4j_run(queue, lce_run, &task);
    lce_report(args);
    return L4J_OK;
}
