/*
 * lora_backward. Rows go in chunks. Each thread packs rows of every dy, forms their ds from the packed panels and, where it cannot
 * ride along in the product, the low-rank part of dx; then all threads share dx (rows and columns), dB (rows n) and dA (columns k).
 * Rows of one adapter that follow one another are a run; whatever depends on the adapter goes run by run.
 */
#include "lora.h"
#include <string.h>

typedef struct {
    l4j_queue *queue;
    const l4j_lora *args;
    lora_ranks ranks;
    int64_t chunk;
    int64_t offset[LORA_PROJECTIONS]; /* column of dy_g in the packed rows */
    bool adapted[LORA_PROJECTIONS];   /* some adapter is on the projection */
    int64_t lead;                     /* rank of the one adapter whose part of dx leads the product; 0 = none does */
    float *dy;                        /* packed rows of each dy_g, one after the other */
    float *ds;                        /* [chunk][width] */
    float *packed;   /* packed rows of ds: as `lead` wants it, or each panel of rows with all its columns */
    float *s;        /* [chunk][width] */
    float *b_panels; /* B_g in panels of 16 ranks: [N_g][16] */
    float *a_panels; /* A_g in panels of 16 columns: [R_g][16], for the low-rank part of dx */
    lora_kept kept;  /* of x's rows of the chunk */
    float *scratch;  /* [threads] a tile of dx, or panels of dB */
    float *own;
} backward_task;

enum { DA_COLUMNS = GEMM_STREAM / 2 }; /* of x packed at once: whole lines follow one another, and they stay in L2 */
enum { SCRATCH_FLOATS = GEMM_KC * L4J_PANEL }; /* ≥ GEMM_MR * L4J_DROPOUT_BLOCK */

static void backward_layout(l4j_arena *arena, int threads, const l4j_lora *args, backward_task *task) {
    int64_t M = args->x->shape[0], K = args->x->shape[1], total = 0;
    int adapted = 0;
    task->lead = 0;
    task->ranks = lora_take_ranks(arena, args, L4J_PANEL);
    for (int g = 0; g < args->projection_count; g++) {
        task->offset[g] = total;
        task->adapted[g] = false;
        total += args->weights[g]->rows;
        for (int i = g; i < args->adapter_count * args->projection_count; i += args->projection_count) {
            task->adapted[g] |= args->a[i].data != NULL;
            if (args->a[i].data) task->lead = args->a[i].shape[0];
        }
        adapted += task->adapted[g];
    }
    bool alone = adapted == 1 && !args->segment_capacity && args->dropout_p == 0;
    if (!args->dx || !alone || (args->flags & L4J_LORA_ACCUMULATE_DX)) task->lead = 0;
    task->chunk = lora_chunk(M, total);
    int64_t rows = task->chunk + GEMM_MR, width = task->ranks.width;
    int64_t a_floats = args->dx && !task->lead ? task->ranks.columns * gemm_ceil(K, L4J_DROPOUT_BLOCK) : 0;
    task->dy = l4j_take(arena, sizeof(float) * (size_t)(rows * total));
    task->ds = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->packed = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->s = l4j_take(arena, sizeof(float) * (size_t)(rows * width));
    task->b_panels = l4j_take(arena, sizeof(float) * (size_t)task->ranks.b_floats);
    task->a_panels = l4j_take(arena, sizeof(float) * (size_t)a_floats);
    task->kept = lora_take_kept(arena, args, task->chunk);
    task->scratch = l4j_take(arena, sizeof(float) * (size_t)threads * SCRATCH_FLOATS);
    task->own = l4j_take(arena, sizeof(float) * (size_t)threads * GEMM_OWN_FLOATS);
}

static void backward_prepare(const backward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        const lora_adapter *adapter = &task->ranks.adapter[i / args->projection_count];
        int g = i % args->projection_count;
        int64_t rank = adapter->rank[g], N = args->weights[g]->rows;
        if (!rank) continue;
        if (!(args->flags & L4J_LORA_ACCUMULATE_GRADS)) {
            lora_clear(args->da ? &args->da[i] : NULL, thread, threads);
            lora_clear(args->db ? &args->db[i] : NULL, thread, threads);
        }
        gemm_b b = lora_b(&args->b[i], false), a = lora_b(&args->a[i], false);
        l4j_partition(N, L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
        for (int64_t r = 0; r < rank; r += L4J_PANEL) { /* steps [begin, end) of each panel of [N][16] */
            float *panel = task->b_panels + adapter->b[g] + r * N;
            gemm_pack_b(panel + begin * L4J_PANEL, &b, begin, end - begin, r, l4j_min64(L4J_PANEL, rank - r));
        }
        if (task->lead || !args->dx) continue;
        l4j_partition(K, L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
        float *panels = task->a_panels + (adapter->first + adapter->offset[g]) * gemm_ceil(K, L4J_DROPOUT_BLOCK);
        gemm_pack_b(panels + begin * rank, &a, 0, rank, begin, end - begin);
    }
}

/* ---- packing dy, ds ---- */

/* Packs panels [i0, i1) of every dy of the chunk at row m0 and leaves their ds, unscaled, in rows. */
static void backward_panels(const backward_task *task, int height, int64_t m0, int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t padded = gemm_panels(rows, height) * height;
    for (int g = 0; g < args->projection_count; g++) {
        if (!task->adapted[g] && !args->dx) continue; /* nothing needs it */
        int64_t N = args->weights[g]->rows;
        gemm_a dy = lora_a(&args->dy[g], NULL);
        for (int64_t n = 0, steps; n < N; n += steps) {
            steps = l4j_min64(gemm_block(N), N - n);
            for (int64_t i = i0; i < i1; i++) {
                int64_t m = i * height, last = l4j_min64(m + height, rows);
                float *panel = task->dy + (task->offset[g] + n) * padded + m * steps;
                gemm_pack_a(panel, height, &dy, m0 + m, (int)(last - m), n, steps);
                for (int64_t from = m, to; from < last; from = to) {
                    to = lora_run(ranks, m0 + from, m0 + last) - m0;
                    int32_t one = ranks->row[m0 + from];
                    const lora_adapter *adapter = one >= 0 ? &ranks->adapter[one] : NULL;
                    if (!adapter || !adapter->rank[g]) continue;
                    lora_skinny(task->ds + from * ranks->width + adapter->offset[g], ranks->width, adapter->rank[g],
                                panel + (from - m), height, (int)(to - from),
                                task->b_panels + adapter->b[g] + n * L4J_PANEL, N * L4J_PANEL, steps, n == 0);
                }
            }
        }
    }
}

/* Packs ds of panels [i0, i1). */
static void backward_pack_ds(const backward_task *task, int height, int64_t rows, int64_t i0, int64_t i1) {
    int64_t width = task->ranks.width, padded = gemm_panels(rows, height) * height;
    int64_t count = task->lead ? task->lead : width, block = task->lead ? gemm_block(count) : GEMM_KC;
    gemm_a ds = {task->ds, width, 1, NULL};
    for (int64_t k = 0, steps; k < count; k += steps) {
        steps = l4j_min64(block, count - k);
        for (int64_t m = i0 * height; m < l4j_min64(i1 * height, rows); m += height) {
            float *panel = task->packed + (task->lead ? k * padded + m * steps : m * width + k * height);
            gemm_pack_a(panel, height, &ds, m, (int)l4j_min64(height, rows - m), k, steps);
        }
    }
}

/* Scales ds and lays s out in padded rows for dB. */
static void backward_finish(const backward_task *task, int height, int64_t m0, int64_t rows, int64_t i0, int64_t i1) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    for (int64_t m = i0 * height; m < l4j_min64(i1 * height, rows); m++) {
        int32_t one = ranks->row[m0 + m];
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            int64_t rank = ranks->adapter[one].rank[g], at = m * ranks->width + ranks->adapter[one].offset[g];
            if (!rank) continue;
            lora_scale(task->ds + at, rank,
                       l4j_lora_factor(args->scaling[one * args->projection_count + g], args->dropout_p));
            const l4j_tensor *s = &args->s[g];
            const float *from = (const float *)s->data + (m0 + m) * s->stride[0];
            for (int64_t r = 0; r < gemm_ceil(rank, L4J_PANEL); r++)
                task->s[at + r] = r < rank ? from[r * s->stride[1]] : 0;
        }
    }
    backward_pack_ds(task, height, rows, i0, i1);
}

/* ---- dx ---- */

/* One tile of t_g = ds_g · A_g, [rows][32]: rows of a panel of packed ds, from row `row` of the panel at m on. */
static void backward_low_rank(const backward_task *task, const lora_adapter *adapter, int g, int height, int64_t m,
                              int64_t row, int rows, int64_t k, float *tile) {
    int64_t rank = adapter->rank[g], offset = adapter->offset[g], K = task->args->x->shape[1];
    const float *a = task->a_panels + (adapter->first + offset) * gemm_ceil(K, L4J_DROPOUT_BLOCK) + k * rank;
    int64_t columns = gemm_ceil(l4j_min64(K - k, L4J_DROPOUT_BLOCK), L4J_PANEL);
    for (int64_t j = 0; j < columns; j += GEMM_NR) {
        gemm_piece piece = {.a = task->packed + m * task->ranks.width + offset * height + row,
                            .a_step = height,
                            .b = a + j * rank,
                            .b_panel = rank * L4J_PANEL,
                            .k = rank};
        gemm_tile(rows, (int)l4j_min64(GEMM_NR, columns - j), &piece, 1, NULL, 0, tile + j, L4J_DROPOUT_BLOCK);
    }
}

/* dx = Σ_g kept ? t_g : 0 for rows [from, to) of one run in the panel at m: the first term assigned, or added to the old dx;
   +0 without any. */
static void backward_start_run(const backward_task *task, float *tile, int height, int64_t m0, int64_t m, int64_t from,
                               int64_t to) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1];
    int32_t one = task->ranks.row[m0 + from];
    for (int64_t k = 0; k < K; k += L4J_DROPOUT_BLOCK) {
        int64_t cols = l4j_min64(L4J_DROPOUT_BLOCK, K - k);
        bool add = (args->flags & L4J_LORA_ACCUMULATE_DX) != 0;
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            if (!task->ranks.adapter[one].rank[g]) continue;
            backward_low_rank(task, &task->ranks.adapter[one], g, height, m, from - m, (int)(to - from), k, tile);
            const uint32_t *kept = lora_kept_by(&task->kept, g);
            for (int64_t i = from; i < to; i++) {
                lora_dx_term(args, kept ? kept + i * task->kept.blocks + k / L4J_DROPOUT_BLOCK : NULL,
                             tile + (i - from) * L4J_DROPOUT_BLOCK, add, m0 + i, k, cols);
            }
            add = true;
        }
        for (int64_t i = from; i < to && !add; i++) {
            memset((float *)args->dx->data + (m0 + i) * args->dx->stride[0] + k, 0, sizeof(float) * (size_t)cols);
        }
    }
}

static void backward_start_dx(const backward_task *task, float *tile, int height, int64_t m0, int64_t rows, int64_t i0,
                              int64_t i1) {
    for (int64_t m = i0 * height; m < l4j_min64(i1 * height, rows); m += height) {
        int64_t last = l4j_min64(m + height, rows);
        for (int64_t from = m, to; from < last; from = to) {
            to = lora_run(&task->ranks, m0 + from, m0 + last) - m0;
            backward_start_run(task, tile, height, m0, m, from, to);
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
        if (!task->adapted[g]) continue;
        p.segment[p.segments++] =
            (gemm_segment){.k = task->lead, .packed = task->packed, .b = lora_b(&args->a[g], false)};
    }
    for (int g = 0; g < args->projection_count; g++) {
        p.segment[p.segments++] = (gemm_segment){.k = args->weights[g]->rows,
                                                 .packed = task->dy + task->offset[g] * padded,
                                                 .b = {.kind = GEMM_B_WEIGHT, .weight = args->weights[g]}};
    }
    gemm_run(team, &p);
}

/* ---- dA, dB: rows [from, to) of the chunk at m0, a run of one adapter ---- */

/* dB_g, rows n of this thread: block by block of the packed dy, its panels in ascending m. */
static void backward_db(const backward_task *task, const gemm_team *team, float *scratch, int32_t one, int g,
                        int height, int64_t rows, int64_t from, int64_t to) {
    const l4j_tensor *db = &task->args->db[one * task->args->projection_count + g];
    int64_t N = db->shape[0], rank = db->shape[1], padded = gemm_panels(rows, height) * height, begin, end;
    const float *low = task->s + task->ranks.adapter[one].offset[g];
    l4j_partition(N, L4J_PANEL, team->thread, team->threads, &begin, &end);
    for (int64_t n = 0, steps; n < N; n += steps) {
        steps = l4j_min64(gemm_block(N), N - n);
        int64_t first = l4j_max64(begin, n), count = l4j_min64(end, n + steps) - first;
        for (int64_t r = 0; r < rank && count > 0; r += L4J_PANEL) {
            int live = (int)l4j_min64(L4J_PANEL, rank - r);
            float *out = (float *)db->data + first * db->stride[0] + r;
            for (int64_t i = 0; i < count; i++)
                v16_store(scratch + i * L4J_PANEL, gemm_load(out + i * db->stride[0], live));
            for (int64_t m = from / height * height; m < to; m += height) {
                int64_t begin_m = l4j_max64(m, from), end_m = l4j_min64(m + height, to);
                float s[GEMM_MR * L4J_PANEL];
                for (int64_t i = begin_m; i < end_m; i++)
                    v16_store(s + (i - begin_m) * L4J_PANEL, v16_load(low + i * task->ranks.width + r));
                const float *panel = task->dy + (task->offset[g] + n) * padded + m * steps + (first - n) * height;
                gemm_outer(scratch, count, panel + (begin_m - m), height, (int)(end_m - begin_m), s, live);
            }
            for (int64_t i = 0; i < count; i++)
                gemm_store(out + i * db->stride[0], v16_load(scratch + i * L4J_PANEL), live);
        }
    }
}

/* dA_g, columns [k, k + cols) of steps m of one block, from packed x. */
static void backward_da_tiles(const backward_task *task, int32_t one, int g, const float *x, int64_t m, int64_t steps,
                              int64_t k, int64_t cols) {
    const l4j_tensor *da = &task->args->da[one * task->args->projection_count + g];
    int64_t rank = da->shape[0];
    int height = gemm_height(rank);
    for (int64_t r = 0; r < rank; r += height) {
        const float *ds = task->ds + m * task->ranks.width + task->ranks.adapter[one].offset[g] + r;
        float *out = (float *)da->data + r * da->stride[0] + k;
        for (int64_t j = 0; j < cols; j += GEMM_NR) {
            gemm_piece piece = {
                .a = ds, .a_step = task->ranks.width, .b = x + j * steps, .b_panel = steps * L4J_PANEL, .k = steps};
            gemm_tile((int)l4j_min64(height, rank - r), (int)l4j_min64(GEMM_NR, cols - j), &piece, 1, out + j,
                      da->stride[0], out + j, da->stride[0]);
        }
    }
}

/* Every dA, columns k of this thread. */
static void backward_da(const backward_task *task, const gemm_team *team, int32_t one, int64_t m0, int64_t from,
                        int64_t to) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    l4j_partition(K, L4J_DROPOUT_BLOCK, team->thread, team->threads, &begin, &end);
    for (int64_t k = begin; k < end; k += DA_COLUMNS) {
        int64_t cols = l4j_min64(DA_COLUMNS, end - k);
        for (int64_t m = from, steps; m < to; m += steps) {
            steps = l4j_min64(gemm_block(to - from), to - m);
            bool packed = false;
            for (int g = 0; g < args->projection_count; g++) {
                if (!task->ranks.adapter[one].rank[g] || !args->da[one * args->projection_count + g].data) continue;
                gemm_b x = lora_b(args->x, false);
                x.data += m0 * x.row_stride;
                x.kept = lora_kept_by(&task->kept, g);
                x.kept_stride = task->kept.blocks;
                if (!packed || x.kept) gemm_pack_b(team->own, &x, m, steps, k, cols);
                packed = true;
                backward_da_tiles(task, one, g, team->own, m, steps, k, cols);
            }
        }
    }
}

static void backward_gradients(const backward_task *task, const gemm_team *team, float *scratch, int height, int64_t m0,
                               int64_t rows) {
    const l4j_lora *args = task->args;
    for (int64_t from = 0, to; from < rows; from = to) {
        to = lora_run(&task->ranks, m0 + from, m0 + rows) - m0;
        int32_t one = task->ranks.row[m0 + from];
        if (one < 0) continue;
        for (int g = 0; g < args->projection_count && args->db; g++) {
            if (task->ranks.adapter[one].rank[g] && args->db[one * args->projection_count + g].data)
                backward_db(task, team, scratch, one, g, height, rows, from, to);
        }
        if (args->da) backward_da(task, team, one, m0, from, to);
    }
}

static void backward_run(void *context, int thread, int threads) {
    const backward_task *task = context;
    const l4j_lora *args = task->args;
    l4j_pool *pool = task->queue->pool;
    gemm_team team = {
        .pool = pool, .thread = thread, .threads = threads, .own = task->own + (int64_t)thread * GEMM_OWN_FLOATS};
    float *scratch = task->scratch + (int64_t)thread * SCRATCH_FLOATS;
    backward_prepare(task, thread, threads);
    l4j_pool_barrier(pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        int height = gemm_height(rows);
        int64_t panels = gemm_panels(rows, height), taken = gemm_begin(&team), begin, end;
        while (gemm_claim(&team, &taken, panels, GEMM_MC / height, &begin, &end)) {
            backward_panels(task, height, m0, rows, begin, end);
            backward_finish(task, height, m0, rows, begin, end);
            lora_draw(&task->kept, args, &task->ranks, m0, begin * height, l4j_min64(end * height, rows));
            if (args->dx && task->ranks.width && !task->lead)
                backward_start_dx(task, scratch, height, m0, rows, begin, end);
        }
        l4j_pool_barrier(pool);
        if (args->dx) backward_dx(task, &team, height, m0, rows);
        backward_gradients(task, &team, scratch, height, m0, rows);
        l4j_pool_barrier(pool);
    }
}

size_t L4J_NAME(lora_backward_workspace)(int threads, const l4j_lora *args) {
    if (args->compute == L4J_COMPUTE_BF16) return lora_bf16_backward_workspace(threads, args);
    l4j_arena arena = {0};
    backward_task task;
    backward_layout(&arena, threads, args, &task);
    return arena.used;
}

l4j_status L4J_NAME(lora_backward)(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_lora(args, "lora_backward", error);
    if (status != L4J_OK) return status;
    if (args->compute == L4J_COMPUTE_BF16) {
        lora_bf16_backward(queue, args, workspace);
        return L4J_OK;
    }
    l4j_arena arena = {.base = workspace};
    backward_task task = {.queue = queue, .args = args};
    backward_layout(&arena, queue->threads, args, &task);
    l4j_run(queue, backward_run, &task);
    return L4J_OK;
}
