/*
 * What multiplies tiles. Without an instruction for it, bf16 values become fp32, and multiply-adds follow the order of the contract;
 * subnormals are flushed because MXCSR says so.
 */
#include "bf16.h"

const l4j_tile_kernel *bf16_kernel(const l4j_device *device) {
#ifdef __AVX512F__
    if (device->bf16_isa == L4J_ISA_AMX_BF16) return &l4j_tile_amx_bf16;
    if (device->bf16_isa == L4J_ISA_AVX512_BF16) return &l4j_tile_avx512_bf16;
#endif
    (void)device;
    return &bf16_tile_fma;
}

/* ---- fp32 multiply-adds: a row at a time, eight columns in a register ---- */

static inline __m256 fma_low(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
static inline __m256 fma_high(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xFFFF0000u)));
}

/* acc[j] += one tile: 16 columns of `panels` panels. */
static inline __attribute__((always_inline)) void fma_tile(__m256 acc[4], const int panels, const uint16_t *a,
                                                           const uint16_t *b, int64_t b_panel) {
    __m256 even[4], odd[4];
#pragma GCC unroll 4
    for (int j = 0; j < 2 * panels; j++) even[j] = odd[j] = _mm256_setzero_ps();
    for (int p = 0; p < L4J_TILE_STEPS / 2; p++) {
        int32_t pair;
        __builtin_memcpy(&pair, a + 2 * p, sizeof pair);
        __m256 a0 = fma_low(_mm256_set1_epi32(pair)), a1 = fma_high(_mm256_set1_epi32(pair));
#pragma GCC unroll 4
        for (int j = 0; j < 2 * panels; j++) {
            const uint16_t *at = b + j / 2 * b_panel + p * 2 * L4J_TILE_ROWS + j % 2 * L4J_TILE_ROWS;
            __m256i pairs = _mm256_loadu_si256((const __m256i *)at);
            even[j] = _mm256_fmadd_ps(a0, fma_low(pairs), even[j]);
            odd[j] = _mm256_fmadd_ps(a1, fma_high(pairs), odd[j]);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < 2 * panels; j++) acc[j] = _mm256_add_ps(acc[j], _mm256_add_ps(even[j], odd[j]));
}

static inline __attribute__((always_inline)) void fma_row(const int panels, int row, const l4j_tile_piece *pieces,
                                                          int count, const float *start, float *c) {
    __m256 acc[4];
#pragma GCC unroll 4
    for (int j = 0; j < 2 * panels; j++) acc[j] = start ? _mm256_loadu_ps(start + 8 * j) : _mm256_setzero_ps();
    for (int q = 0; q < count; q++) {
        const l4j_tile_piece *piece = &pieces[q];
        const uint16_t *a = piece->a + row / L4J_TILE_ROWS * piece->a_panel + row % L4J_TILE_ROWS * L4J_TILE_STEPS;
        for (int64_t t = 0; t < piece->tiles; t++)
            fma_tile(acc, panels, a + t * L4J_TILE, piece->b + t * L4J_TILE, piece->b_panel);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 2 * panels; j++) _mm256_storeu_ps(c + 8 * j, acc[j]);
}

static void fma_run(int rows, int panels, const l4j_tile_piece *pieces, int count, const float *start,
                    int64_t start_stride, float *c, int64_t ldc) {
    for (int row = 0; row < rows; row++) {
        const float *from = start ? start + row * start_stride : NULL;
        if (panels == 2) {
            fma_row(2, row, pieces, count, from, c + row * ldc);
        } else {
            fma_row(1, row, pieces, count, from, c + row * ldc);
        }
    }
}

const l4j_tile_kernel bf16_tile_fma = {.pass = 8, .run = fma_run};
