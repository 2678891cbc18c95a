/* The tile kernels of L4J_COMPUTE_BF16 for tile_test: each of them, and the contract's chain, over plain matrices. */
#ifndef L4J_TESTS_TILES_H
#define L4J_TESTS_TILES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TILES_CHAIN, TILES_MODEL, TILES_AVX2, TILES_AVX512, TILES_AVX512_BF16, TILES_AMX_BF16, TILES_KERNELS };

/* c[rows][32] = start[rows][32] (NULL = +0) + a[rows][k] · b[k][16 · panels], in two pieces of which the first has `first` steps, a
   multiple of 32; rows ≤ 32. a and b hold bf16 values. */
void tiles_multiply(int kernel, int rows, int panels, int k, int first, const float *a, const float *b,
                    const float *start, float *c);

#ifdef __cplusplus
}
#endif

#endif
