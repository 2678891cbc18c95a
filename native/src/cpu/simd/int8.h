/* Products of L4J_COMPUTE_INT8: activations as bytes, codes of GGUF weights in tiles of four columns by sixteen rows. */
#ifndef L4J_SIMD_INT8_H
#define L4J_SIMD_INT8_H

#include "gemm.h"

#define int8_layout L4J_NAME(int8_layout)
#define int8_quantize L4J_NAME(int8_quantize)
#define int8_product_of L4J_NAME(int8_product_of)
#define int8_product L4J_NAME(int8_product)

enum { INT8_COLUMNS = 1024 /* whose codes lie in L1 at once */ };

/* Rows of activations, [rows][columns]. */
typedef struct int8_rows {
    int64_t columns;
    int8_t *q;
    float *d;     /* [rows][columns / 32] */
    int32_t *sum; /* [rows][columns / 16] */
} int8_rows;

/* Decoded codes of a panel: one for each thread. */
typedef struct int8_tile {
    uint8_t code[INT8_COLUMNS * L4J_PANEL] __attribute__((aligned(64)));
    float d[INT8_COLUMNS], m[INT8_COLUMNS]; /* of each 16 columns, sixteen rows */
} int8_tile;

void int8_layout(l4j_arena *arena, int64_t rows, int64_t columns, int8_rows *out);
/* Row m from x[0], x[stride], ... */
void int8_quantize(const int8_rows *rows, int64_t m, const float *x, int64_t stride);
/* C[rows, N] = start + the product with a GGUF weight; start may be NULL (+0), and is one row for all. All threads call it. */
typedef void (*int8_product_function)(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w,
                                      const float *start, float *c, int64_t ldc, int8_tile *own);
void int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start, float *c,
                  int64_t ldc, int8_tile *own);
void l4j_avx512_vnni_int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w,
                                  const float *start, float *c, int64_t ldc, int8_tile *own);
/* The one for the instructions that the device may use: the same bits. */
int8_product_function int8_product_of(const l4j_device *device);

#endif
