/*
 * attention_backward. One key/value head of one sequence is a unit: its query heads in ascending order, and blocks of their
 * queries in ascending order, add to dk and dv. Where there are many units each thread takes whole ones; where there are few all
 * threads share one: queries of a block are divided for p, ds and dq, then keys for dk and dv.
 */
#include "../values.h"
#include "attention.h"

typedef struct {
    const l4j_attention *args;
    l4j_pool *pool;
    int64_t rows;           /* of a block, for one thread */
    int64_t stride;         /* floats between rows of p and ds */
    float *p, *ds;          /* [threads · rows][stride] */
    attention_packs *packs; /* [threads] */
    atomic_llong next;      /* unit to be claimed: results do not depend on who does which */
} backward_task;

/* Who works on a unit, with which part of the scratch. */
typedef struct {
    const backward_task *task;
    int member, members;
    int64_t rows;
    float *p, *ds;
    const attention_packs *packs;
} backward_team;

enum { BACKWARD_TILES = 16 }; /* most tiles of rows that a thread has in a block */

static int64_t backward_stride(const l4j_attention *args, int threads) {
    return attention_stride(args, (int64_t)BACKWARD_TILES * GEMM_MR * threads);
}

/* Rows of a block: about half a MiB of p and ds together while keys are few, no more than a sequence can have. */
static int64_t backward_rows(const l4j_attention *args, int64_t stride) {
    int64_t rows =
        l4j_max64(ATTENTION_ROWS / GEMM_MR, l4j_min64(BACKWARD_TILES, (1 << 16) / stride / GEMM_MR)) * GEMM_MR;
    return l4j_max64(1, l4j_min64(rows, args->max_q_length));
}

/* Tree sum over d of do · o. */
static float backward_delta(const l4j_attention *args, int64_t m, int64_t h) {
    int64_t D = args->q->shape[2];
    float buffers[2][L4J_ATTENTION_MAX_D];
    attention_head d_o = attention_head_of(args->d_o, m, h), o = attention_head_of(args->o, m, h);
    const float *x = attention_row(&d_o, D, buffers[0]), *y = attention_row(&o, D, buffers[1]);
    v16 sum = v16_zero();
#define BACKWARD_DELTA(i, lanes) sum = rows_sum_fma(rows_load(x + i, lanes), rows_load(y + i, lanes), sum, lanes)
    ROWS_EACH(D, BACKWARD_DELTA);
#undef BACKWARD_DELTA
    return v16_sum(sum);
}

/* Scores and dp [0, count) of one row become p and ds; lanes past them hold anything. */
static void backward_softmax(float *p, float *ds, int64_t count, float scale, float lse, float delta) {
    v16 factor = v16_set1(scale), shift = v16_set1(lse), mean = v16_set1(delta);
    for (int64_t j = 0; j < count; j += L4J_PANEL) {
        v16 e = v16_exp(v16_sub(v16_mul(v16_load(p + j), factor), shift));
        v16_store(p + j, e);
        v16_store(ds + j, v16_mul(v16_mul(e, v16_sub(v16_load(ds + j), mean)), factor));
    }
}

/* p, ds and dq of rows [begin, end) of a block of head h. */
static void backward_queries(const backward_team *team, const attention_block *block, int b, int64_t h, int64_t begin,
                             int64_t end) {
    if (begin >= end) return;
    const l4j_attention *args = team->task->args;
    attention_block part = *block;
    part.first += begin;
    part.rows = end - begin;
    int64_t m = args->q_offsets[b] + part.first, kh = h / (args->q->shape[1] / args->k->shape[1]);
    attention_head q = attention_head_of(args->q, m, h), d_o = attention_head_of(args->d_o, m, h);
    attention_head k = attention_head_of(args->k, args->kv_starts[b], kh);
    attention_head v = attention_head_of(args->v, args->kv_starts[b], kh);
    float *p = team->p + begin * block->stride, *ds = team->ds + begin * block->stride;
    attention_scores(&part, team->packs, &q, &k, p);
    attention_scores(&part, team->packs, &d_o, &v, ds);
    for (int64_t r = 0; r < part.rows; r++) {
        const l4j_tensor *lse = args->lse;
        float row_lse = ((const float *)lse->data)[(m + r) * lse->stride[0] + h * lse->stride[1]];
        int64_t from = attention_first_panel(&part, r), at = r * block->stride + from - block->origin;
        backward_softmax(p + at, ds + at, attention_limit(&part, r) - from, args->scale, row_lse,
                         backward_delta(args, m + r, h));
    }
    attention_head dq = attention_head_of(args->dq, m, h);
    attention_apply(&part, team->packs, ds, &k, (float *)dq.data, dq.row_stride);
}

/* Rows [begin, end) of a head become +0. */
static void backward_zero(const attention_head *x, int64_t begin, int64_t end, int64_t D) {
    for (int64_t j = begin; j < end; j++) {
        for (int64_t d = 0; d < D; d++) ((float *)x->data)[j * x->row_stride + d] = 0;
    }
}

static void backward_barrier(const backward_team *team) {
    if (team->members > 1) l4j_pool_barrier(team->task->pool);
}

static void backward_unit(const backward_team *team, int b, int64_t kh) {
    const l4j_attention *args = team->task->args;
    int64_t group = args->q->shape[1] / args->k->shape[1], D = args->q->shape[2], keys = args->kv_lengths[b];
    int64_t start = args->q_offsets[b], queries = args->q_offsets[b + 1] - start, key_begin, key_end, begin, end;
    attention_head dk = attention_head_of(args->dk, args->kv_starts[b], kh);
    attention_head dv = attention_head_of(args->dv, args->kv_starts[b], kh);
    l4j_partition(keys, L4J_PANEL, team->member, team->members, &key_begin, &key_end);
    backward_zero(&dk, key_begin, key_end, D);
    backward_zero(&dv, key_begin, key_end, D);
    for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
        for (int64_t first = 0; first < queries; first += team->rows) {
            attention_block block =
                attention_block_of(args, b, 1, first, l4j_min64(team->rows, queries - first), team->task->stride);
            l4j_partition(block.rows, 1, team->member, team->members, &begin, &end);
            backward_queries(team, &block, b, h, begin, end);
            backward_barrier(team);
            attention_head q = attention_head_of(args->q, start + first, h);
            attention_head d_o = attention_head_of(args->d_o, start + first, h);
            int64_t seen = attention_limit(&block, block.rows - 1) - block.origin;
            l4j_partition(seen, L4J_PANEL, team->member, team->members, &begin, &end);
            begin += block.origin;
            end += block.origin;
            attention_accumulate(&block, team->packs, team->ds, &q, begin, end, (float *)dk.data, dk.row_stride);
            attention_accumulate(&block, team->packs, team->p, &d_o, begin, end, (float *)dv.data, dv.row_stride);
            backward_barrier(team);
        }
    }
}

static void backward_run(void *context, int thread, int threads) {
    backward_task *task = context;
    const l4j_attention *args = task->args;
    int64_t Hkv = args->k->shape[1], units = args->sequences * Hkv;
    backward_team team = {.task = task, .members = 1, .rows = task->rows, .packs = &task->packs[thread]};
    team.p = task->p + thread * task->rows * task->stride;
    team.ds = task->ds + thread * task->rows * task->stride;
    if (units >= 4 * threads) {
        for (int64_t u = atomic_fetch_add(&task->next, 1); u < units; u = atomic_fetch_add(&task->next, 1)) {
            backward_unit(&team, (int)(u / Hkv), u % Hkv);
        }
        return;
    }
    team.member = thread;
    team.members = threads;
    team.rows = task->rows * threads;
    team.p = task->p;
    team.ds = task->ds;
    for (int64_t u = 0; u < units; u++) backward_unit(&team, (int)(u / Hkv), u % Hkv);
}

static size_t backward_layout(int threads, const l4j_attention *args, void *workspace, backward_task *task) {
    l4j_arena arena = {.base = workspace};
    task->args = args;
    task->stride = backward_stride(args, threads);
    task->rows = backward_rows(args, task->stride);
    size_t scores = (size_t)(threads * task->rows * task->stride);
    task->p = l4j_take(&arena, sizeof(float) * scores);
    task->ds = l4j_take(&arena, sizeof(float) * scores);
    task->packs = l4j_take(&arena, sizeof(attention_packs) * (size_t)threads);
    for (int t = 0; t < threads; t++) {
        attention_packs packs = attention_take_packs(&arena, args, task->rows);
        if (workspace) task->packs[t] = packs;
    }
    return arena.used;
}

size_t L4J_NAME(attention_backward_workspace)(int threads, const l4j_attention *args) {
    backward_task task;
    return backward_layout(threads, args, NULL, &task);
}

l4j_status L4J_NAME(attention_backward)(l4j_queue *queue, const l4j_attention *args, void *workspace,
                                        l4j_error *error) {
    l4j_status status = l4j_check_sequences(args, true, error);
    if (status != L4J_OK) return status;
    backward_task task = {.pool = queue->pool};
    backward_layout(queue->threads, args, workspace, &task);
    atomic_init(&task.next, 0);
    l4j_run(queue, backward_run, &task);
    return L4J_OK;
}
