/*
 * lora_backward of L4J_COMPUTE_BF16. Rows go in chunks: each thread packs panels of 16 rows of every dy and forms their ds and, where it
 * cannot ride along in the product, the low-rank part of dx; then all threads share dx. At the end each thread has columns of dA and
 * dBᵀ, whose contraction runs over the rows of one adapter, wherever they lie, in whole tiles.
 */
#include "bf16.h"
#include "lora.h"
#include <string.h>

typedef struct {
    l4j_queue *queue;
    const l4j_lora *args;
    const l4j_tile_kernel *kernel;
    lora_ranks ranks;
    int64_t chunk;
    int64_t offset[LORA_PROJECTIONS]; /* values before the panels of dy_g, for each row of a chunk */
    bool adapted[LORA_PROJECTIONS];   /* some adapter is on the projection */
    int64_t lead;                     /* rank of the one adapter whose part of dx leads the product; 0 = none does */
    uint16_t *dy;                     /* panels of each dy_g, one projection after the other */
    uint16_t *packed;                 /* panels of ds, with all its columns */
    float *ds;                        /* [M][width] */
    uint16_t *b_tiles;                /* B_g: panels of 16 ranks */
    uint16_t *a_tiles;                /* A_g: panels of 16 columns */
    int32_t *order, *begin;           /* rows by adapter, ascending; those of adapter i from order[begin[i]] on */
    float *scratch;                   /* [threads] t, or columns of a gradient */
    uint16_t *own;                    /* [threads] operands of a gradient */
    uint16_t *packed_b;               /* [threads][BF16_OWN] columns of the weights */
    lora_kept kept;                   /* of all rows of x */
} backward_task;

enum {
    STRETCH = 16,   /* tiles of the rows that a gradient takes at once */
    T_COLUMNS = 256 /* columns of t at once */
};

/* Floats and values of each thread. */
static int64_t backward_scratch(const backward_task *task) {
    return l4j_max64(L4J_TILE_ROWS * T_COLUMNS, (task->ranks.width + L4J_TILE_ROWS) * BF16_COLS);
}
static int64_t backward_own(const backward_task *task) {
    return (task->ranks.width / L4J_TILE_ROWS + 2) * STRETCH * L4J_TILE;
}

static void backward_layout(l4j_arena *arena, int threads, const l4j_lora *args, backward_task *task) {
    int64_t M = args->x->shape[0], K = args->x->shape[1], total = 0;
    int adapted = 0;
    task->lead = 0;
    task->ranks = lora_take_ranks(arena, args, L4J_TILE_STEPS);
    for (int g = 0; g < args->projection_count; g++) {
        task->offset[g] = total;
        task->adapted[g] = false;
        total += gemm_ceil(args->weights[g]->rows, L4J_TILE_STEPS);
        for (int i = g; i < args->adapter_count * args->projection_count; i += args->projection_count) {
            task->adapted[g] |= args->a[i].data != NULL;
            if (args->a[i].data) task->lead = args->a[i].shape[0];
        }
        adapted += task->adapted[g];
    }
    bool alone = adapted == 1 && !args->segment_capacity && args->dropout_p == 0;
    if (!args->dx || !alone || (args->flags & L4J_LORA_ACCUMULATE_DX)) task->lead = 0;
    task->chunk = lora_bf16_chunk(M, total);
    int64_t width = task->ranks.width, columns = task->ranks.columns;
    task->dy = l4j_take(arena, sizeof(uint16_t) * (size_t)(task->chunk * total));
    task->packed = l4j_take(arena, sizeof(uint16_t) * (size_t)(task->chunk * width));
    task->ds = l4j_take(arena, sizeof(float) * (size_t)(M * width));
    task->b_tiles = l4j_take(arena, sizeof(uint16_t) * (size_t)task->ranks.b_floats);
    task->a_tiles = l4j_take(arena, args->dx ? sizeof(uint16_t) * (size_t)(columns * gemm_ceil(K, L4J_TILE_ROWS)) : 0);
    task->order = l4j_take(arena, sizeof(int32_t) * (size_t)M);
    task->begin = l4j_take(arena, sizeof(int32_t) * (size_t)(args->adapter_count + 1));
    task->scratch = l4j_take(arena, sizeof(float) * (size_t)(threads * backward_scratch(task)));
    task->own = l4j_take(arena, sizeof(uint16_t) * (size_t)(threads * backward_own(task)));
    task->kept = lora_take_kept(arena, args, M);
    task->packed_b = l4j_take(arena, args->dx ? sizeof(uint16_t) * (size_t)threads * BF16_OWN : 0);
}

/* Sorts the rows by adapter. */
static void backward_order(backward_task *task) {
    const lora_ranks *ranks = &task->ranks;
    int32_t M = (int32_t)task->args->x->shape[0], count = task->args->adapter_count, sum = 0;
    memset(task->begin, 0, sizeof(int32_t) * (size_t)(count + 1));
    for (int32_t m = 0; m < M; m++) {
        if (ranks->row[m] >= 0) task->begin[ranks->row[m]]++;
    }
    for (int32_t i = 0; i <= count; i++) {
        int32_t own = task->begin[i];
        task->begin[i] = sum;
        sum += own;
    }
    for (int32_t m = 0; m < M; m++) {
        if (ranks->row[m] >= 0) task->order[task->begin[ranks->row[m]]++] = m;
    }
    for (int32_t i = count; i > 0; i--) task->begin[i] = task->begin[i - 1]; /* each has moved on to its end */
    task->begin[0] = 0;
}

static void backward_prepare(const backward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    bool quads = task->kernel->quads;
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
        l4j_partition(N, BF16_COLS, thread, threads, &begin, &end); /* steps */
        if (begin < end) {
            bf16_pack_b(task->b_tiles + adapter->b[g] + begin / L4J_TILE_STEPS * L4J_TILE, bf16_panel(N), quads, &b,
                        begin, end - begin, 0, rank);
        }
        if (!args->dx) continue;
        l4j_partition(K, BF16_COLS, thread, threads, &begin, &end);
        uint16_t *tiles = task->a_tiles + (adapter->first + adapter->offset[g]) * gemm_ceil(K, L4J_TILE_ROWS);
        bf16_pack_b(tiles + begin / L4J_TILE_ROWS * bf16_panel(rank), bf16_panel(rank), quads, &a, 0, rank, begin,
                    end - begin);
    }
}

/* Panels of 16 rows of dy_g of a chunk of `rows`. */
static uint16_t *backward_dy(const backward_task *task, int g, int64_t rows) {
    return task->dy + task->offset[g] * bf16_panels(rows) * L4J_TILE_ROWS;
}

/* Packs panel i of every dy of the chunk at row m0, and forms and packs its ds. */
static void backward_panel(const backward_task *task, int64_t m0, int64_t rows, int64_t i) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t width = ranks->width, m = i * L4J_TILE_ROWS, last = l4j_min64(m + L4J_TILE_ROWS, rows);
    float *ds = task->ds + m0 * width;
    memset(ds + m * width, 0, sizeof(float) * (size_t)((last - m) * width));
    for (int g = 0; g < args->projection_count; g++) {
        if (!task->adapted[g] && !args->dx) continue; /* nothing needs it */
        int64_t N = args->weights[g]->rows;
        uint16_t *panel = backward_dy(task, g, rows) + i * bf16_panel(N);
        gemm_a dy = lora_a(&args->dy[g], NULL);
        bf16_pack_a(panel, task->kernel->quads, &dy, m0 + m, last - m, N);
        for (int64_t from = m, to; from < last; from = to) {
            to = lora_run(ranks, m0 + from, m0 + last) - m0;
            int32_t one = ranks->row[m0 + from];
            const lora_adapter *adapter = one >= 0 ? &ranks->adapter[one] : NULL;
            if (!adapter || !adapter->rank[g]) continue;
            float *at = ds + from * width + adapter->offset[g];
            lora_bf16_skinny(task->kernel, at, width, adapter->rank[g], panel, (int)(from - m), (int)(to - from),
                             task->b_tiles + adapter->b[g], N);
            float c = l4j_lora_factor(args->scaling[one * args->projection_count + g], args->dropout_p);
            for (int64_t r = from; r < to; r++, at += width) {
                lora_scale(at, adapter->rank[g], c);
                lora_bf16_clear_padding(at, adapter->rank[g]);
            }
        }
    }
    gemm_a a = {ds, width, 1, NULL};
    if (width) bf16_pack_a(task->packed + i * bf16_panel(width), task->kernel->quads, &a, m, last - m, width);
}

/* ---- dx ---- */

/* t_g = ds_g · A_g for rows [from, to) of panel i: columns [k, k + cols) of `t`, T_COLUMNS wide. */
static void backward_low_rank(const backward_task *task, const lora_adapter *adapter, int g, int64_t i, int64_t from,
                              int64_t to, int64_t k, int64_t cols, float *t) {
    int64_t rank = adapter->rank[g], K = task->args->x->shape[1];
    const uint16_t *a = task->packed + i * bf16_panel(task->ranks.width) + bf16_panel(adapter->offset[g]);
    const uint16_t *b = task->a_tiles + (adapter->first + adapter->offset[g]) * gemm_ceil(K, L4J_TILE_ROWS);
    unsigned callers = bf16_enter(task->kernel);
    for (int64_t j = 0; j < cols; j += BF16_COLS) {
        l4j_tile_piece piece = {.a = a,
                                .b = b + (k + j) / L4J_TILE_ROWS * bf16_panel(rank),
                                .b_panel = bf16_panel(rank),
                                .tiles = l4j_tiles(rank)};
        bf16_tiles(task->kernel, (int)(from - i * L4J_TILE_ROWS), (int)(to - from),
                   (int)l4j_min64(BF16_COLS, gemm_ceil(cols - j, L4J_TILE_ROWS)), &piece, 1, NULL, 0, t + j, T_COLUMNS);
    }
    bf16_leave(task->kernel, callers);
}

/* dx = Σ_g kept ? t_g : 0 for rows [from, to) of one run in panel i: the first term assigned, or added to the old dx; +0 without
   any. */
static void backward_start_run(const backward_task *task, float *t, int64_t m0, int64_t i, int64_t from, int64_t to) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1];
    int32_t one = task->ranks.row[m0 + from];
    for (int64_t k = 0; k < K; k += T_COLUMNS) {
        int64_t cols = l4j_min64(T_COLUMNS, K - k);
        bool add = (args->flags & L4J_LORA_ACCUMULATE_DX) != 0;
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            if (!task->ranks.adapter[one].rank[g]) continue;
            backward_low_rank(task, &task->ranks.adapter[one], g, i, from, to, k, cols, t);
            const uint32_t *kept = lora_kept_by(&task->kept, g);
            for (int64_t m = from; m < to; m++) {
                for (int64_t j = 0; j < cols; j += L4J_DROPOUT_BLOCK) {
                    lora_dx_term(args, kept ? kept + (m0 + m) * task->kept.blocks + (k + j) / L4J_DROPOUT_BLOCK : NULL,
                                 t + (m - from) * T_COLUMNS + j, add, m0 + m, k + j,
                                 l4j_min64(L4J_DROPOUT_BLOCK, cols - j));
                }
            }
            add = true;
        }
        for (int64_t m = from; m < to && !add; m++)
            memset((float *)args->dx->data + (m0 + m) * args->dx->stride[0] + k, 0, sizeof(float) * (size_t)cols);
    }
}

static void backward_start_dx(const backward_task *task, float *t, int64_t m0, int64_t rows, int64_t i) {
    int64_t m = i * L4J_TILE_ROWS, last = l4j_min64(m + L4J_TILE_ROWS, rows);
    for (int64_t from = m, to; from < last; from = to) {
        to = lora_run(&task->ranks, m0 + from, m0 + last) - m0;
        backward_start_run(task, t, m0, i, from, to);
    }
}

static void backward_dx(const backward_task *task, bf16_team *team, int64_t m0, int64_t rows) {
    const l4j_lora *args = task->args;
    float *dx = (float *)args->dx->data + m0 * args->dx->stride[0];
    bool started = task->ranks.width > 0 || (args->flags & L4J_LORA_ACCUMULATE_DX);
    bf16_product p = {.m = rows,
                      .n = args->x->shape[1],
                      .start = started && !task->lead ? dx : NULL,
                      .start_stride = args->dx->stride[0],
                      .c = dx,
                      .ldc = args->dx->stride[0]};
    if (task->lead) {
        p.segment[p.segments++] = (bf16_segment){
            .k = task->lead, .a = task->packed, .a_panel = bf16_panel(task->ranks.width), .b = task->a_tiles};
    }
    for (int g = 0; g < args->projection_count; g++) {
        bf16_segment *s = &p.segment[p.segments++];
        *s = bf16_weight(args->weights[g], false);
        s->a = backward_dy(task, g, rows);
        s->a_panel = bf16_panel(args->weights[g]->rows);
    }
    bf16_run(team, &p);
}

/* ---- dA, dB ---- */

/* out(r, j) += Σ_m low(m, r) · wide(m, j) over the adapter's rows, columns j of this thread; element (r, j) of the gradient lies at
   out[r * r_stride + j * j_stride]. */
static void backward_gradient(const backward_task *task, const bf16_team *team, int32_t one, const gemm_b *low,
                              int64_t rank, const gemm_b *wide, int64_t cols, float *out, int64_t r_stride,
                              int64_t j_stride) {
    const int32_t *rows = task->order + task->begin[one];
    int64_t count = task->begin[one + 1] - task->begin[one], begin, end;
    float *c = task->scratch + team->shared.thread * backward_scratch(task);
    uint16_t *a = task->own + team->shared.thread * backward_own(task);
    uint16_t *b = a + bf16_panels(rank) * STRETCH * L4J_TILE;
    bool quads = task->kernel->quads;
    l4j_partition(cols, BF16_COLS, team->shared.thread, team->shared.threads, &begin, &end);
    for (int64_t m = 0; m < count && begin < end; m += STRETCH * L4J_TILE_STEPS) {
        int64_t steps = l4j_min64(STRETCH * L4J_TILE_STEPS, count - m), panel = bf16_panel(steps);
        for (int64_t r = 0; r < rank; r += L4J_TILE_ROWS)
            bf16_pack_a_trans(a + r / L4J_TILE_ROWS * panel, quads, low, rows + m, steps, r,
                              l4j_min64(L4J_TILE_ROWS, rank - r));
        for (int64_t j = begin; j < end; j += BF16_COLS) {
            int64_t live = l4j_min64(BF16_COLS, end - j);
            for (int64_t h = 0; h < live; h += L4J_TILE_ROWS)
                bf16_pack_b_rows(b + h / L4J_TILE_ROWS * panel, quads, wide, rows + m, steps, j + h,
                                 l4j_min64(L4J_TILE_ROWS, live - h));
            for (int64_t r = 0; r < rank; r++) {
                for (int64_t i = 0; i < live; i++) c[r * BF16_COLS + i] = out[r * r_stride + (j + i) * j_stride];
            }
            unsigned callers = bf16_enter(task->kernel);
            for (int64_t r = 0; r < rank; r += BF16_COLS) {
                l4j_tile_piece piece = {.a = a + r / L4J_TILE_ROWS * panel,
                                        .b = b,
                                        .a_panel = panel,
                                        .b_panel = panel,
                                        .tiles = l4j_tiles(steps)};
                float *tile = c + r * BF16_COLS;
                bf16_tiles(task->kernel, 0, (int)l4j_min64(BF16_COLS, rank - r), (int)live, &piece, 1, tile, BF16_COLS,
                           tile, BF16_COLS);
            }
            bf16_leave(task->kernel, callers);
            for (int64_t r = 0; r < rank; r++) {
                for (int64_t i = 0; i < live; i++) out[r * r_stride + (j + i) * j_stride] = c[r * BF16_COLS + i];
            }
        }
    }
}

static void backward_gradients(const backward_task *task, const bf16_team *team) {
    const l4j_lora *args = task->args;
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        int32_t one = i / args->projection_count;
        int g = i % args->projection_count;
        const lora_adapter *adapter = &task->ranks.adapter[one];
        int64_t rank = adapter->rank[g], width = task->ranks.width;
        if (!rank) continue;
        if (args->db && args->db[i].data) {
            gemm_b s = lora_b(&args->s[g], false), dy = lora_b(&args->dy[g], false);
            backward_gradient(task, team, one, &s, rank, &dy, args->weights[g]->rows, args->db[i].data, 1,
                              args->db[i].stride[0]);
        }
        if (args->da && args->da[i].data) {
            gemm_b ds = {
                .kind = GEMM_B_STRIDED, .data = task->ds + adapter->offset[g], .row_stride = width, .col_stride = 1};
            gemm_b x = lora_b(args->x, false);
            x.kept = lora_kept_by(&task->kept, g);
            x.kept_stride = task->kept.blocks;
            backward_gradient(task, team, one, &ds, rank, &x, args->x->shape[1], args->da[i].data,
                              args->da[i].stride[0], 1);
        }
    }
}

static void backward_run(void *context, int thread, int threads) {
    const backward_task *task = context;
    const l4j_lora *args = task->args;
    bf16_team team = bf16_join(task->queue->pool, thread, threads, task->kernel, task->packed_b);
    float *scratch = task->scratch + thread * backward_scratch(task);
    backward_prepare(task, thread, threads);
    l4j_pool_barrier(team.shared.pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        int64_t begin, end, taken = gemm_begin(&team.shared);
        while (gemm_claim(&team.shared, &taken, bf16_panels(rows), 1, &begin, &end)) {
            backward_panel(task, m0, rows, begin);
            lora_draw(&task->kept, args, &task->ranks, 0, m0 + begin * L4J_TILE_ROWS,
                      m0 + l4j_min64(end * L4J_TILE_ROWS, rows));
            if (args->dx && task->ranks.width && !task->lead) backward_start_dx(task, scratch, m0, rows, begin);
        }
        l4j_pool_barrier(team.shared.pool);
        if (args->dx) backward_dx(task, &team, m0, rows);
        l4j_pool_barrier(team.shared.pool);
    }
    backward_gradients(task, &team);
}

size_t lora_bf16_backward_workspace(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    backward_task task;
    backward_layout(&arena, threads, args, &task);
    return arena.used;
}

void lora_bf16_backward(l4j_queue *queue, const l4j_lora *args, void *workspace) {
    l4j_arena arena = {.base = workspace};
    backward_task task = {.queue = queue, .args = args, .kernel = bf16_kernel(queue->device)};
    backward_layout(&arena, queue->threads, args, &task);
    backward_order(&task);
    l4j_run(queue, backward_run, &task);
}
