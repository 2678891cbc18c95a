/* What lora_forward and lora_backward share. */
#ifndef L4J_LORA_H
#define L4J_LORA_H

#include "gemm.h"

enum { LORA_PROJECTIONS = 16 };

/* Where the ranks of the group's adapters lie in a row that holds all of them, each padded to whole panels. */
typedef struct lora_ranks {
    int64_t rank[LORA_PROJECTIONS];   /* 0 = no adapter */
    int64_t offset[LORA_PROJECTIONS]; /* a multiple of 16 */
    int64_t width;
} lora_ranks;

static inline lora_ranks lora_group_ranks(const l4j_lora *args) {
    lora_ranks ranks = {0};
    for (int g = 0; g < args->projection_count; g++) {
        bool adapter = args->adapter_count > 0 && args->a[g].data != NULL;
        ranks.rank[g] = adapter ? args->a[g].shape[0] : 0;
        ranks.offset[g] = ranks.width;
        ranks.width += gemm_ceil(ranks.rank[g], L4J_PANEL);
    }
    return ranks;
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

/* Rows of x or dy that are packed at once: about 16 MiB, in even chunks. */
static inline int64_t lora_chunk(int64_t m, int64_t width) {
    int64_t most = l4j_max64((4 << 20) / width, 2 * GEMM_MC), chunks = (m + most - 1) / most;
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
