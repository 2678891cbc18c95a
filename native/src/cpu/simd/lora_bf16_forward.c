/*
 * lora_forward of L4J_COMPUTE_BF16. Rows go in chunks. Each thread packs panels of 16 rows of x and forms their s from them; then all
 * threads run one product for each projection. Where one adapter has all rows of a chunk, its contraction is k followed by r;
 * otherwise each run of rows continues its chains over its adapter's r afterwards.
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
    uint16_t *x;       /* panels of the chunk's rows of x */
    uint16_t *s;       /* panels of the chunk's rows of s, with all their columns */
    uint16_t *a_tiles; /* A_gᵀ: panels of 16 ranks */
    uint16_t *b_tiles; /* B_gᵀ: panels of 16 columns */
    float *bias;       /* fp32, [ΣN_g] */
    float *acc;        /* [threads][16][width] s of a panel */
    uint16_t *masked;  /* [threads] a panel of masked x */
    uint16_t *own;     /* [threads][BF16_OWN]; NULL where all weights lie in tiles */
} forward_task;

static void forward_layout(l4j_arena *arena, int threads, const l4j_lora *args, forward_task *task) {
    int64_t K = args->x->shape[1], M = args->x->shape[0], bias = 0, packed = 0, depth = l4j_tiles(K) * L4J_TILE_STEPS;
    task->ranks = lora_take_ranks(arena, args, L4J_TILE_STEPS);
    task->chunk = lora_bf16_chunk(M, K);
    for (int g = 0; g < args->projection_count; g++) {
        int64_t N = args->weights[g]->rows;
        bias += args->biases && args->biases[g].data ? N : 0;
        if (!l4j_in_tiles(args->weights[g])) packed = (int64_t)threads * BF16_OWN;
    }
    int64_t width = task->ranks.width;
    task->x = l4j_take(arena, sizeof(uint16_t) * (size_t)(task->chunk * depth));
    task->s = l4j_take(arena, sizeof(uint16_t) * (size_t)(task->chunk * width));
    task->a_tiles = l4j_take(arena, sizeof(uint16_t) * (size_t)(task->ranks.columns * depth));
    task->b_tiles = l4j_take(arena, sizeof(uint16_t) * (size_t)task->ranks.b_floats);
    task->bias = l4j_take(arena, sizeof(float) * (size_t)bias);
    task->acc = l4j_take(arena, sizeof(float) * (size_t)(threads * L4J_TILE_ROWS * width));
    task->masked =
        l4j_take(arena, args->dropout_p > 0 ? sizeof(uint16_t) * (size_t)(threads * L4J_TILE_ROWS * depth) : 0);
    task->own = l4j_take(arena, sizeof(uint16_t) * (size_t)packed);
}

/* Adapters and biases, shared out by panels and by projections. */
static void forward_prepare(const forward_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    bool quads = task->kernel->quads;
    int64_t K = args->x->shape[1], depth = l4j_tiles(K) * L4J_TILE_STEPS, begin, end;
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        const lora_adapter *adapter = &task->ranks.adapter[i / args->projection_count];
        int g = i % args->projection_count;
        int64_t rank = adapter->rank[g], N = args->weights[g]->rows;
        if (!rank) continue;
        gemm_b a = lora_b(&args->a[i], true), b = lora_b(&args->b[i], true);
        l4j_partition(rank, BF16_COLS, thread, threads, &begin, &end);
        uint16_t *a_tiles = task->a_tiles + (adapter->first + adapter->offset[g] + begin) * depth;
        bf16_pack_b(a_tiles, bf16_panel(K), quads, &a, 0, K, begin, end - begin);
        l4j_partition(N, BF16_COLS, thread, threads, &begin, &end);
        uint16_t *b_tiles = task->b_tiles + adapter->b[g] + begin / L4J_TILE_ROWS * bf16_panel(rank);
        bf16_pack_b(b_tiles, bf16_panel(rank), quads, &b, 0, rank, begin, end - begin);
    }
    if (thread == 0) lora_bias(args, task->bias);
}

/* Packs panel i of the chunk at row m0 and leaves its s, scaled, in acc. */
static void forward_panel(const forward_task *task, float *acc, uint16_t *masked, int64_t m0, int64_t rows, int64_t i) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t K = args->x->shape[1], m = i * L4J_TILE_ROWS, last = l4j_min64(m + L4J_TILE_ROWS, rows);
    uint16_t *panel = task->x + i * bf16_panel(K);
    gemm_a x = lora_a(args->x, NULL);
    bf16_pack_a(panel, task->kernel->quads, &x, m0 + m, last - m, K);
    memset(acc, 0, sizeof(float) * (size_t)(L4J_TILE_ROWS * ranks->width));
    for (int64_t from = m, to; from < last; from = to) {
        to = lora_run(ranks, m0 + from, m0 + last) - m0;
        int32_t one = ranks->row[m0 + from];
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            const lora_adapter *adapter = &ranks->adapter[one];
            if (!adapter->rank[g]) continue;
            const uint16_t *in = panel;
            l4j_dropout drop = l4j_lora_dropout(args, one, g);
            if (drop.threshold) {
                x.dropout = &drop;
                bf16_pack_a(masked, task->kernel->quads, &x, m0 + m, last - m, K);
                in = masked;
            }
            const uint16_t *a = task->a_tiles + (adapter->first + adapter->offset[g]) * bf16_panel(K) / L4J_TILE_ROWS;
            float *s = acc + (from - m) * ranks->width + adapter->offset[g];
            lora_bf16_skinny(task->kernel, s, ranks->width, adapter->rank[g], in, (int)(from - m), (int)(to - from), a,
                             K);
            float c = l4j_lora_factor(args->scaling[one * args->projection_count + g], args->dropout_p);
            for (int64_t r = from; r < to; r++, s += ranks->width) {
                lora_scale(s, adapter->rank[g], c);
                memcpy((float *)args->s[g].data + (m0 + r) * args->s[g].stride[0], s,
                       sizeof(float) * (size_t)adapter->rank[g]);
                lora_bf16_clear_padding(s, adapter->rank[g]);
            }
        }
    }
}

/* y_g of one chunk; without the low-rank part where the rows are mixed. */
static void forward_product(const forward_task *task, bf16_team *team, int g, const float *bias, int64_t m0,
                            int64_t rows, bool mixed) {
    const l4j_lora *args = task->args;
    const l4j_weight *w = args->weights[g];
    int32_t one = mixed ? -1 : task->ranks.row[m0];
    bf16_product p = {.m = rows,
                      .n = w->rows,
                      .start = bias,
                      .c = (float *)args->y[g].data + m0 * args->y[g].stride[0],
                      .ldc = args->y[g].stride[0],
                      .segments = 1};
    p.segment[0] = bf16_weight(w, true);
    p.segment[0].a = task->x;
    p.segment[0].a_panel = bf16_panel(w->cols);
    if (one >= 0 && task->ranks.adapter[one].rank[g]) {
        const lora_adapter *adapter = &task->ranks.adapter[one];
        p.segment[p.segments++] = (bf16_segment){.k = adapter->rank[g],
                                                 .a = task->s + bf16_panel(adapter->offset[g]),
                                                 .a_panel = bf16_panel(task->ranks.width),
                                                 .b = task->b_tiles + adapter->b[g]};
    }
    bf16_run(team, &p);
}

/* Continues the chains of y over r, run by run, for panel i of a chunk with mixed rows. */
static void forward_low_rank(const forward_task *task, int g, int64_t m0, int64_t rows, int64_t i) {
    const l4j_lora *args = task->args;
    const lora_ranks *ranks = &task->ranks;
    int64_t N = args->weights[g]->rows, m = i * L4J_TILE_ROWS, last = l4j_min64(m + L4J_TILE_ROWS, rows);
    for (int64_t from = m, to; from < last; from = to) {
        to = lora_run(ranks, m0 + from, m0 + last) - m0;
        int32_t one = ranks->row[m0 + from];
        int64_t rank = one >= 0 ? ranks->adapter[one].rank[g] : 0;
        float *y = (float *)args->y[g].data + (m0 + from) * args->y[g].stride[0];
        for (int64_t n = 0; n < N && rank; n += BF16_COLS) {
            l4j_tile_piece piece = {
                .a = task->s + i * bf16_panel(ranks->width) + bf16_panel(ranks->adapter[one].offset[g]),
                .b = task->b_tiles + ranks->adapter[one].b[g] + n / L4J_TILE_ROWS * bf16_panel(rank),
                .b_panel = bf16_panel(rank),
                .tiles = l4j_tiles(rank)};
            bf16_tiles(task->kernel, (int)(from - m), (int)(to - from), (int)l4j_min64(BF16_COLS, N - n), &piece, 1,
                       y + n, args->y[g].stride[0], y + n, args->y[g].stride[0]);
        }
    }
}

static void forward_chunk(const forward_task *task, bf16_team *team, float *acc, uint16_t *masked, int64_t m0,
                          int64_t rows) {
    const l4j_lora *args = task->args;
    bool mixed = lora_run(&task->ranks, m0, m0 + rows) < m0 + rows;
    int64_t width = task->ranks.width, begin, end;
    int64_t taken = gemm_begin(&team->shared);
    while (gemm_claim(&team->shared, &taken, bf16_panels(rows), 1, &begin, &end)) {
        forward_panel(task, acc, masked, m0, rows, begin);
        gemm_a s = {acc, width, 1, NULL};
        bf16_pack_a(task->s + begin * bf16_panel(width), task->kernel->quads, &s, 0, L4J_TILE_ROWS, width);
    }
    l4j_pool_barrier(team->shared.pool);
    const float *bias = task->bias;
    for (int g = 0; g < args->projection_count; g++) {
        bool has_bias = args->biases && args->biases[g].data;
        forward_product(task, team, g, has_bias ? bias : NULL, m0, rows, mixed);
        bias += has_bias ? args->weights[g]->rows : 0;
    }
    l4j_pool_barrier(team->shared.pool);
    if (!mixed) return;
    l4j_partition(bf16_panels(rows), 1, team->shared.thread, team->shared.threads, &begin, &end);
    unsigned callers = bf16_enter(task->kernel);
    for (int g = 0; g < args->projection_count; g++) {
        for (int64_t i = begin; i < end; i++) forward_low_rank(task, g, m0, rows, i);
    }
    bf16_leave(task->kernel, callers);
}

static void forward_run(void *context, int thread, int threads) {
    const forward_task *task = context;
    const l4j_lora *args = task->args;
    bf16_team team = bf16_join(task->queue->pool, thread, threads, task->kernel, task->own);
    int64_t depth = l4j_tiles(args->x->shape[1]) * L4J_TILE_STEPS;
    forward_prepare(task, thread, threads);
    l4j_pool_barrier(team.shared.pool);
    for (int64_t m0 = 0, rows; m0 < args->x->shape[0]; m0 += rows) {
        rows = l4j_min64(task->chunk, args->x->shape[0] - m0);
        forward_chunk(task, &team, task->acc + thread * L4J_TILE_ROWS * task->ranks.width,
                      task->masked + thread * L4J_TILE_ROWS * depth, m0, rows);
        l4j_pool_barrier(team.shared.pool);
    }
}

size_t lora_bf16_forward_workspace(int threads, const l4j_lora *args) {
    l4j_arena arena = {0};
    forward_task task;
    forward_layout(&arena, threads, args, &task);
    return arena.used;
}

void lora_bf16_forward(l4j_queue *queue, const l4j_lora *args, void *workspace) {
    l4j_arena arena = {.base = workspace};
    forward_task task = {.queue = queue, .args = args, .kernel = bf16_kernel(queue->device)};
    forward_layout(&arena, queue->threads, args, &task);
    double columns = 0;
    for (int g = 0; g < args->projection_count; g++) columns += (double)args->weights[g]->rows;
    l4j_run_work(queue, (double)args->x->shape[0] * (double)args->x->shape[1] * columns, forward_run, &task);
}
