/*
 * Tiles with VDPBF16PS. The instruction adds two products to one accumulator, one after the other, and flushes subnormals: in quads (see
 * ../bf16.h) one accumulator follows the even steps, another one the odd steps, which is the contract's order.
 */
#include "../bf16.h"
#include <immintrin.h>

enum { VDP_ROWS = 4 }; /* 4 x 32: eight sums of C, sixteen of a tile, four registers of B */

static inline __m512bh vdp_load(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }
static inline __m512bh vdp_pair(const uint16_t *p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

static inline __attribute__((always_inline)) void vdp_piece(__m512 acc[VDP_ROWS][2], const int rows, const int panels,
                                                            const uint16_t *a, const uint16_t *b, int64_t b_panel,
                                                            int64_t tiles) {
    enum { WORDS = 2 * L4J_TILE_ROWS };
    for (int64_t t = 0; t < tiles; t++, a += L4J_TILE, b += L4J_TILE) {
        __m512 even[VDP_ROWS][2], odd[VDP_ROWS][2];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
            for (int j = 0; j < panels; j++) even[i][j] = odd[i][j] = _mm512_setzero_ps();
        }
#pragma GCC unroll 2
        for (int q = 0; q < L4J_TILE_STEPS / 4; q++) {
            __m512bh b0[2], b1[2];
#pragma GCC unroll 2
            for (int j = 0; j < panels; j++) {
                b0[j] = vdp_load(b + j * b_panel + 2 * q * WORDS);
                b1[j] = vdp_load(b + j * b_panel + (2 * q + 1) * WORDS);
            }
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) {
                __m512bh a0 = vdp_pair(a + i * L4J_TILE_STEPS + 4 * q),
                         a1 = vdp_pair(a + i * L4J_TILE_STEPS + 4 * q + 2);
#pragma GCC unroll 2
                for (int j = 0; j < panels; j++) {
                    even[i][j] = _mm512_dpbf16_ps(even[i][j], a0, b0[j]);
                    odd[i][j] = _mm512_dpbf16_ps(odd[i][j], a1, b1[j]);
                }
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
            for (int j = 0; j < panels; j++) acc[i][j] = _mm512_add_ps(acc[i][j], _mm512_add_ps(even[i][j], odd[i][j]));
        }
    }
}

static inline __attribute__((always_inline)) void vdp_strip(const int rows, const int panels, int row,
                                                            const l4j_tile_piece *pieces, int count, const float *start,
                                                            int64_t start_stride, float *c, int64_t ldc) {
    __m512 acc[VDP_ROWS][2];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < panels; j++)
            acc[i][j] = start ? _mm512_loadu_ps(start + i * start_stride + 16 * j) : _mm512_setzero_ps();
    }
    for (int q = 0; q < count; q++) {
        const l4j_tile_piece *p = &pieces[q];
        const uint16_t *a = p->a + row / L4J_TILE_ROWS * p->a_panel + row % L4J_TILE_ROWS * L4J_TILE_STEPS;
        vdp_piece(acc, rows, panels, a, p->b, p->b_panel, p->tiles);
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < panels; j++) _mm512_storeu_ps(c + i * ldc + 16 * j, acc[i][j]);
    }
}

typedef void (*vdp_instance)(int, const l4j_tile_piece *, int, const float *, int64_t, float *, int64_t);
#define VDP_INSTANCE(rows, panels)                                                                          \
    static void vdp_##rows##_##panels(int row, const l4j_tile_piece *pieces, int count, const float *start, \
                                      int64_t start_stride, float *c, int64_t ldc) {                        \
        vdp_strip(rows, panels, row, pieces, count, start, start_stride, c, ldc);                           \
    }
VDP_INSTANCE(1, 1)
VDP_INSTANCE(2, 1)
VDP_INSTANCE(3, 1)
VDP_INSTANCE(4, 1)
VDP_INSTANCE(1, 2)
VDP_INSTANCE(2, 2)
VDP_INSTANCE(3, 2)
VDP_INSTANCE(4, 2)
static const vdp_instance vdp_instances[2][VDP_ROWS] = {{vdp_1_1, vdp_2_1, vdp_3_1, vdp_4_1},
                                                        {vdp_1_2, vdp_2_2, vdp_3_2, vdp_4_2}};

static void vdp_run(int rows, int panels, const l4j_tile_piece *pieces, int count, const float *start,
                    int64_t start_stride, float *c, int64_t ldc) {
    for (int row = 0; row < rows; row += VDP_ROWS) {
        int live = (int)l4j_min64(VDP_ROWS, rows - row);
        vdp_instances[panels - 1][live - 1](row, pieces, count, start ? start + row * start_stride : NULL, start_stride,
                                            c + row * ldc, ldc);
    }
}

const l4j_tile_kernel l4j_tile_avx512_bf16 = {.quads = true, .pass = 8, .run = vdp_run};
