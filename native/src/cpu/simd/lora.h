/* What lora_forward and lora_backward share. */
#ifndef L4J_LORA_H
#define L4J_LORA_H

#include "../values.h"
#include "gemm.h"

enum { LORA_PROJECTIONS = 16 };

/* Where the low-rank values of one adapter lie, each projection's padded to whole panels. */
typedef struct lora_adapter {
    int64_t rank[LORA_PROJECTIONS];   /* 0 = none on this projection */
    int64_t offset[LORA_PROJECTIONS]; /* column in a row that holds all of the adapter's values */
    int64_t first;                    /* columns of the adapters before it: where its panels begin */
    int64_t b[LORA_PROJECTIONS];      /* where the panels of B begin, in floats */
} lora_adapter;

/* The adapters of a call, and whose rows are whose. */
typedef struct lora_ranks {
    int64_t width;         /* columns of a row: those of the widest adapter */
    int64_t columns;       /* of all adapters together */
    int64_t b_floats;      /* of all panels of B */
    lora_adapter *adapter; /* [adapter_count] */
    int32_t *row;          /* [M] the row's adapter, -1 = none */
} lora_ranks;

/* Takes the memory of the ranks and, unless only sizes are added up, fills them in. */
static inline lora_ranks lora_take_ranks(l4j_arena *arena, const l4j_lora *args) {
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
            int64_t padded = gemm_ceil(one.rank[g], L4J_PANEL);
            width += padded;
            ranks.b_floats += padded * gemm_ceil(args->weights[g]->rows, L4J_PANEL);
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

/* acc = c · acc over rows of `width`; padding becomes zero or stays so. */
static inline void lora_scale(float *acc, int64_t rank, float c) {
    for (int64_t j = 0; j < rank; j += L4J_PANEL) v16_store(acc + j, v16_mul(v16_load(acc + j), v16_set1(c)));
}

#endif
