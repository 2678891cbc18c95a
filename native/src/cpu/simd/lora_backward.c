/*
 * lora_backward. Rows go in chunks. Each thread packs rows of every dy, forms their ds from the packed panels and, where it cannot
 * ride along in the product, the low-rank part of dx; then all threads share dx (rows and columns), dB (rows n) and dA (columns k).
 */
#include "../values.h"
#include "dropout16.h"
#include "lora.h"
#include <string.h>

typedef struct {
    l4j_queue *queue;
    const l4j_lora *args;
    lora_ranks ranks;
    int64_t chunk;
    int64_t offset[LORA_PROJECTIONS]; /* column of dy_g in the packed rows */
    bool lead;                        /* the one adapter's part of dx is the first segment of the product */
    float *dy;                        /* packed rows of each dy_g, one after the other */
    float *ds;                        /* [chunk][width] */
    float *packed;                    /* packed rows of each ds_g, one after the other */
    float *s;                         /* [chunk][width] */
    float *b_panels;                  /* B_g in panels of 16 ranks: [N_g][16] */
    float *a_panels;                  /* A_g in panels of 16 columns: [R_g][16], for the low-rank part of dx */
    float *scratch;                   /* [threads] a tile of dx, or panels of dB */
    float *own;
    float *b[2];
} backward_task;

enum { SCRATCH_FLOATS = GEMM_KC * L4J_PANEL }; /* ≥ GEMM_MR * L4J_DROPOUT_BLOCK */

static void backward_layout(l4j_arena *arena, int threads, const l4j_lora *args, backward_task *task) {
    int64_t M = args->x->shape[0], K = args->x->shape[1], total = 0, adapters = 0;
    task->ranks = lora_group_ranks(args);
    for (int g = 0; g < args->projection_count; g++) {
        task->offset[g] = total;
        total += args->weights[g]->rows;
        adapters += task->ranks.rank[g] > 0;
    }
    task->lead = args->dx && adapters == 1 && args->dropout_p == 0 && !(args->flags & L4J_LORA_ACCUMULATE_DX);
    task->chunk = lora_chunk(M, total);
    int64_t rows = task->chunk + GEMM_MR, width = task->ranks.width;
    bool blocked = !gemm_streams(task->chunk, K, threads) || !gemm_streams(M % l4j_max64(task->chunk, 1), K, threads);
    bool separate = args->dx && adapters && !task->lead;
    task->dy = l4j_take(arena, sizeof(float) * (size_t)(rows * total));
    task->ds = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->packed = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->s = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    int64_t b_panels = 0;
    for (int g = 0; g < args->projection_count; g++) {
        b_panels += gemm_ceil(task->ranks.rank[g], L4J_PANEL) * args->weights[g]->rows;
    }
    task->b_panels = l4j_take(arena, sizeof(float) * (size_t)b_panels);
    task->a_panels = l4j_take(arena, separate ? sizeof(float) * (size_t)(width * gemm_ceil(K, L4J_DROPOUT_BLOCK)) : 0);
    task->scratch = l4j_take(arena, sizeof(float) * (size_t)threads * SCRATCH_FLOATS);
    task->own = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_OWN_FLOATS);
    for (int i = 0; i < 2; i++) {
        task->b[i] = l4j_take(arena, blocked && args->dx ? sizeof(float) * (size_t)gemm_b_floats(K, total + width) : 0);
    }
}

/* Whether anything needs dy_g packed. */
static bool backward_wants(const backward_task *task, int g) { return task->ranks.rank[g] || task->args->dx; }

static float *backward_b_panels(const backward_task *task, int g) {
    float *at = task->b_panels;
    for (int i = 0; i < g; i++) at += gemm_ceil(task->ranks.rank[i], L4J_PANEL) * task->args->weights[i]->rows;
    return at;
}

static void backward_prepare(const backward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    for (int g = 0; g < args->projection_count; g++) {
        int64_t rank = task->ranks.rank[g], N = args->weights[g]->rows;
        if (!rank) continue;
        gemm_b b = lora_b(&args->b[g], false), a = lora_b(&args->a[g], false);
        l4j_partition(N, L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
        for (int64_t r = 0; r < rank; r += L4J_PANEL) { /* steps [begin, end) of each panel of [N][16] */
            float *panel = backward_b_panels(task, g) + r * N;
            gemm_pack_b(panel + begin * L4J_PANEL, &b, begin, end - begin, r, l4j_min64(L4J_PANEL, rank - r));
        }
        if (task->lead || !args->dx) continue;
        l4j_partition(K, L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
        float *panels = task->a_panels + task->ranks.offset[g] * gemm_ceil(K, L4J_DROPOUT_BLOCK);
        gemm_pack_b(panels + begin * rank, &a, 0, rank, begin, end - begin);
    }
}

/* ---- packing dy, ds ---- */

static void backward_panels(const backward_task *task, int height, int64_t m0, int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t padded = gemm_panels(rows, height) * height;
    for (int g = 0; g < args->projection_count; g++) {
        if (!backward_wants(task, g)) continue;
        int64_t N = args->weights[g]->rows;
        gemm_a dy = lora_a(&args->dy[g], NULL);
        const float *b = backward_b_panels(task, g);
        for (int64_t n = 0, steps; n < N; n += steps) {
            steps = l4j_min64(gemm_block(N), N - n);
            for (int64_t i = i0; i < i1; i++) {
                int64_t m = i * height;
                int live = (int)l4j_min64(height, rows - m);
                float *panel = task->dy + (task->offset[g] + n) * padded + m * steps;
                gemm_pack_a(panel, height, &dy, m0 + m, live, n, steps);
                lora_skinny(task->ds + m * ranks->width + ranks->offset[g], ranks->width, ranks->rank[g], panel, height,
                            live, b + n * L4J_PANEL, N * L4J_PANEL, steps, n == 0);
            }
        }
    }
}

/* Scales ds, packs it, and lays s out in padded rows for dB. */
static void backward_finish(const backward_task *task, int height, int64_t m0, int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t padded = gemm_panels(rows, height) * height, last = l4j_min64(i1 * height, rows);
    for (int g = 0; g < args->projection_count; g++) {
        int64_t rank = ranks->rank[g], offset = ranks->offset[g];
        if (!rank) continue;
        float c = l4j_lora_factor(args->scaling[g], args->dropout_p);
        gemm_a s = lora_a(&args->s[g], NULL), ds = {task->ds + offset, ranks->width, 1, NULL};
        for (int64_t m = i0 * height; m < last; m++) {
            lora_scale(task->ds + m * ranks->width + offset, rank, c);
            float *row = task->s + m * ranks->width + offset;
            for (int64_t r = 0; r < gemm_ceil(rank, L4J_PANEL); r++) {
                row[r] = r < rank ? s.data[(m0 + m) * s.row_stride + r * s.col_stride] : 0;
            }
        }
        for (int64_t k = 0, steps; k < rank; k += steps) {
            steps = l4j_min64(gemm_block(rank), rank - k);
            for (int64_t m = i0 * height; m < last; m += height) {
                gemm_pack_a(task->packed + (offset + k) * padded + m * steps, height, &ds, m,
                            (int)l4j_min64(height, last - m), k, steps);
            }
        }
    }
}

/* ---- dx ---- */

/* One tile of t_g = ds_g · A_g, [GEMM_MR][32], from packed ds. */
static void backward_low_rank(const backward_task *task, int g, int height, int64_t padded, int64_t m, int rows,
                              int64_t k, float *tile) {
    int64_t rank = task->ranks.rank[g], offset = task->ranks.offset[g];
    const float *a = task->a_panels + offset * gemm_ceil(task->args->x->shape[1], L4J_DROPOUT_BLOCK) + k * rank;
    int64_t columns = gemm_ceil(l4j_min64(task->args->x->shape[1] - k, L4J_DROPOUT_BLOCK), L4J_PANEL);
    for (int64_t j = 0; j < columns; j += GEMM_NR) {
        for (int64_t r = 0, steps; r < rank; r += steps) {
            steps = l4j_min64(gemm_block(rank), rank - r);
            gemm_piece piece = {task->packed + (offset + r) * padded + m * steps, height, a + j * rank + r * L4J_PANEL,
                                rank * L4J_PANEL, steps};
            gemm_tile(rows, (int)l4j_min64(GEMM_NR, columns - j), &piece, 1, r ? tile + j : NULL, L4J_DROPOUT_BLOCK,
                      tile + j, L4J_DROPOUT_BLOCK);
        }
    }
}

/* dx = Σ_g kept ? t_g : 0 for panels [i0, i1), the first term assigned, or added to the old dx. */
static void backward_start_dx(const backward_task *task, const l4j_dropout *drop, float *tile, int height, int64_t m0,
                              int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], padded = gemm_panels(rows, height) * height;
    for (int64_t m = i0 * height; m < l4j_min64(i1 * height, rows); m += height) {
        int live = (int)l4j_min64(height, rows - m);
        for (int64_t k = 0; k < K; k += L4J_DROPOUT_BLOCK) {
            int64_t cols = l4j_min64(L4J_DROPOUT_BLOCK, K - k);
            bool add = (args->flags & L4J_LORA_ACCUMULATE_DX) != 0;
            for (int g = 0; g < args->projection_count; g++) {
                if (!task->ranks.rank[g]) continue;
                backward_low_rank(task, g, height, padded, m, live, k, tile);
                for (int i = 0; i < live; i++) {
                    float *t = tile + i * L4J_DROPOUT_BLOCK;
                    float *out = (float *)args->dx->data + (m0 + m + i) * args->dx->stride[0] + k;
                    uint16_t bits[L4J_DROPOUT_BLOCK] = {0};
                    if (drop[g].threshold) {
                        dropout_bits16(&drop[g], drop[g].token_index[m0 + m + i], k / L4J_DROPOUT_BLOCK, bits);
                    }
                    for (int64_t j = 0; j < cols; j += L4J_PANEL) {
                        int n = (int)l4j_min64(L4J_PANEL, cols - j);
                        v16 v = v16_load(t + j);
                        if (drop[g].threshold) v = v16_keep(v, bits + j, (uint16_t)drop[g].threshold);
                        gemm_store(out + j, add ? v16_add(gemm_load(out + j, n), v) : v, n);
                    }
                }
                add = true;
            }
        }
    }
}

static void backward_dx(const backward_task *task, gemm_team *team, int height, int64_t m0, int64_t rows) {
    const l4j_lora *args = task->args;
    int64_t padded = gemm_panels(rows, height) * height;
    float *dx = (float *)args->dx->data + m0 * args->dx->stride[0];
    bool started = task->ranks.width > 0 || (args->flags & L4J_LORA_ACCUMULATE_DX);
    gemm_product p = {.m = rows,
                      .n = args->x->shape[1],
                      .height = height,
                      .start = started && !task->lead ? dx : NULL,
                      .start_stride = args->dx->stride[0],
                      .c = dx,
                      .ldc = args->dx->stride[0]};
    for (int g = 0; g < args->projection_count && task->lead; g++) {
        if (!task->ranks.rank[g]) continue;
        p.segment[p.segments++] =
            (gemm_segment){.k = task->ranks.rank[g], .packed = task->packed, .b = lora_b(&args->a[g], false)};
    }
    for (int g = 0; g < args->projection_count; g++) {
        p.segment[p.segments++] = (gemm_segment){.k = args->weights[g]->rows,
                                                 .packed = task->dy + task->offset[g] * padded,
                                                 .b = {.kind = GEMM_B_WEIGHT, .weight = args->weights[g]}};
    }
    gemm_run(team, &p);
}

/* ---- dA, dB ---- */

/* dB_g, rows n of this thread: block by block of the packed dy, its panels in ascending m. */
static void backward_db(const backward_task *task, const gemm_team *team, float *scratch, int g, int height,
                        int64_t rows, bool add) {
    const l4j_tensor *db = &task->args->db[g];
    int64_t N = db->shape[0], rank = db->shape[1], padded = gemm_panels(rows, height) * height, begin, end;
    l4j_partition(N, L4J_PANEL, team->thread, team->threads, &begin, &end);
    for (int64_t n = 0, steps; n < N; n += steps) {
        steps = l4j_min64(gemm_block(N), N - n);
        int64_t first = l4j_max64(begin, n), count = l4j_min64(end, n + steps) - first;
        for (int64_t r = 0; r < rank && count > 0; r += L4J_PANEL) {
            int live = (int)l4j_min64(L4J_PANEL, rank - r);
            float *out = (float *)db->data + first * db->stride[0] + r;
            for (int64_t i = 0; i < count; i++) {
                v16_store(scratch + i * L4J_PANEL, add ? gemm_load(out + i * db->stride[0], live) : v16_zero());
            }
            for (int64_t m = 0; m < rows; m += height) {
                float s[GEMM_MR * L4J_PANEL];
                int height_m = (int)l4j_min64(height, rows - m);
                for (int i = 0; i < height_m; i++) {
                    v16_store(s + i * L4J_PANEL,
                              v16_load(task->s + (m + i) * task->ranks.width + task->ranks.offset[g] + r));
                }
                const float *panel = task->dy + (task->offset[g] + n) * padded + m * steps + (first - n) * height;
                gemm_outer(scratch, count, panel, height, height_m, s, live);
            }
            for (int64_t i = 0; i < count; i++)
                gemm_store(out + i * db->stride[0], v16_load(scratch + i * L4J_PANEL), live);
        }
    }
}

/* dA_g, columns [k, k + cols) of steps m of one block, from packed x. */
static void backward_da_tiles(const backward_task *task, int g, const float *x, int64_t m, int64_t steps, int64_t k,
                              int64_t cols, bool add) {
    const l4j_tensor *da = &task->args->da[g];
    int64_t rank = da->shape[0];
    int height = gemm_height(rank);
    for (int64_t r = 0; r < rank; r += height) {
        const float *ds = task->ds + m * task->ranks.width + task->ranks.offset[g] + r;
        float *out = (float *)da->data + r * da->stride[0] + k;
        for (int64_t j = 0; j < cols; j += GEMM_NR) {
            gemm_piece piece = {ds, task->ranks.width, x + j * steps, steps * L4J_PANEL, steps};
            gemm_tile((int)l4j_min64(height, rank - r), (int)l4j_min64(GEMM_NR, cols - j), &piece, 1,
                      add ? out + j : NULL, da->stride[0], out + j, da->stride[0]);
        }
    }
}

/* Every dA, columns k of this thread. */
static void backward_da(const backward_task *task, const gemm_team *team, const l4j_dropout *drop, int64_t m0,
                        int64_t rows, bool add) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    l4j_partition(K, L4J_DROPOUT_BLOCK, team->thread, team->threads, &begin, &end);
    for (int64_t k = begin; k < end; k += L4J_DROPOUT_BLOCK) {
        int64_t cols = l4j_min64(L4J_DROPOUT_BLOCK, end - k);
        for (int64_t m = 0, steps; m < rows; m += steps) {
            steps = l4j_min64(gemm_block(rows), rows - m);
            bool packed = false;
            for (int g = 0; g < args->projection_count; g++) {
                if (!task->ranks.rank[g] || !args->da[g].data) continue;
                gemm_b x = lora_b(args->x, false);
                if (drop[g].threshold) x.dropout = &drop[g];
                if (!packed || x.dropout) gemm_pack_b(team->own, &x, m0 + m, steps, k, cols);
                packed = true;
                backward_da_tiles(task, g, team->own, m, steps, k, cols, add || m > 0);
            }
        }
    }
}

/* No rows: gradients that are not added to become zero. */
static void backward_clear(const l4j_lora *args, const lora_ranks *ranks) {
    for (int g = 0; g < args->projection_count; g++) {
        const l4j_tensor *grad[2] = {args->da ? &args->da[g] : NULL, args->db ? &args->db[g] : NULL};
        for (int i = 0; i < 2 && ranks->rank[g]; i++) {
            for (int64_t r = 0; grad[i] && grad[i]->data && r < grad[i]->shape[0]; r++) {
                memset((float *)grad[i]->data + r * grad[i]->stride[0], 0, sizeof(float) * (size_t)grad[i]->shape[1]);
            }
        }
    }
}

static void backward_run(void *context, int thread, int threads) {
    const backward_task *task = context;
    const l4j_lora *args = task->args;
    l4j_pool *pool = task->queue->pool;
    gemm_team team = {.pool = pool,
                      .thread = thread,
                      .threads = threads,
                      .b = {task->b[0], task->b[1]},
                      .own = task->own + (int64_t)thread * GEMM_OWN_FLOATS};
    float *scratch = task->scratch + (int64_t)thread * SCRATCH_FLOATS;
    l4j_dropout drop[LORA_PROJECTIONS] = {0};
    for (int g = 0; g < args->projection_count; g++) {
        if (task->ranks.rank[g]) drop[g] = l4j_lora_dropout(args, g);
    }
    backward_prepare(task, thread, threads);
    l4j_pool_barrier(pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        int height = gemm_height(rows);
        bool add = m0 > 0 || (args->flags & L4J_LORA_ACCUMULATE_GRADS);
        int64_t group = GEMM_MC / height, begin, end;
        l4j_partition(gemm_panels(rows, height), 1, thread, threads, &begin, &end);
        for (int64_t i = begin; i < end; i += group) {
            int64_t last = l4j_min64(i + group, end);
            backward_panels(task, height, m0, rows, i, last);
            backward_finish(task, height, m0, rows, i, last);
            if (args->dx && task->ranks.width && !task->lead) {
                backward_start_dx(task, drop, scratch, height, m0, rows, i, last);
            }
        }
        l4j_pool_barrier(pool);
        if (args->dx) backward_dx(task, &team, height, m0, rows);
        for (int g = 0; g < args->projection_count; g++) {
            if (task->ranks.rank[g] && args->db && args->db[g].data) {
                backward_db(task, &team, scratch, g, height, rows, add);
            }
        }
        if (task->ranks.width && args->da) backward_da(task, &team, drop, m0, rows, add);
        l4j_pool_barrier(pool);
    }
}

size_t L4J_NAME(lora_backward_workspace)(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    backward_task task;
    backward_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_backward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_backward", error);
    if (status != L4J_OK) return status;
    l4j_arena arena = {.base = workspace};
    backward_task task = {.queue = queue, .args = args};
    backward_layout(&arena, queue->threads, args, &task);
    if (args->x->shape[0] == 0 && !(args->flags & L4J_LORA_ACCUMULATE_GRADS)) backward_clear(args, &task.ranks);
    l4j_run(queue, backward_run, &task);
    return L4J_OK;
}
