/*
 * attention_forward. A task is a block of rows of one key/value head: all query heads that share it, row r being query r / group
 * and head r % group, so that each key and value is packed once for the whole group. Scores of a row are complete before its
 * softmax: one maximum, one sum over the whole row, whatever the block sizes.
 */
#include "../values.h"
#include "attention.h"

#include <math.h>

enum { FORWARD_TILES = 32 }; /* most tiles of rows in a block */

typedef struct {
    attention_packs packs;
    float *scores; /* [rows][stride] */
    float *q;      /* [rows][D], gathered */
    float *o;      /* [rows][depth], before normalisation */
} forward_scratch;

typedef struct {
    const l4j_attention *args;
    forward_scratch *scratch; /* [threads] */
    atomic_llong next;        /* task to be claimed: results do not depend on who does which */
} forward_task;

static int64_t forward_stride(const l4j_attention *args) { return attention_stride(args, FORWARD_TILES * GEMM_MR); }

/* Rows of a block: about half a MiB of scores while keys are few, no more than a sequence can have. */
static int64_t forward_rows(const l4j_attention *args) {
    int64_t group = args->q->shape[1] / args->k->shape[1];
    int64_t rows =
        l4j_max64(ATTENTION_ROWS / GEMM_MR, l4j_min64(FORWARD_TILES, (1 << 17) / forward_stride(args) / GEMM_MR)) *
        GEMM_MR;
    return l4j_max64(1, l4j_min64(rows, group * l4j_min64(rows, args->max_q_length)));
}

/* Scores [start, limit) of one row become p, start < 16; returns their sum and stores the largest score. */
static float forward_softmax(float *row, int64_t start, int64_t limit, float scale, float *maximum) {
    v16 factor = v16_set1(scale), low = v16_set1(-INFINITY), max = low, sum = v16_zero();
#define FORWARD_MAX(i, lanes)                                                    \
    do {                                                                         \
        v16 z = v16_mul(v16_load(row + i), factor);                              \
        if (i < start) z = v16_first_n(low, z, (int)start);                      \
        max = v16_max(lanes == L4J_PANEL ? z : v16_first_n(z, low, lanes), max); \
    } while (0)
    ROWS_EACH(limit, FORWARD_MAX);
#undef FORWARD_MAX
    float largest = v16_hmax(max);
    max = v16_set1(largest);
#define FORWARD_EXP(i, lanes)                                                           \
    do {                                                                                \
        v16 p = v16_exp(v16_sub(v16_mul(v16_load(row + i), factor), max));              \
        v16_store(row + i, p);                                                          \
        if (i < start) p = v16_first_n(v16_zero(), p, (int)start);                      \
        sum = v16_add(sum, lanes == L4J_PANEL ? p : v16_first_n(p, v16_zero(), lanes)); \
    } while (0)
    ROWS_EACH(limit, FORWARD_EXP);
#undef FORWARD_EXP
    *maximum = largest;
    return v16_sum(sum);
}

static void forward_block(const l4j_attention *args, const forward_scratch *scratch, const attention_block *block,
                          int b, int64_t kh) {
    int64_t D = block->D, depth = attention_depth(args), group = block->group;
    const l4j_tensor *lse = args->lse;
    for (int64_t r = 0; r < block->rows; r++) {
        int64_t at = block->first + r;
        attention_head q = attention_head_of(args->q, args->q_offsets[b] + at / group, kh * group + at % group);
        float *to = scratch->q + r * D;
        const float *from = attention_row(&q, D, to);
        if (from != to) memcpy(to, from, sizeof(float) * (size_t)D);
    }
    attention_head rows = {scratch->q, D, 1}, keys = attention_head_of(args->k, args->kv_starts[b], kh);
    attention_head values = attention_head_of(args->v, args->kv_starts[b], kh);
    attention_scores(block, &scratch->packs, &rows, &keys, scratch->scores);
    float sum[FORWARD_TILES * GEMM_MR], max[FORWARD_TILES * GEMM_MR];
    for (int64_t r = 0; r < block->rows; r++) {
        int64_t from = attention_first_panel(block, r);
        float *row = scratch->scores + r * block->stride + (from - block->origin);
        sum[r] = forward_softmax(row, attention_start(block, r) - from, attention_limit(block, r) - from, args->scale,
                                 &max[r]);
    }
    attention_apply(block, &scratch->packs, scratch->scores, &values, scratch->o, depth);
    for (int64_t r = 0; r < block->rows; r++) {
        int64_t at = block->first + r, m = args->q_offsets[b] + at / group, h = kh * group + at % group;
        float *o = (float *)args->o->data + m * args->o->stride[0] + h * args->o->stride[1];
        const float *from = scratch->o + r * depth;
        v16 factor = v16_set1(1 / sum[r]);
#define FORWARD_SCALE(i, lanes) rows_store(o + i, v16_mul(rows_load(from + i, lanes), factor), lanes)
        ROWS_EACH(D, FORWARD_SCALE);
#undef FORWARD_SCALE
        if (lse) ((float *)lse->data)[m * lse->stride[0] + h * lse->stride[1]] = max[r] + l4j_log(sum[r]);
    }
}

static void forward_run(void *context, int thread, int threads) {
    (void)threads;
    forward_task *task = context;
    const l4j_attention *args = task->args;
    int64_t Hkv = args->k->shape[1], group = args->q->shape[1] / Hkv, capacity = forward_rows(args), index = 0;
    int64_t mine = atomic_fetch_add(&task->next, 1);
    for (int b = 0; b < args->sequences; b++) {
        int64_t queries = args->q_offsets[b + 1] - args->q_offsets[b], rows = queries * group;
        int64_t blocks = (rows + capacity - 1) / capacity;
        for (int64_t t = 0; t < blocks * Hkv; t++, index++) {
            if (index != mine) continue;
            int64_t first = (blocks - 1 - t / Hkv) * capacity; /* the longest first */
            attention_block block =
                attention_block_of(args, b, group, first, l4j_min64(capacity, rows - first), forward_stride(args));
            forward_block(args, &task->scratch[thread], &block, b, t % Hkv);
            mine = atomic_fetch_add(&task->next, 1);
        }
    }
}

static size_t forward_layout(int threads, const l4j_attention *args, void *workspace, forward_task *task) {
    l4j_arena arena = {.base = workspace};
    size_t rows = (size_t)forward_rows(args);
    task->args = args;
    task->scratch = l4j_take(&arena, sizeof(forward_scratch) * (size_t)threads);
    for (int t = 0; t < threads; t++) {
        forward_scratch scratch = {.packs = attention_take_packs(&arena, args, (int64_t)rows)};
        scratch.scores = l4j_take(&arena, sizeof(float) * rows * (size_t)forward_stride(args));
        scratch.q = l4j_take(&arena, sizeof(float) * rows * (size_t)args->q->shape[2]);
        scratch.o = l4j_take(&arena, sizeof(float) * rows * (size_t)attention_depth(args));
        if (workspace) task->scratch[t] = scratch;
    }
    return arena.used;
}

size_t L4J_NAME(attention_forward_workspace)(int threads, const l4j_attention *args) {
    forward_task task;
    return forward_layout(threads, args, NULL, &task);
}

l4j_status L4J_NAME(attention_forward)(l4j_queue *queue, const l4j_attention *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_sequences(args, false, error);
    if (status != L4J_OK) return status;
    forward_task task;
    forward_layout(queue->threads, args, workspace, &task);
    atomic_init(&task.next, 0);
    double width = (double)(args->q->shape[1] * args->q->shape[2]);
    l4j_run_work(queue, 2.0 * (double)args->q->shape[0] * (double)attention_span(args, 1) * width, forward_run, &task);
    return L4J_OK;
}
