/*
 * Matrix products C[m, n] (+)= Σ_k A[m, k] · B[k, n] in the order of the numeric contract: one chain of fused multiply-adds for
 * each element of C, k ascending. A is packed into panels of up to GEMM_MR rows ([k][rows]), B into panels of 16 columns
 * ([k][16]); the contraction is cut into blocks, between which the chain waits in C. So bits do not depend on any block size.
 * Packing pads rows and columns with zeros, never the contraction.
 */
#ifndef L4J_GEMM_H
#define L4J_GEMM_H

#include "../dropout.h"
#include "../internal.h"
#include "dropout16.h"
#include "gemm_kernel.h"
#include "vec16.h"

enum {
    GEMM_NR = GEMM_NV * L4J_PANEL, /* columns of a tile */
    GEMM_SMALL = 64,               /* a segment this short shares a block with its neighbour */
    GEMM_SEGMENTS = 18
};

/* Left operand: element (m, k) at data[m * row_stride + k * col_stride], +0 where dropout does not keep (row m, column k). */
typedef struct gemm_a {
    const float *data;
    int64_t row_stride, col_stride;
    const l4j_dropout *dropout; /* NULL = none */
} gemm_a;

typedef enum {
    GEMM_B_STRIDED,     /* element (k, n) at data[k * row_stride + n * col_stride] */
    GEMM_B_WEIGHT,      /* weight (k, n): contraction over its rows */
    GEMM_B_WEIGHT_TRANS /* weight (n, k): contraction over its columns */
} gemm_b_kind;

/* Right operand. Of a strided one dropout keeps the elements whose bit is set, the others are +0: bit n % 32 of
   kept[k * kept_stride + n / 32]. NULL keeps all. */
typedef struct gemm_b {
    gemm_b_kind kind;
    const l4j_weight *weight;
    const float *data;
    int64_t row_stride, col_stride;
    const uint32_t *kept;
    int64_t kept_stride;
} gemm_b;

/* What one run of the micro-kernel reads. */
typedef struct gemm_piece {
    const float *a; /* row i of step k at a[k * a_step + i] */
    int64_t a_step;
    const float *b; /* column j of step k at b[(j / 16) * b_panel + k * 16 + j % 16] */
    int64_t b_panel;
    int64_t k; /* steps */
} gemm_piece;

/* A stretch of the contraction. `packed` is A: blocks of gemm_block(k) steps, in each of them panel after panel. */
typedef struct gemm_segment {
    int64_t k;
    const float *packed;
    gemm_b b;
} gemm_segment;

typedef struct gemm_product {
    int64_t m, n;
    int height;         /* rows of a panel of A: gemm_height(m) */
    const float *start; /* first value of each chain at start[m * start_stride + n]; NULL = +0; c itself to continue */
    int64_t start_stride;
    float *c;
    int64_t ldc;
    int segments;
    gemm_segment segment[GEMM_SEGMENTS];
} gemm_product;

/* What the threads of one operation share and keep while they multiply. */
typedef struct gemm_team {
    l4j_pool *pool;
    int thread, threads;
    float *own; /* packed block of a few columns; each thread's own */
    float *few; /* [steps of all segments][16] the rows of A as lanes; shared; NULL where gemm_run_few is not offered */
    unsigned round; /* of work that the threads share out as they go */
} gemm_team;

/* Panels [i0, i1) and columns [n0, n1) of a product, n0 a multiple of the areas' unit. */
typedef struct gemm_area {
    int64_t i0, i1, n0, n1;
} gemm_area;

/* Areas of a product that are still to be had. */
typedef struct gemm_areas {
    int64_t n, panels, unit, units,
        groups; /* units of `unit` columns; groups of panels, several where columns are few */
    int64_t most, taken, begin, end;
} gemm_areas;

#define gemm_tile L4J_NAME(gemm_tile)
#define gemm_gather L4J_NAME(gemm_gather)
#define gemm_pack_a L4J_NAME(gemm_pack_a)
#define gemm_pack_b L4J_NAME(gemm_pack_b)
#define gemm_pack_codes L4J_NAME(gemm_pack_codes)
#define gemm_decode_panel L4J_NAME(gemm_decode_panel)
#define gemm_row_codes L4J_NAME(gemm_row_codes)
#define gemm_run L4J_NAME(gemm_run)
#define gemm_run_few L4J_NAME(gemm_run_few)
#define gemm_run_row L4J_NAME(gemm_run_row)
#define gemm_is_across L4J_NAME(gemm_is_across)
#define gemm_run_across L4J_NAME(gemm_run_across)
#define gemm_share L4J_NAME(gemm_share)
#define gemm_next_area L4J_NAME(gemm_next_area)
#define gemm_stream L4J_NAME(gemm_stream)
#define gemm_outer L4J_NAME(gemm_outer)
#define gemm_tile_half L4J_NAME(gemm_tile_half)

/* The first n ≤ 16 lanes; whole vectors skip the mask, which is slow on some processors. */
static inline v16 gemm_load(const float *p, int n) { return n == L4J_PANEL ? v16_load(p) : v16_load_n(p, n); }
static inline void gemm_store(float *p, v16 a, int n) {
    if (n == L4J_PANEL) {
        v16_store(p, a);
    } else {
        v16_store_n(p, a, n);
    }
}

/* ---- the first eight lanes alone, where they cost half ---- */

#if GEMM_HALF
static inline v16 gemm_half_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_setzero_ps()}; }
static inline void gemm_half_store(float *p, v16 a) { _mm256_storeu_ps(p, a.lo); }
static inline v16 gemm_half_fma(const int half, float x, v16 b, v16 acc) {
    if (half) return (v16){_mm256_fmadd_ps(_mm256_set1_ps(x), b.lo, acc.lo), acc.hi};
    return v16_fma(v16_set1(x), b, acc);
}
#else
static inline v16 gemm_half_load(const float *p) { return v16_load(p); }
static inline void gemm_half_store(float *p, v16 a) { v16_store(p, a); }
static inline v16 gemm_half_fma(const int half, float x, v16 b, v16 acc) {
    (void)half;
    return v16_fma(v16_set1(x), b, acc);
}
#endif

/* Element i of stored floats. */
static inline float gemm_read(const void *data, int32_t dtype, int64_t i) {
    if (dtype == L4J_F32) return ((const float *)data)[i];
    uint16_t h = ((const uint16_t *)data)[i];
    return dtype == L4J_BF16 ? l4j_bf16_to_f32(h) : _cvtsh_ss(h);
}

/* Rows of a panel such that m rows fill their panels evenly. */
static inline int gemm_height(int64_t m) {
    int64_t panels = (m + GEMM_MR - 1) / GEMM_MR;
    return panels ? (int)((m + panels - 1) / panels) : 1;
}
static inline int64_t gemm_panels(int64_t m, int height) { return (m + height - 1) / height; }
/* Steps of a block of a contraction of k steps: even, a multiple of 32, at most GEMM_KC. */
static inline int64_t gemm_block(int64_t k) {
    int64_t blocks = (k + GEMM_KC - 1) / GEMM_KC;
    return blocks ? ((k + blocks - 1) / blocks + 31) / 32 * 32 : 32;
}
static inline int64_t gemm_ceil(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* C[0..rows, 0..cols) = start + Σ pieces, rows ≤ GEMM_MR, cols ≤ GEMM_NR. start may be NULL (+0) or c. */
void gemm_tile(int rows, int cols, const gemm_piece *pieces, int count, const float *start, int64_t start_stride,
               float *c, int64_t ldc);

/* Rows [m, m + rows) of steps [k, k + steps) as one panel of `height` rows: out[step * height + row]. steps ≤ GEMM_KC;
   with dropout k is a multiple of 32. */
void gemm_pack_a(float *out, int height, const gemm_a *a, int64_t m, int rows, int64_t k, int64_t steps);

/* Row m of A: steps [k, k + steps). With dropout k is a multiple of 32, `out` has room for whole dropout blocks, and `keys` are those
   of a->dropout; without it they are NULL. */
void gemm_gather(float *out, const gemm_a *a, const dropout_keys *keys, int64_t m, int64_t k, int64_t steps);

/* Columns [n, n + cols) of steps [k, k + steps) as panels: out[(j / 16) * steps * 16 + step * 16 + j % 16]. For weights k is a
   multiple of 32, n of 16; with dropout n is a multiple of 16. */
void gemm_pack_b(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols);
/* The same for weights in L4J_LAYOUT_CODES. */
void gemm_pack_codes(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols);

/* A weight in L4J_LAYOUT_CODES whose codes lie in panels: columns [k, k + count) of rows [n, n + 16) to out[column * 16 + row]; n, k and
   count are multiples of 16. */
void gemm_decode_panel(float *out, const l4j_weight *w, int64_t n, int64_t k, int64_t count);
/* Sums of up to two rows of A over the columns of a strip, between its segments. */
enum { GEMM_ROW_COLUMNS = 64 };
typedef float gemm_row_sums[2][GEMM_ROW_COLUMNS];
/* sums[i][j] = fma(a[s * rows + i], W[n + j, s], …) for all columns s of such a weight; j < 16 · panels. */
void gemm_row_codes(gemm_row_sums sums, int64_t rows, int panels, const l4j_weight *w, int64_t n, const float *a);

/* All threads of the pool call it with the same product; results are complete after the next barrier. */
void gemm_run(gemm_team *team, const gemm_product *product);

/* The same for up to 16 rows of A, all packed, and operands B whose columns lie along the contraction, unpacked. */
void gemm_run_few(gemm_team *team, const gemm_product *product);
/* The same for one or two rows of A and weights of any layout; other operands B of up to GEMM_KC steps. No barrier. */
void gemm_run_row(gemm_team *team, const gemm_product *product);
/* The same for few rows of A, all packed, and operands B whose columns lie across the contraction, unpacked; whether it may be. */
enum { GEMM_ACROSS = 4 };
void gemm_run_across(gemm_team *team, const gemm_product *product);
bool gemm_is_across(const gemm_product *product);
/* Whether B may be an operand of gemm_run_few. */
static inline bool gemm_b_is_rows(const gemm_b *b) {
    if (b->kind == GEMM_B_STRIDED) return b->row_stride == 1 && !b->kept;
    return b->kind == GEMM_B_WEIGHT_TRANS && b->weight->layout == L4J_LAYOUT_ROWS;
}

/* Shares out `total` units, at most `most` at a time, as the threads come for them: some may have to share their core with others,
   whom nobody should wait for. A round begins with gemm_begin; all threads go through the same rounds. */
static inline int64_t gemm_begin(gemm_team *team) {
    team->round++;
    return 0;
}
static inline bool gemm_claim(gemm_team *team, int64_t *taken, int64_t total, int64_t most, int64_t *begin,
                              int64_t *end) {
    if (team->threads > 1) return l4j_pool_claim(team->pool, team->round, total, most, begin, end);
    *begin = *taken;
    *end = *taken = l4j_min64(*taken + most, total);
    return *begin < *end;
}

/* The areas of a product, and the next one for this thread; false when all are taken. The same on all threads. */
gemm_areas gemm_share(gemm_team *team, const gemm_product *product);
bool gemm_next_area(gemm_team *team, gemm_areas *areas, gemm_area *area);
/* Computes an area. */
void gemm_stream(const gemm_team *team, const gemm_product *product, const gemm_area *area);

enum {
    GEMM_CLAIM = 128,  /* columns that a thread takes at once, at most */
    GEMM_STREAM = 256, /* columns streamed at once from the rows of a weight */
    GEMM_OWN_FLOATS = (GEMM_KC + GEMM_SMALL) * GEMM_STREAM
};

/* c[i * 16 + j] = fma chain over panel rows m ascending of a[i][m] · s[m][j]: the product with a transposed packed panel.
   a[i * height + m], s[m * 16 + j]; i = 0..count-1, m = 0..rows-1, rows ≤ GEMM_MR. Columns past `cols` need not be right. */
void gemm_outer(float *c, int64_t count, const float *a, int height, int rows, const float *s, int cols);

/* gemm_tile of one piece whose first eight columns matter; C has room for a panel. start is NULL or c. */
void gemm_tile_half(int rows, const gemm_piece *piece, const float *start, float *c, int64_t ldc);

#endif
