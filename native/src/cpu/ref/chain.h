/*
 * A chain of L4J_COMPUTE_BF16: the order of TDPBF16PS. Of each 32 steps of the contraction the even ones are summed apart from the odd
 * ones, both from +0; the two sums are added, and then added to what came before. Subnormals are zero, as operands and as results. In
 * fp64 the operands are the same and the sum is exact enough to judge it by.
 */
#ifndef L4J_CHAIN_H
#define L4J_CHAIN_H

#include "../bf16.h"
#include "real.h"

#include <float.h>
#include <math.h>

typedef struct bf16_chain {
    real acc, sum[2];
    int64_t steps; /* of this stretch of the contraction */
} bf16_chain;

/* The operand that stands for x. */
static inline real bf16_operand(real x) {
    float rounded = l4j_bf16_to_f32(l4j_f32_to_bf16((float)x));
    return fabsf(rounded) < FLT_MIN ? copysignf(0, rounded) : rounded;
}

#ifdef L4J_REF64
static inline real bf16_flush(real x) { return x; }
static inline real bf16_fma(real a, real b, real c) { return fma(a, b, c); }
#else
static inline real bf16_flush(real x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }
/* A result is subnormal when it is below the least normal number after rounding to 24 bits, which only shows at a larger scale. */
static inline real bf16_fma(real a, real b, real c) {
    float r = fmaf(a, b, c);
    if (!(fabsf(r) <= FLT_MIN)) return r;
    return fabsf(fmaf(a * 0x1p50f, b * 0x1p50f, c * 0x1p100f)) < FLT_MIN * 0x1p100f ? copysignf(0, r) : r;
}
#endif

static inline bf16_chain bf16_start(real start) { return (bf16_chain){.acc = start}; }

static inline void bf16_step(bf16_chain *chain, real x, real w) {
    real *sum = &chain->sum[chain->steps % 2];
    *sum = bf16_fma(x, w, *sum);
    if (++chain->steps % L4J_TILE_STEPS) return;
    chain->acc = bf16_flush(bf16_flush(chain->acc) + bf16_flush(chain->sum[0] + chain->sum[1]));
    chain->sum[0] = chain->sum[1] = 0;
}

/* Ends a stretch: missing steps are products of +0. */
static inline real bf16_end(bf16_chain *chain) {
    while (chain->steps % L4J_TILE_STEPS) bf16_step(chain, 0, 0);
    chain->steps = 0;
    return chain->acc;
}

#endif
