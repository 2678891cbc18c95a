/* What linear_cross_entropy.c and linear_cross_entropy_bf16.c, its products of L4J_COMPUTE_BF16, share. */
#ifndef L4J_SIMD_LINEAR_CROSS_ENTROPY_H
#define L4J_SIMD_LINEAR_CROSS_ENTROPY_H

#include "../values.h"
#include "bf16.h"
#include "gemm.h"

enum { LCE_GATHER = 256 }; /* steps of gathered rows: whole tiles */

typedef struct {
    l4j_queue *queue;
    const l4j_linear_cross_entropy *args;
    int64_t count, chunk, ldz;
    int64_t *rows; /* [M] those with a target */
    float *x;      /* packed rows of x */
    float *z;      /* [chunk][ldz] logits, then their gradient */
    float *dx;     /* [chunk][K] */
    float *part;   /* [chunk][K] a block's share of dx */
    float *panel;  /* [threads] one gathered panel of x */
    float *own;
    float *span[2]; /* packed spans of the gradient of z, in turn: block after block */
    /* L4J_COMPUTE_BF16 has these instead of x, panel, own and span. */
    const l4j_tile_kernel *kernel;
    float *gathered;        /* [threads][16][LCE_GATHER] */
    uint16_t *x_tiles, *dz; /* panels of x, and of a block of the logits' gradient */
    uint16_t *own_tiles;    /* [threads][BF16_OWN] columns of the weight */
} lce_task;

/* What of the threads the products need. */
typedef struct {
    gemm_team f32;
    bf16_team bf16;
} lce_team;

/* L4J_LCE_BLOCK rows of the weight from v on, a multiple of a panel. */
static inline l4j_weight lce_weight(const l4j_weight *whole, int64_t v) {
    l4j_weight block = *whole;
    block.rows = l4j_min64(L4J_LCE_BLOCK, whole->rows - v);
    if (whole->layout == L4J_LAYOUT_CODES) {
        block.first_row = v;
        return block;
    }
    int64_t first = v * whole->row_stride;
    if (whole->layout == L4J_LAYOUT_PANELS) first = v * whole->cols;
    if (l4j_in_tiles(whole)) first = v / L4J_TILE_ROWS * bf16_panel(whole->cols);
    block.data = (const char *)whole->data + first * (whole->dtype == L4J_F32 ? 4 : 2);
    return block;
}

#define lce_bf16_layout L4J_NAME(lce_bf16_layout)
#define lce_bf16_logits L4J_NAME(lce_bf16_logits)
#define lce_bf16_dx L4J_NAME(lce_bf16_dx)

/* Takes the memory of the products; args and chunk are set. */
void lce_bf16_layout(l4j_arena *arena, int threads, lce_task *task);
/* z of the gathered rows, and dx from z's gradient; complete after the next barrier. */
void lce_bf16_logits(const lce_task *task, bf16_team *team, const int64_t *rows, int64_t count);
void lce_bf16_dx(const lce_task *task, bf16_team *team, int64_t count);

#endif
