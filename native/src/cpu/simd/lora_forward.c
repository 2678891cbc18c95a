/*
 * lora_forward. Rows go in chunks. Each thread packs rows of x for the whole group of projections and forms their s from the
 * packed panels; then all threads run one product for each projection. Where one adapter has all rows of a chunk, the contraction
 * of that product is k followed by r; otherwise each run of rows continues its chains over its adapter's r afterwards.
 */
#include "int8.h"
#include "lora.h"
#include <string.h>

typedef struct {
    l4j_queue *queue;
    const l4j_lora *args;
    lora_ranks ranks;
    int64_t chunk;
    float *x;        /* packed rows of x */
    float *s;        /* packed rows of s: each s_g one after the other, or each panel of rows with all its columns */
    float *adapter;  /* A_gᵀ in panels of 16 ranks */
    float *b_panels; /* B_gᵀ in panels of 16 columns, where several adapters may share a chunk */
    float *bias;     /* fp32, [ΣN_g] */
    float *acc;      /* [threads][GEMM_MC][width] s of the rows in work */
    float *masked;   /* [threads] one panel of masked x */
    float *own, *few;
    int8_rows bytes;  /* rows of x, of L4J_COMPUTE_INT8 */
    int8_tile *tiles; /* [threads] */
} forward_task;

static void forward_layout(l4j_arena *arena, int threads, const l4j_lora *args, forward_task *task) {
    int64_t K = args->x->shape[1], M = args->x->shape[0], bias = 0;
    task->ranks = lora_take_ranks(arena, args, L4J_PANEL);
    task->chunk = lora_chunk(M, K);
    for (int g = 0; g < args->projection_count; g++) {
        bias += args->biases && args->biases[g].data ? args->weights[g]->rows : 0;
    }
    int64_t rows = task->chunk + GEMM_MR, width = task->ranks.width;
    task->x = l4j_take(arena, sizeof(float) * (size_t)(rows * K));
    task->s = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->adapter = l4j_take(arena, sizeof(float) * (size_t)(task->ranks.columns * K));
    task->b_panels = l4j_take(arena, args->segment_capacity ? sizeof(float) * (size_t)task->ranks.b_floats : 0);
    task->bias = l4j_take(arena, sizeof(float) * (size_t)bias);
    task->acc = l4j_take(arena, sizeof(float) * (size_t)(threads * GEMM_MC * width));
    task->masked = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_MR * GEMM_KC);
    task->own = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_OWN_FLOATS);
    task->few = l4j_take(arena, M <= L4J_PANEL ? sizeof(float) * (size_t)((K + width) * L4J_PANEL) : 0);
    if (args->compute != L4J_COMPUTE_INT8) return;
    bool tiles = int8_in_tiles(args->weights, args->projection_count, task->chunk);
    int8_layout(arena, task->chunk, K, tiles, &task->bytes);
    task->tiles = l4j_take(arena, sizeof(int8_tile) * (size_t)threads);
}

/* Adapters and biases, shared out by panels and by projections. */
static void forward_prepare(const forward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    for (int i = 0; i < args->adapter_count; i++) {
        const lora_adapter *adapter = &task->ranks.adapter[i];
        for (int g = 0; g < args->projection_count; g++) {
            int64_t rank = adapter->rank[g];
            if (!rank) continue;
            gemm_b a = lora_b(&args->a[i * args->projection_count + g], true);
            gemm_b b = lora_b(&args->b[i * args->projection_count + g], true);
            l4j_partition(rank, L4J_PANEL, thread, threads, &begin, &end);
            gemm_pack_b(task->adapter + (adapter->first + adapter->offset[g] + begin) * K, &a, 0, K, begin,
                        end - begin);
            if (!args->segment_capacity) continue;
            l4j_partition(args->weights[g]->rows, L4J_PANEL, thread, threads, &begin, &end);
            gemm_pack_b(task->b_panels + adapter->b[g] + begin * rank, &b, 0, rank, begin, end - begin);
        }
    }
    if (thread == 0) lora_bias(args, task->bias);
}

/* Packs panels [i0, i1) of the chunk at row m0 and leaves their s, unscaled, in acc. */
static void forward_panels(const forward_task *task, float *acc, float *masked, int height, int64_t m0, int64_t rows,
                           int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t K = args->x->shape[1], padded = gemm_panels(rows, height) * height;
    for (int64_t k = 0, steps; k < K; k += steps) {
        steps = l4j_min64(gemm_block(K), K - k);
        for (int64_t i = i0; i < i1; i++) {
            int64_t m = i * height, last = l4j_min64(m + height, rows);
            float *panel = task->x + k * padded + m * steps;
            gemm_a x = lora_a(args->x, NULL);
            gemm_pack_a(panel, height, &x, m0 + m, (int)(last - m), k, steps);
            for (int64_t from = m, to; from < last; from = to) {
                to = lora_run(ranks, m0 + from, m0 + last) - m0;
                int32_t one = ranks->row[m0 + from];
                for (int g = 0; g < args->projection_count && one >= 0; g++) {
                    const lora_adapter *adapter = &ranks->adapter[one];
                    if (!adapter->rank[g]) continue;
                    const float *in = panel;
                    l4j_dropout drop = l4j_lora_dropout(args, one, g);
                    if (drop.threshold) {
                        x.dropout = &drop;
                        gemm_pack_a(masked, height, &x, m0 + m, (int)(last - m), k, steps);
                        in = masked;
                    }
                    lora_skinny(acc + (from - i0 * height) * ranks->width + adapter->offset[g], ranks->width,
                                adapter->rank[g], in + (from - m), height, (int)(to - from),
                                task->adapter + (adapter->first + adapter->offset[g]) * K + k * L4J_PANEL,
                                K * L4J_PANEL, steps, k == 0);
                }
            }
        }
    }
}

/* Packs s for the product: each s_g in the blocks of its contraction. */
static void forward_pack_s(const forward_task *task, const float *acc, const lora_adapter *adapter, int height,
                           int64_t padded, int64_t first, int64_t last) {
    for (int g = 0; g < task->args->projection_count; g++) {
        int64_t rank = adapter->rank[g], offset = adapter->offset[g];
        gemm_a s = {acc + offset, task->ranks.width, 1, NULL};
        for (int64_t k = 0, steps; k < rank; k += steps) {
            steps = l4j_min64(gemm_block(rank), rank - k);
            for (int64_t m = first; m < last; m += height) {
                gemm_pack_a(task->s + (offset + k) * padded + m * steps, height, &s, m - first,
                            (int)l4j_min64(height, last - m), k, steps);
            }
        }
    }
}

/* Packs s for what follows the product: each panel of rows with all its columns. */
static void forward_pack_s_panels(const forward_task *task, const float *acc, int height, int64_t first, int64_t last) {
    int64_t width = task->ranks.width;
    gemm_a s = {acc, width, 1, NULL};
    for (int64_t m = first; m < last; m += height) {
        for (int64_t k = 0; k < width; k += GEMM_KC) {
            gemm_pack_a(task->s + m * width + k * height, height, &s, m - first, (int)l4j_min64(height, last - m), k,
                        l4j_min64(GEMM_KC, width - k));
        }
    }
}

/* Scales the s in acc, hands it to the caller, and packs it. */
static void forward_finish(const forward_task *task, float *acc, int height, int64_t m0, int64_t rows, bool mixed,
                           int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t first = i0 * height, last = l4j_min64(i1 * height, rows);
    for (int64_t m = first; m < last; m++) {
        int32_t one = ranks->row[m0 + m];
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            int64_t rank = ranks->adapter[one].rank[g];
            if (!rank) continue;
            float *row = acc + (m - first) * ranks->width + ranks->adapter[one].offset[g];
            lora_scale(row, rank, l4j_lora_factor(args->scaling[one * args->projection_count + g], args->dropout_p));
            memcpy((float *)args->s[g].data + (m0 + m) * args->s[g].stride[0], row, sizeof(float) * (size_t)rank);
        }
    }
    if (mixed) {
        forward_pack_s_panels(task, acc, height, first, last);
    } else if (ranks->row[m0] >= 0) {
        forward_pack_s(task, acc, &ranks->adapter[ranks->row[m0]], height, gemm_panels(rows, height) * height, first,
                       last);
    }
}

/* y_g of one chunk; without the low-rank part where the rows are mixed. */
static void forward_product(const forward_task *task, gemm_team *team, int g, const float *bias, int height, int64_t m0,
                            int64_t rows, bool mixed) {
    const l4j_lora *args = task->args;
    const l4j_weight *w = args->weights[g];
    int32_t one = mixed ? -1 : task->ranks.row[m0];
    int64_t rank = one >= 0 ? task->ranks.adapter[one].rank[g] : 0, padded = gemm_panels(rows, height) * height;
    gemm_product p = {.m = rows,
                      .n = w->rows,
                      .height = height,
                      .start = bias,
                      .c = (float *)args->y[g].data + m0 * args->y[g].stride[0],
                      .ldc = args->y[g].stride[0],
                      .segments = rank ? 2 : 1};
    p.segment[0] = (gemm_segment){.k = w->cols, .packed = task->x, .b = {.kind = GEMM_B_WEIGHT_TRANS, .weight = w}};
    if (rank) {
        p.segment[1] = (gemm_segment){.k = rank,
                                      .packed = task->s + task->ranks.adapter[one].offset[g] * padded,
                                      .b = lora_b(&args->b[one * args->projection_count + g], true)};
    }
    if (args->compute == L4J_COMPUTE_INT8) {
        int8_product_of(w->device, &task->bytes)(team, &task->bytes, rows, w, bias, p.c, p.ldc,
                                                 &task->tiles[team->thread]);
        if (!rank) return;
        l4j_pool_barrier(team->pool);
        p.start = p.c;
        p.start_stride = p.ldc;
        p.segment[0] = p.segment[1];
        p.segments = 1;
    }
    gemm_run(team, &p);
}

/* Continues the chains of y over r, run by run, for panels [i0, i1) of a chunk with mixed rows. */
static void forward_low_rank(const forward_task *task, int g, int height, int64_t m0, int64_t rows, int64_t i0,
                             int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t N = args->weights[g]->rows;
    for (int64_t i = i0; i < i1; i++) {
        int64_t m = i * height, last = l4j_min64(m + height, rows);
        for (int64_t from = m, to; from < last; from = to) {
            to = lora_run(ranks, m0 + from, m0 + last) - m0;
            int32_t one = ranks->row[m0 + from];
            int64_t rank = one >= 0 ? ranks->adapter[one].rank[g] : 0;
            if (!rank) continue;
            const float *s = task->s + m * ranks->width + ranks->adapter[one].offset[g] * height + (from - m);
            const float *b = task->b_panels + ranks->adapter[one].b[g];
            float *y = (float *)args->y[g].data + (m0 + from) * args->y[g].stride[0];
            for (int64_t n = 0; n < N; n += GEMM_NR) {
                gemm_piece piece = {
                    .a = s, .a_step = height, .b = b + n * rank, .b_panel = rank * L4J_PANEL, .k = rank};
                gemm_tile((int)(to - from), (int)l4j_min64(GEMM_NR, N - n), &piece, 1, y + n, args->y[g].stride[0],
                          y + n, args->y[g].stride[0]);
            }
        }
    }
}

static void forward_chunk(const forward_task *task, gemm_team *team, float *acc, float *masked, int64_t m0,
                          int64_t rows) {
    const l4j_lora *args = task->args;
    int height = gemm_height(rows);
    bool mixed = lora_run(&task->ranks, m0, m0 + rows) < m0 + rows, int8 = args->compute == L4J_COMPUTE_INT8;
    int64_t panels = gemm_panels(rows, height), taken = gemm_begin(team), begin, end;
    while (gemm_claim(team, &taken, panels, GEMM_MC / height, &begin, &end)) {
        forward_panels(task, acc, masked, height, m0, rows, begin, end);
        for (int64_t m = begin * height; m < l4j_min64(end * height, rows) && int8; m++) {
            const float *x = (const float *)args->x->data + (m0 + m) * args->x->stride[0];
            int8_quantize(&task->bytes, m, x, args->x->stride[1]);
        }
        forward_finish(task, acc, height, m0, rows, mixed, begin, end);
    }
    l4j_pool_barrier(team->pool);
    const float *bias = task->bias;
    for (int g = 0; g < args->projection_count; g++) {
        bool has_bias = args->biases && args->biases[g].data;
        forward_product(task, team, g, has_bias ? bias : NULL, height, m0, rows, mixed);
        bias += has_bias ? args->weights[g]->rows : 0;
    }
    l4j_pool_barrier(team->pool);
    l4j_partition(panels, 1, team->thread, team->threads, &begin, &end);
    for (int g = 0; g < args->projection_count && mixed; g++) {
        forward_low_rank(task, g, height, m0, rows, begin, end);
    }
}

static void forward_run(void *context, int thread, int threads) {
    const forward_task *task = context;
    const l4j_lora *args = task->args;
    gemm_team team = {.pool = task->queue->pool,
                      .thread = thread,
                      .threads = threads,
                      .own = task->own + (int64_t)thread * GEMM_OWN_FLOATS,
                      .few = args->x->shape[0] <= L4J_PANEL ? task->few : NULL};
    forward_prepare(task, thread, threads);
    l4j_pool_barrier(team.pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        forward_chunk(task, &team, task->acc + (int64_t)thread * GEMM_MC * task->ranks.width,
                      task->masked + (int64_t)thread * GEMM_MR * GEMM_KC, m0, rows);
        l4j_pool_barrier(team.pool);
    }
}

size_t L4J_NAME(lora_forward_workspace)(int threads, const l4j_lora *args) {
    if (args->compute == L4J_COMPUTE_BF16) return lora_bf16_forward_workspace(threads, args);
    l4j_arena arena = {0};
    forward_task task;
    forward_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_forward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_forward", error);
    if (status != L4J_OK) return status;
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_forward(queue, args, workspace);
        return L4J_OK;
    }
    l4j_arena arena = {.base = workspace};
    forward_task task = {.queue = queue, .args = args};
    forward_layout(&arena, queue->threads, args, &task);
    double columns = 0;
    for (int g = 0; g < args->projection_count; g++) columns += (double)args->weights[g]->rows;
    l4j_run_work(queue, (double)args->x->shape[0] * (double)args->x->shape[1] * columns, forward_run, &task);
    return L4J_OK;
}
