#include "tiles.h"

#include "cpu/simd/int8.h"

#include <stdlib.h>

void l4j_model_int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start,
                            float *c, int64_t ldc, int8_tile *own);

void tiles_int8(const l4j_weight *weight, int64_t rows, const float *x, const float *start, float *y) {
    l4j_arena size = {0}, arena = {0};
    int8_rows bytes;
    int8_layout(&size, rows, weight->cols, true, &bytes);
    arena.base = aligned_alloc(64, size.used);
    int8_layout(&arena, rows, weight->cols, true, &bytes);
    for (int64_t m = 0; m < rows; m++) int8_quantize(&bytes, m, x + m * weight->cols, 1);
    gemm_team team = {.threads = 1};
    int8_tile *own = aligned_alloc(64, sizeof *own);
    l4j_model_int8_product(&team, &bytes, rows, weight, start, y, weight->rows, own);
    free(own);
    free(arena.base);
}
