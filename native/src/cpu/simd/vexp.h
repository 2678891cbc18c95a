/* exp of sixteen lanes: the same steps, so the same bits, as l4j_exp of ../math.h. */
#ifndef L4J_VEXP_H
#define L4J_VEXP_H

#include "../math.h"
#include "vec16.h"

#define L4J_EXP_INNER 86.0f /* exp of it and of its negative is far from the largest and the smallest normal number */

static inline v16 v16_exp(v16 x) {
    v16 offset = v16_set1(L4J_EXP_MAGIC);
    v16 magic = v16_fma(x, v16_set1(L4J_EXP_LOG2E), offset);
    v16 n = v16_sub(magic, offset);
    v16 r = v16_fnma(n, v16_set1(L4J_EXP_LN2_HI), x);
    r = v16_fnma(n, v16_set1(L4J_EXP_LN2_LO), r);
    v16 p = v16_fma(v16_set1(L4J_EXP_C6), r, v16_set1(L4J_EXP_C5));
    p = v16_fma(p, r, v16_set1(L4J_EXP_C4));
    p = v16_fma(p, r, v16_set1(L4J_EXP_C3));
    p = v16_fma(p, r, v16_set1(L4J_EXP_C2));
    p = v16_fma(p, r, v16_set1(1.0f));
    p = v16_fma(p, r, v16_set1(1.0f));
    /* Mostly no lane is near the ends of the range, and 2^n is an addition to the exponent. */
    if (v16_all_within(x, L4J_EXP_INNER)) return v16_add_exponent(p, magic);
    p = v16_scale2(p, magic); /* a NaN stays one; lanes out of range are replaced below */
    p = v16_select_lt(x, v16_set1(L4J_EXP_LOW), v16_zero(), p);
    return v16_select_lt(v16_set1(L4J_EXP_HIGH), x, v16_set1(INFINITY), p);
}

#endif
