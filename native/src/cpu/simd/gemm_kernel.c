/*
 * The micro-kernel: a tile of C stays in registers while one block of the contraction runs through it. One instance for each
 * number of rows and of panels, so that edges cost what they compute.
 */
#include "gemm.h"

enum { GEMM_AHEAD = 32 }; /* steps of A that are asked for ahead: its panels come from L2 */

/* acc[i][v] = fma(a[k][i], b[v][k], acc[i][v]) for k = 0..kc-1. */
static inline __attribute__((always_inline)) void gemm_steps(v16 acc[GEMM_MR][GEMM_NV], const int mr, const int nv,
                                                             const gemm_piece *piece) {
    const float *a = piece->a, *b = piece->b;
    const int64_t a_step = piece->a_step, b_panel = piece->b_panel;
    const uintptr_t ahead = (uintptr_t)(GEMM_AHEAD * a_step) * sizeof(float);
    for (int64_t k = 0; k < piece->k; k++) {
        _mm_prefetch((const char *)((uintptr_t)a + ahead), _MM_HINT_T0);
        v16 bk[GEMM_NV];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bk[v] = v16_load(b + v * b_panel);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            v16 ai = v16_set1(a[i]);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[i][v] = v16_fma(ai, bk[v], acc[i][v]);
        }
        a += a_step;
        b += L4J_PANEL;
    }
}

static inline __attribute__((always_inline)) void gemm_tile_body(const int mr, const int nv, const gemm_piece *pieces,
                                                                 int count, const float *start, int64_t start_stride,
                                                                 float *c, int64_t ldc) {
    v16 acc[GEMM_MR][GEMM_NV];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++)
            acc[i][v] = start ? v16_load(start + i * start_stride + v * L4J_PANEL) : v16_zero();
    }
    for (int q = 0; q < count; q++) gemm_steps(acc, mr, nv, &pieces[q]);
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) v16_store(c + i * ldc + v * L4J_PANEL, acc[i][v]);
    }
}

#define GEMM_INSTANCE(mr, nv)                                                                                        \
    static void gemm_tile_##mr##_##nv(const gemm_piece *pieces, int count, const float *start, int64_t start_stride, \
                                      float *c, int64_t ldc) {                                                       \
        gemm_tile_body(mr, nv, pieces, count, start, start_stride, c, ldc);                                          \
    }

/* ---- instances ---- */

typedef void (*gemm_instance)(const gemm_piece *, int, const float *, int64_t, float *, int64_t);

#define GEMM_ROWS_1_6(OP, nv) OP(1, nv) OP(2, nv) OP(3, nv) OP(4, nv) OP(5, nv) OP(6, nv)
#define GEMM_ROWS_7_12(OP, nv) OP(7, nv) OP(8, nv) OP(9, nv) OP(10, nv) OP(11, nv) OP(12, nv)
#define GEMM_ENTRY(mr, nv) gemm_tile_##mr##_##nv,

#ifdef __AVX512F__
GEMM_ROWS_1_6(GEMM_INSTANCE, 1)
GEMM_ROWS_7_12(GEMM_INSTANCE, 1)
GEMM_ROWS_1_6(GEMM_INSTANCE, 2)
GEMM_ROWS_7_12(GEMM_INSTANCE, 2)
static const gemm_instance gemm_instances[GEMM_NV][GEMM_MR] = {
    {GEMM_ROWS_1_6(GEMM_ENTRY, 1) GEMM_ROWS_7_12(GEMM_ENTRY, 1)},
    {GEMM_ROWS_1_6(GEMM_ENTRY, 2) GEMM_ROWS_7_12(GEMM_ENTRY, 2)},
};
#else
GEMM_ROWS_1_6(GEMM_INSTANCE, 1)
static const gemm_instance gemm_instances[GEMM_NV][GEMM_MR] = {{GEMM_ROWS_1_6(GEMM_ENTRY, 1)}};
#endif

void gemm_tile(int rows, int cols, const gemm_piece *pieces, int count, const float *start, int64_t start_stride,
               float *c, int64_t ldc) {
    int panels = (cols + L4J_PANEL - 1) / L4J_PANEL;
    gemm_instance run = gemm_instances[panels - 1][rows - 1];
    if (cols == panels * L4J_PANEL) {
        run(pieces, count, start, start_stride, c, ldc);
        return;
    }
    /* A ragged last panel goes through a full tile, so that nothing outside of C is touched. */
    float tile[GEMM_MR * GEMM_NR] = {0};
    for (int i = 0; i < rows && start; i++) {
        for (int j = 0; j < cols; j++) tile[i * GEMM_NR + j] = start[i * start_stride + j];
    }
    run(pieces, count, tile, GEMM_NR, tile, GEMM_NR);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols; j++) c[i * ldc + j] = tile[i * GEMM_NR + j];
    }
}

/* Sixteen columns, or with `half` the first eight. */
static inline __attribute__((always_inline)) void
gemm_outer_body(const int half, float *c, int64_t count, const float *a, int height, int rows, const v16 row[GEMM_MR]) {
    for (int64_t i = 0; i < count; i++) {
        float *out = c + i * L4J_PANEL;
        v16 acc = half ? gemm_half_load(out) : v16_load(out);
        if (rows == GEMM_MR) { /* the common case, unrolled: all rows of s stay in registers */
#pragma GCC unroll 16
            for (int m = 0; m < GEMM_MR; m++) acc = gemm_half_fma(half, a[i * height + m], row[m], acc);
        } else {
            for (int m = 0; m < rows; m++) acc = gemm_half_fma(half, a[i * height + m], row[m], acc);
        }
        if (half) {
            gemm_half_store(out, acc);
        } else {
            v16_store(out, acc);
        }
    }
}

void gemm_outer(float *c, int64_t count, const float *a, int height, int rows, const float *s, int cols) {
    v16 row[GEMM_MR];
    for (int m = 0; m < GEMM_MR; m++) row[m] = m < rows ? v16_load(s + m * L4J_PANEL) : v16_zero();
    if (GEMM_HALF && cols <= L4J_PANEL / 2) {
        gemm_outer_body(1, c, count, a, height, rows, row);
    } else {
        gemm_outer_body(0, c, count, a, height, rows, row);
    }
}

static inline __attribute__((always_inline)) void gemm_half_body(const int mr, const gemm_piece *piece,
                                                                 const float *start, float *c, int64_t ldc) {
    v16 acc[GEMM_MR];
    const float *a = piece->a, *b = piece->b;
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) acc[i] = start ? gemm_half_load(start + i * ldc) : v16_zero();
    for (int64_t k = 0; k < piece->k; k++) {
        v16 bk = gemm_half_load(b);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) acc[i] = gemm_half_fma(1, a[i], bk, acc[i]);
        a += piece->a_step;
        b += L4J_PANEL;
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) gemm_half_store(c + i * ldc, acc[i]);
}

void gemm_tile_half(int rows, const gemm_piece *piece, const float *start, float *c, int64_t ldc) {
#define GEMM_HALF_CASE(mr, nv) \
    case mr: gemm_half_body(mr, piece, start, c, ldc); break;
    switch (rows) {
        GEMM_ROWS_1_6(GEMM_HALF_CASE, 1)
    default: gemm_tile(rows, L4J_PANEL, piece, 1, start, ldc, c, ldc);
    }
}
