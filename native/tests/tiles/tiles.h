/* The tile kernels of L4J_COMPUTE_BF16 for tile_test: each of them, and the contract's chain, over plain matrices. That of
   L4J_COMPUTE_INT8 in software, for int8_test. */
#ifndef L4J_TESTS_TILES_H
#define L4J_TESTS_TILES_H

#include <lora4j/lora4j.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TILES_CHAIN, TILES_MODEL, TILES_AVX2, TILES_AVX512, TILES_AVX512_BF16, TILES_AMX_BF16, TILES_KERNELS };

/* c[rows][32] = start[rows][32] (NULL = +0) + a[rows][k] · b[k][16 · panels], in two pieces of which the first has `first` steps, a
   multiple of 32; rows ≤ 32. a and b hold bf16 values. */
void tiles_multiply(int kernel, int rows, int panels, int k, int first, const float *a, const float *b,
                    const float *start, float *c);

/* y[rows][N] = start[N] (NULL = +0) + x[rows][K] · Wᵀ of a GGUF weight of tier AVX2, x rounded to bytes, by AMX's tile registers in
   software. */
void tiles_int8(const l4j_weight *weight, int64_t rows, const float *x, const float *start, float *y);

#ifdef __cplusplus
}
#endif

#endif
