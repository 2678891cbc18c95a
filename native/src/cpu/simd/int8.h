/* Products of L4J_COMPUTE_INT8: activations as bytes, codes of GGUF weights in tiles of four columns by sixteen rows. */
#ifndef L4J_SIMD_INT8_H
#define L4J_SIMD_INT8_H

#include "gemm.h"

#define int8_layout L4J_NAME(int8_layout)
#define int8_quantize L4J_NAME(int8_quantize)
#define int8_in_tiles L4J_NAME(int8_in_tiles)
#define int8_product_of L4J_NAME(int8_product_of)
#define int8_product L4J_NAME(int8_product)

enum {
    INT8_COLUMNS = 1024, /* whose codes lie in L1 at once */
    INT8_TILES_FROM = 64 /* rows that are worth tiles */
};

/* Rows of activations, one after the other; or, for products by tiles, sixteen rows side by side in units of 32 columns. */
typedef struct int8_rows {
    int64_t rows, columns;
    bool tiles;
    int8_t *q;      /* [rows][columns]; [rows / 16][columns / 32][16][32] */
    float *d;       /* [rows][columns / 32]; [rows / 16][columns / 32][16] */
    float *part[3]; /* as d lies: d times the sum of a unit, and of each of its halves */
    int32_t *sum;   /* [rows][columns / 16], of each half; NULL in tiles */
} int8_rows;

/* Decoded codes of a panel: one for each thread. */
typedef struct int8_tile {
    uint8_t code[INT8_COLUMNS * L4J_PANEL] __attribute__((aligned(64)));
    float d[INT8_COLUMNS], m[INT8_COLUMNS]; /* of each 16 columns, sixteen rows */
} int8_tile;

/* Whether so many rows are multiplied with these GGUF weights, all of one device, by tiles: where it has them, and where a scale serves 32
   columns; with two scales the sums on their way out cost what tiles save. */
bool int8_in_tiles(const l4j_weight *const *weights, int count, int64_t rows);
void int8_layout(l4j_arena *arena, int64_t rows, int64_t columns, bool tiles, int8_rows *out);
/* Row m from x[0], x[stride], ...; in tiles the last row fills up what is missing of sixteen. */
void int8_quantize(const int8_rows *rows, int64_t m, const float *x, int64_t stride);
/* C[rows, N] = start + the product with a GGUF weight; start may be NULL (+0), and is one row for all. All threads call it. */
typedef void (*int8_product_function)(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w,
                                      const float *start, float *c, int64_t ldc, int8_tile *own);
void int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start, float *c,
                  int64_t ldc, int8_tile *own);
void l4j_avx512_vnni_int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w,
                                  const float *start, float *c, int64_t ldc, int8_tile *own);
void l4j_amx_int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start,
                          float *c, int64_t ldc, int8_tile *own);
/* The one for such rows and the instructions that the device may use: the same bits. */
int8_product_function int8_product_of(const l4j_device *device, const int8_rows *x);

#endif
