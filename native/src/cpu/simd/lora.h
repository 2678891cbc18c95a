/* What lora_forward and lora_backward share. */
#ifndef L4J_LORA_H
#define L4J_LORA_H

#include "../values.h"
#include "bf16.h"
#include "dropout16.h"
#include "gemm.h"
#include <string.h>

enum { LORA_PROJECTIONS = 16 };

/* Where the low-rank values of one adapter lie, each projection's padded to whole panels, or tiles. */
typedef struct lora_adapter {
    int64_t rank[LORA_PROJECTIONS];   /* 0 = none on this projection */
    int64_t offset[LORA_PROJECTIONS]; /* column in a row that holds all of the adapter's values */
    int64_t first;                    /* columns of the adapters before it: where its panels begin */
    int64_t b[LORA_PROJECTIONS];      /* where the panels of B begin, in values */
} lora_adapter;

/* The adapters of a call, and whose rows are whose. */
typedef struct lora_ranks {
    int64_t width;         /* columns of a row: those of the widest adapter */
    int64_t columns;       /* of all adapters together */
    int64_t b_floats;      /* of all panels of B */
    lora_adapter *adapter; /* [adapter_count] */
    int32_t *row;          /* [M] the row's adapter, -1 = none */
} lora_ranks;

/* Takes the memory of the ranks and, unless only sizes are added up, fills them in. Ranks are padded to `unit`, as N is for B. */
static inline lora_ranks lora_take_ranks(l4j_arena *arena, const l4j_lora *args, int64_t unit) {
    lora_ranks ranks = {.adapter = l4j_take(arena, sizeof(lora_adapter) * (size_t)args->adapter_count),
                        .row = l4j_take(arena, sizeof(int32_t) * (size_t)args->x->shape[0])};
    for (int i = 0; i < args->adapter_count; i++) {
        lora_adapter one = {.first = ranks.columns};
        int64_t width = 0;
        for (int g = 0; g < args->projection_count; g++) {
            const l4j_tensor *a = &args->a[i * args->projection_count + g];
            one.rank[g] = a->data ? a->shape[0] : 0;
            one.offset[g] = width;
            one.b[g] = ranks.b_floats;
            int64_t padded = gemm_ceil(one.rank[g], unit);
            width += padded;
            ranks.b_floats += padded * gemm_ceil(args->weights[g]->rows, unit);
        }
        ranks.columns += width;
        ranks.width = l4j_max64(ranks.width, width);
        if (arena->base) ranks.adapter[i] = one;
    }
    if (arena->base) l4j_lora_rows(args, ranks.row);
    return ranks;
}

/* The end of the run of rows that have the adapter of row m. */
static inline int64_t lora_run(const lora_ranks *ranks, int64_t m, int64_t end) {
    int64_t i = m + 1;
    while (i < end && ranks->row[i] == ranks->row[m]) i++;
    return i;
}

static inline gemm_a lora_a(const l4j_tensor *t, const l4j_dropout *dropout) {
    return (gemm_a){t->data, t->stride[0], t->stride[1], dropout};
}
/* Element (k, n) is t[k, n]; with `transposed` t[n, k]. */
static inline gemm_b lora_b(const l4j_tensor *t, bool transposed) {
    return (gemm_b){.kind = GEMM_B_STRIDED,
                    .data = t->data,
                    .row_stride = t->stride[transposed ? 1 : 0],
                    .col_stride = t->stride[transposed ? 0 : 1]};
}

/* Rows of x or dy that are packed at once, in even chunks: about 16 MiB, and no more than what a block of the contraction may take
   of L3 while columns stream past it. */
static inline int64_t lora_chunk(int64_t m, int64_t width) {
    int64_t most = l4j_min64(l4j_max64((4 << 20) / width, 2 * GEMM_MC), 2048), chunks = (m + most - 1) / most;
    return chunks ? gemm_ceil((m + chunks - 1) / chunks, GEMM_MR) : 0;
}

/* The skinny products s and ds for one panel of A: acc[i * width + j] += Σ_k panel[k * height + i] · b[j / 16][k][j % 16]. */
static inline void lora_skinny(float *acc, int64_t width, int64_t rank, const float *panel, int height, int rows,
                               const float *b, int64_t b_panel, int64_t steps, bool first) {
    for (int64_t j = 0; j < rank; j += GEMM_NR) {
        int cols = (int)l4j_min64(GEMM_NR, gemm_ceil(rank - j, L4J_PANEL));
        gemm_piece piece = {panel, height, b + j / L4J_PANEL * b_panel, b_panel, steps};
        const float *start = first ? NULL : acc + j;
        if (GEMM_HALF && rank - j <= L4J_PANEL / 2) {
            gemm_tile_half(rows, &piece, start, acc + j, width);
        } else {
            gemm_tile(rows, cols, &piece, 1, start, width, acc + j, width);
        }
    }
}

/* The biases of a group as fp32, one after the other. */
static inline void lora_bias(const l4j_lora *args, float *bias) {
    for (int g = 0; g < args->projection_count; g++) {
        if (!args->biases || !args->biases[g].data) continue;
        const l4j_tensor *t = &args->biases[g];
        for (int64_t n = 0; n < t->shape[0]; n++) *bias++ = gemm_read(t->data, t->dtype, n * t->stride[0]);
    }
}

/* acc = c · acc over rows of `width`; padding becomes zero or stays so. */
static inline void lora_scale(float *acc, int64_t rank, float c) {
    for (int64_t j = 0; j < rank; j += L4J_PANEL) v16_store(acc + j, v16_mul(v16_load(acc + j), v16_set1(c)));
}

/* Which elements of rows of x dropout keeps, a bit each: columns 32 · i to 32 · i + 31 of row m, for projection g, in
   word[(g * rows + m) * blocks + i]. Drawn once for all that needs them. */
typedef struct lora_kept {
    uint32_t *word;
    int64_t rows, blocks; /* no blocks without dropout */
} lora_kept;

static inline lora_kept lora_take_kept(l4j_arena *arena, const l4j_lora *args, int64_t rows) {
    bool drops = l4j_dropout_threshold(args->dropout_p) > 0 && (args->dx || args->da);
    lora_kept kept = {NULL, rows, drops ? (args->x->shape[1] + L4J_DROPOUT_BLOCK - 1) / L4J_DROPOUT_BLOCK : 0};
    kept.word = l4j_take(arena, sizeof(uint32_t) * (size_t)(args->projection_count * rows * kept.blocks));
    return kept;
}

/* The words of one projection, those of row m at [m * blocks]; NULL where all is kept. */
static inline uint32_t *lora_kept_by(const lora_kept *kept, int g) {
    return kept->blocks ? kept->word + g * kept->rows * kept->blocks : NULL;
}

/* Draws for rows [from, to) of the stretch of x that begins at row m0. */
static inline void lora_draw(const lora_kept *kept, const l4j_lora *args, const lora_ranks *ranks, int64_t m0,
                             int64_t from, int64_t to) {
    for (int64_t m = from, end; m < to && kept->blocks; m = end) {
        end = lora_run(ranks, m0 + m, m0 + to) - m0;
        int32_t one = ranks->row[m0 + m];
        for (int g = 0; g < args->projection_count && one >= 0; g++) {
            if (!ranks->adapter[one].rank[g]) continue;
            l4j_dropout drop = l4j_lora_dropout(args, one, g);
            dropout_keys keys;
            dropout_keys_init(&keys, &drop);
            uint32_t *word = lora_kept_by(kept, g) + m * kept->blocks;
            for (int64_t i = m; i < end; i++) {
                uint32_t token = drop.token_index[m0 + i];
                for (int64_t block = 0; block < kept->blocks; block += DROPOUT_DRAWN) {
                    uint32_t drawn[DROPOUT_DRAWN];
                    dropout_kept(&drop, &keys, token, block, drawn);
                    for (int64_t j = 0; j < l4j_min64(DROPOUT_DRAWN, kept->blocks - block); j++) *word++ = drawn[j];
                }
            }
        }
    }
}

/* Row m of dx, columns [k, k + cols), k a multiple of 32 and cols ≤ 32: t is assigned, or added, where it is kept; `kept` may be NULL. */
static inline void lora_dx_term(const l4j_lora *args, const uint32_t *kept, const float *t, bool add, int64_t m,
                                int64_t k, int64_t cols) {
    float *out = (float *)args->dx->data + m * args->dx->stride[0] + k;
    for (int64_t j = 0; j < cols; j += L4J_PANEL) {
        int n = (int)l4j_min64(L4J_PANEL, cols - j);
        v16 v = v16_load(t + j);
        if (kept) v = v16_keep(v, *kept >> j);
        gemm_store(out + j, add ? v16_add(gemm_load(out + j, n), v) : v, n);
    }
}

/* Gradients that are not added to become zero: a share of the rows. */
static inline void lora_clear(const l4j_tensor *gradient, int thread, int threads) {
    if (!gradient || !gradient->data) return;
    for (int64_t r = thread; r < gradient->shape[0]; r += threads) {
        memset((float *)gradient->data + r * gradient->stride[0], 0, sizeof(float) * (size_t)gradient->shape[1]);
    }
}

/* ---- L4J_COMPUTE_BF16: lora_bf16_forward.c and lora_bf16_backward.c ---- */

#define lora_bf16_forward_workspace L4J_NAME(lora_bf16_forward_workspace)
#define lora_bf16_forward L4J_NAME(lora_bf16_forward)
#define lora_bf16_backward_workspace L4J_NAME(lora_bf16_backward_workspace)
#define lora_bf16_backward L4J_NAME(lora_bf16_backward)

size_t lora_bf16_forward_workspace(int threads, const l4j_lora *args);
void lora_bf16_forward(l4j_queue *queue, const l4j_lora *args, void *workspace);
size_t lora_bf16_backward_workspace(int threads, const l4j_lora *args);
void lora_bf16_backward(l4j_queue *queue, const l4j_lora *args, void *workspace);

/* Rows of x or dy that are packed at once: about 16 MiB, in whole panels. */
static inline int64_t lora_bf16_chunk(int64_t m, int64_t width) {
    int64_t most = l4j_max64((8 << 20) / width, 8 * BF16_COLS), chunks = (m + most - 1) / most;
    return chunks ? gemm_ceil((m + chunks - 1) / chunks, BF16_COLS) : 0;
}

/* The skinny products s and ds: rows `first` to first + rows − 1 of one panel of A, `steps` long, times panels of 16 ranks. */
static inline void lora_bf16_skinny(const l4j_tile_kernel *kernel, float *out, int64_t width, int64_t rank,
                                    const uint16_t *panel, int first, int rows, const uint16_t *b, int64_t steps) {
    unsigned callers = bf16_enter(kernel);
    for (int64_t r = 0; r < rank; r += BF16_COLS) {
        l4j_tile_piece piece = {.a = panel,
                                .b = b + r / L4J_TILE_ROWS * bf16_panel(steps),
                                .b_panel = bf16_panel(steps),
                                .tiles = l4j_tiles(steps)};
        int cols = (int)l4j_min64(BF16_COLS, gemm_ceil(rank - r, L4J_TILE_ROWS));
        bf16_tiles(kernel, first, rows, cols, &piece, 1, NULL, 0, out + r, width);
    }
    bf16_leave(kernel, callers);
}

/* What lies between the rank and whole tiles of it becomes zero. */
static inline void lora_bf16_clear_padding(float *row, int64_t rank) {
    for (int64_t r = rank; r < gemm_ceil(rank, L4J_TILE_STEPS); r++) row[r] = 0;
}

#endif
