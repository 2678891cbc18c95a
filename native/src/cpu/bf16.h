/*
 * Products of L4J_COMPUTE_BF16: the rounding of their operands, the tiles these lie in, and the kernels that multiply tiles. The order
 * of the sums is that of the instruction TDPBF16PS; NUMERICS.md says it, ref/chain.h computes it.
 */
#ifndef L4J_BF16_H
#define L4J_BF16_H

#include "internal.h"

/* Nearest, ties to even; a NaN stays one. */
static inline uint16_t l4j_f32_to_bf16(float x) {
    union {
        float f;
        uint32_t u;
    } v = {.f = x};
    if ((v.u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(v.u >> 16 | 0x40u);
    return (uint16_t)((v.u + 0x7FFFu + (v.u >> 16 & 1u)) >> 16);
}

/*
 * A tile: 16 rows of A, or 16 columns of B, times 32 steps of the contraction; 1 KiB. Missing rows and steps are +0.
 *   A   value (m, k) at (m % 16) · 32 + place(k)
 *   B   value (k, n) at place(k) / 2 · 32 + (n % 16) · 2 + place(k) % 2
 * place(k) is k % 32, as TDPBF16PS wants it. VDPBF16PS adds the product of a pair's high halves, then that of its low halves, to
 * one accumulator: for it four steps 0, 1, 2, 3 lie in the places 1, 3, 0, 2, so that one pair goes on with the sum of the even steps
 * and the next with that of the odd ones.
 */
enum { L4J_TILE_ROWS = 16, L4J_TILE_STEPS = 32, L4J_TILE = 512 };

static inline int l4j_tile_place(bool quads, int64_t k) {
    int step = (int)(k % L4J_TILE_STEPS);
    return quads ? (step & ~3) + (step & 1) * 2 + (step & 2 ? 0 : 1) : step;
}
static inline int64_t l4j_tiles(int64_t steps) { return (steps + L4J_TILE_STEPS - 1) / L4J_TILE_STEPS; }

/* Where value (n, k) of a weight of `cols` columns in tiles lies: panels of 16 rows, each with the tiles of all its columns. */
static inline int64_t l4j_tile_index(bool quads, int64_t cols, int64_t n, int64_t k) {
    int place = l4j_tile_place(quads, k);
    int64_t tile = n / L4J_TILE_ROWS * l4j_tiles(cols) + k / L4J_TILE_STEPS;
    return tile * L4J_TILE + place / 2 * 2 * L4J_TILE_ROWS + n % L4J_TILE_ROWS * 2 + place % 2;
}

static inline bool l4j_in_tiles(const l4j_weight *w) {
    return w->layout == L4J_LAYOUT_TILES || w->layout == L4J_LAYOUT_QUAD_TILES;
}

/* A stretch of a contraction: `tiles` tiles of each panel, one after the other. */
typedef struct l4j_tile_piece {
    const uint16_t *a, *b;
    int64_t a_panel, b_panel; /* values from one panel of 16 rows or columns to the next */
    int64_t tiles;
    int64_t ahead; /* values from b to what will be read next, which is fetched meanwhile; 0 = nothing */
} l4j_tile_piece;

/*
 * C[0..rows, 0..16·panels) = start + Σ pieces, rows ≤ 32, panels ≤ 2, in the order of the contract; start may be NULL (+0) or c, and
 * start_stride 0. Only with `whole` must rows be a multiple of 16. Subnormals are flushed: MXCSR must say so, see bf16_enter.
 */
typedef struct l4j_tile_kernel {
    bool quads, whole;
    int64_t
        pass; /* tiles of a contraction that a run should take: the panels of B that it reads again and again stay in L1 */
    void (*begin)(void); /* each thread before its first tile; NULL = nothing to do */
    void (*end)(void);
    void (*run)(int rows, int panels, const l4j_tile_piece *pieces, int count, const float *start, int64_t start_stride,
                float *c, int64_t ldc);
} l4j_tile_kernel;

extern const l4j_tile_kernel l4j_tile_avx512_bf16, l4j_tile_amx_bf16;

#endif
