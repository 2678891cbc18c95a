/* exp and log with the bits of src/cpu/math.h. */
#pragma once

#include "common.cuh"
#include "cpu/math.h"

namespace l4j {

__device__ inline float exact_exp(float x) {
    if (x < L4J_EXP_LOW) return 0.0f;
    if (x > L4J_EXP_HIGH) return __int_as_float(0x7F800000);
    if (x != x) return x;
    float magic = __fmaf_rn(x, L4J_EXP_LOG2E, L4J_EXP_MAGIC), n = magic - L4J_EXP_MAGIC;
    float r = __fmaf_rn(-n, L4J_EXP_LN2_HI, x);
    r = __fmaf_rn(-n, L4J_EXP_LN2_LO, r);
    float p = __fmaf_rn(L4J_EXP_C6, r, L4J_EXP_C5);
    p = __fmaf_rn(p, r, L4J_EXP_C4);
    p = __fmaf_rn(p, r, L4J_EXP_C3);
    p = __fmaf_rn(p, r, L4J_EXP_C2);
    p = __fmaf_rn(p, r, 1.0f);
    p = __fmaf_rn(p, r, 1.0f);
    int i = __float_as_int(magic) - 0x4B400000, half = i >> 1;
    return p * __int_as_float((half + 127) << 23) * __int_as_float((i - half + 127) << 23);
}

} // namespace l4j
