/*
 * Products of L4J_COMPUTE_BF16 over tiles: C (+)= Σ A · B. Operands are rounded while they are packed into tiles (see ../bf16.h), a
 * weight that was packed for it lies in them. What multiplies tiles is an instruction where the processor has one, else fp32
 * multiply-adds in the same order, so that the bits never depend on it.
 */
#ifndef L4J_SIMD_BF16_H
#define L4J_SIMD_BF16_H

#include "../bf16.h"
#include "gemm.h"

#define bf16_kernel L4J_NAME(bf16_kernel)
#define bf16_tile_fma L4J_NAME(bf16_tile_fma)
#define bf16_pack_a L4J_NAME(bf16_pack_a)
#define bf16_pack_a_trans L4J_NAME(bf16_pack_a_trans)
#define bf16_pack_b L4J_NAME(bf16_pack_b)
#define bf16_pack_b_rows L4J_NAME(bf16_pack_b_rows)
#define bf16_tiles L4J_NAME(bf16_tiles)
#define bf16_run L4J_NAME(bf16_run)

enum {
    BF16_COLS = 2 * L4J_TILE_ROWS, /* columns, and rows, of what a kernel does at once */
    BF16_STRIP = 128,              /* rows whose sums wait between two passes of a kernel */
    BF16_GROUP = 128,              /* rows that B is read once for */
    BF16_DEPTH = 128,              /* tiles of a stretch at most: a group's part of A, 1 MiB, stays in L2 */
    BF16_CLAIM = 32,               /* columns that a thread packs at once */
    BF16_OWN = (BF16_DEPTH + BF16_DEPTH / 4) * L4J_TILE_STEPS * BF16_CLAIM /* values of them */
};

/* What multiplies tiles on this device. */
const l4j_tile_kernel *bf16_kernel(const l4j_device *device);
extern const l4j_tile_kernel bf16_tile_fma;

/* Between the two, arithmetic of this thread flushes subnormals, and tiles may be multiplied. */
static inline unsigned bf16_enter(const l4j_tile_kernel *kernel) {
    unsigned callers = _mm_getcsr();
    _mm_setcsr(callers | 0x8040); /* flush to zero, subnormals are zero */
    if (kernel->begin) kernel->begin();
    return callers;
}
static inline void bf16_leave(const l4j_tile_kernel *kernel, unsigned callers) {
    if (kernel->end) kernel->end();
    _mm_setcsr(callers);
}

/* ---- packing ---- */

/* Values of a panel of 16 rows or columns with `steps` steps, in whole tiles. */
static inline int64_t bf16_panel(int64_t steps) { return l4j_tiles(steps) * L4J_TILE; }
static inline int64_t bf16_panels(int64_t n) { return (n + L4J_TILE_ROWS - 1) / L4J_TILE_ROWS; }

/* Rows [m, m + rows), at most 16, of A with `steps` steps as one panel. */
void bf16_pack_a(uint16_t *out, bool quads, const gemm_a *a, int64_t m, int64_t rows, int64_t steps);
/* Steps [k, k + steps), k a multiple of 32, of columns [n, n + cols), n a multiple of 16, of B: panel j at out + j · panel. */
void bf16_pack_b(uint16_t *out, int64_t panel, bool quads, const gemm_b *b, int64_t k, int64_t steps, int64_t n,
                 int64_t cols);
/* The same for a strided B whose steps are the rows rows[0..steps) of it, and one panel of up to 16 columns. */
void bf16_pack_b_rows(uint16_t *out, bool quads, const gemm_b *b, const int32_t *rows, int64_t steps, int64_t n,
                      int64_t cols);
/* The same columns as rows of A: A = Bᵀ. */
void bf16_pack_a_trans(uint16_t *out, bool quads, const gemm_b *b, const int32_t *rows, int64_t steps, int64_t n,
                       int64_t cols);

/* ---- products ---- */

/* C[0..rows, 0..cols) = start + Σ pieces, rows and cols ≤ 32: rows `first` to first + rows − 1 of the panels of A. Nothing else is
   read or written in C and start. */
void bf16_tiles(const l4j_tile_kernel *kernel, int first, int rows, int cols, const l4j_tile_piece *pieces, int count,
                const float *start, int64_t start_stride, float *c, int64_t ldc);

/* A stretch of the contraction: panels of A one after the other, or `a_panel` values apart; B in tiles, or packed on the way. */
typedef struct bf16_segment {
    int64_t k;
    const uint16_t *a;
    int64_t a_panel;
    const uint16_t *b; /* panels of bf16_panel(k) values; NULL = packed from `source` */
    gemm_b source;
} bf16_segment;

typedef struct bf16_product {
    int64_t m, n;
    const float *start; /* first value of each chain at start[m * start_stride + n]; NULL = +0; c itself to continue */
    int64_t start_stride;
    float *c;
    int64_t ldc;
    int segments;
    bf16_segment segment[GEMM_SEGMENTS];
} bf16_product;

typedef struct bf16_team {
    gemm_team shared; /* pool, thread, threads, round */
    const l4j_tile_kernel *kernel;
    uint16_t *own; /* [BF16_OWN] packed columns of B, each thread's own; NULL where every B lies in tiles */
} bf16_team;

/* `own` is [threads][BF16_OWN] or NULL. */
static inline bf16_team bf16_join(l4j_pool *pool, int thread, int threads, const l4j_tile_kernel *kernel,
                                  uint16_t *own) {
    return (bf16_team){.shared = {.pool = pool, .thread = thread, .threads = threads},
                       .kernel = kernel,
                       .own = own ? own + (int64_t)thread * BF16_OWN : NULL};
}

/* B as `w` or its transpose: in place where it lies in tiles along the contraction. */
static inline bf16_segment bf16_weight(const l4j_weight *w, bool transposed) {
    bf16_segment s = {.k = transposed ? w->cols : w->rows,
                      .source = {.kind = transposed ? GEMM_B_WEIGHT_TRANS : GEMM_B_WEIGHT, .weight = w}};
    if (transposed && l4j_in_tiles(w)) s.b = w->data;
    return s;
}

/* All threads of the pool call it with the same product; results are complete after the next barrier. */
void bf16_run(bf16_team *team, const bf16_product *product);

#endif
