/* The products of linear_cross_entropy_forward in L4J_COMPUTE_BF16. */
#include "linear_cross_entropy.h"

void lce_bf16_layout(l4j_arena *arena, int threads, lce_task *task) {
    const l4j_weight *w = task->args->weight;
    int64_t rows = gemm_ceil(task->chunk, L4J_TILE_ROWS), depth = l4j_tiles(w->cols) * L4J_TILE_STEPS;
    bool packs = task->args->dx || !l4j_in_tiles(w);
    task->gathered = l4j_take(arena, sizeof(float) * (size_t)threads * L4J_TILE_ROWS * LCE_GATHER);
    task->x_tiles = l4j_take(arena, sizeof(uint16_t) * (size_t)(rows * depth));
    task->dz = l4j_take(arena, task->args->dx ? sizeof(uint16_t) * (size_t)(rows * L4J_LCE_BLOCK) : 0);
    task->own_tiles = l4j_take(arena, packs ? sizeof(uint16_t) * (size_t)threads * BF16_OWN : 0);
}

/* Packs panels [begin, end) of the gathered rows. */
static void lce_bf16_pack(const lce_task *task, float *buffer, const int64_t *rows, int64_t count, int64_t begin,
                          int64_t end) {
    const l4j_tensor *x = task->args->x;
    int64_t K = x->shape[1];
    for (int64_t i = begin; i < end; i++) {
        int64_t live = l4j_min64(L4J_TILE_ROWS, count - i * L4J_TILE_ROWS);
        for (int64_t k = 0, steps; k < K; k += steps) {
            steps = l4j_min64(LCE_GATHER, K - k);
            for (int64_t r = 0; r < live; r++) {
                const float *from =
                    (const float *)x->data + rows[i * L4J_TILE_ROWS + r] * x->stride[0] + k * x->stride[1];
                for (int64_t s = 0; s < steps; s++) buffer[r * LCE_GATHER + s] = from[s * x->stride[1]];
            }
            gemm_a a = {buffer, LCE_GATHER, 1, NULL};
            bf16_pack_a(task->x_tiles + i * bf16_panel(K) + k / L4J_TILE_STEPS * L4J_TILE, task->kernel->quads, &a, 0,
                        live, steps);
        }
    }
}

void lce_bf16_logits(const lce_task *task, bf16_team *team, const int64_t *rows, int64_t count) {
    const l4j_weight *w = task->args->weight;
    int64_t begin, end;
    l4j_partition(bf16_panels(count), 1, team->shared.thread, team->shared.threads, &begin, &end);
    lce_bf16_pack(task, task->gathered + team->shared.thread * L4J_TILE_ROWS * LCE_GATHER, rows, count, begin, end);
    l4j_pool_barrier(team->shared.pool);
    bf16_product logits = {.m = count, .n = w->rows, .c = task->z, .ldc = task->ldz, .segments = 1};
    logits.segment[0] = bf16_weight(w, true);
    logits.segment[0].a = task->x_tiles;
    logits.segment[0].a_panel = bf16_panel(w->cols);
    bf16_run(team, &logits);
}

/* The share of L4J_LCE_BLOCK values of the vocabulary in dx: into dx itself for the first of them, into `part` for the others. */
static void lce_bf16_block(const lce_task *task, bf16_team *team, int64_t count, int64_t v) {
    l4j_weight block = lce_weight(task->args->weight, v);
    gemm_a dz = {task->z + v, task->ldz, 1, NULL};
    int64_t panel = bf16_panel(block.rows), begin, end;
    l4j_partition(count, L4J_TILE_ROWS, team->shared.thread, team->shared.threads, &begin, &end);
    for (int64_t m = begin; m < end; m += L4J_TILE_ROWS) {
        bf16_pack_a(task->dz + m / L4J_TILE_ROWS * panel, task->kernel->quads, &dz, m,
                    l4j_min64(L4J_TILE_ROWS, count - m), block.rows);
    }
    l4j_pool_barrier(team->shared.pool);
    bf16_product dx = {
        .m = count, .n = block.cols, .c = v == 0 ? task->dx : task->part, .ldc = block.cols, .segments = 1};
    dx.segment[0] = bf16_weight(&block, false);
    dx.segment[0].a = task->dz;
    dx.segment[0].a_panel = panel;
    bf16_run(team, &dx);
}

static void lce_add(float *to, const float *from, int64_t n) {
    int64_t i = 0;
    for (; i + L4J_PANEL <= n; i += L4J_PANEL) v16_store(to + i, v16_add(v16_load(to + i), v16_load(from + i)));
    for (; i < n; i++) to[i] += from[i];
}

void lce_bf16_dx(const lce_task *task, bf16_team *team, int64_t count) {
    int64_t K = task->args->weight->cols, begin, end;
    l4j_partition(count, 1, team->shared.thread, team->shared.threads, &begin, &end);
    for (int64_t v = 0; v < task->args->weight->rows; v += L4J_LCE_BLOCK) {
        lce_bf16_block(task, team, count, v);
        l4j_pool_barrier(team->shared.pool);
        if (v > 0) lce_add(task->dx + begin * K, task->part + begin * K, (end - begin) * K);
        /* Only now may the next block overwrite `part`. */
        l4j_pool_barrier(team->shared.pool);
    }
}
