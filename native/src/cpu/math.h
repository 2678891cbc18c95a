/* exp and log of the numeric contract (NUMERICS.md), scalar. The vector forms in src/cpu/simd/vexp.h do the same steps. */
#ifndef L4J_MATH_H
#define L4J_MATH_H

#include <math.h>
#include <stdint.h>

/* Constants of exp: x = n·ln2 + r, |r| ≤ ln2/2; ln2 split so that n·hi is exact; minimax polynomial of degree 6 for exp(r). */
#define L4J_EXP_LOW -87.336548f
#define L4J_EXP_HIGH 88.722839f
#define L4J_EXP_LOG2E 1.44269504f
#define L4J_EXP_MAGIC 12582912.0f /* 1.5 · 2^23: adding it rounds to the nearest integer, ties to even */
#define L4J_EXP_LN2_HI 0x1.62e400p-1f
#define L4J_EXP_LN2_LO 0x1.7f7d1cp-20f
#define L4J_EXP_C6 0x1.6b45cep-10f
#define L4J_EXP_C5 0x1.1239c8p-7f
#define L4J_EXP_C4 0x1.5558a8p-5f
#define L4J_EXP_C3 0x1.55548ep-3f
#define L4J_EXP_C2 0x1.fffff8p-2f

static inline float l4j_pow2(int32_t n) {
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)(n + 127) << 23};
    return v.f;
}

static inline float l4j_exp(float x) {
    if (x < L4J_EXP_LOW) return 0.0f;
    if (x > L4J_EXP_HIGH) return INFINITY;
    if (x != x) return x;
    union {
        float f;
        uint32_t u;
    } magic = {.f = fmaf(x, L4J_EXP_LOG2E, L4J_EXP_MAGIC)};
    float n = magic.f - L4J_EXP_MAGIC;
    float r = fmaf(-n, L4J_EXP_LN2_HI, x);
    r = fmaf(-n, L4J_EXP_LN2_LO, r);
    float p = fmaf(L4J_EXP_C6, r, L4J_EXP_C5);
    p = fmaf(p, r, L4J_EXP_C4);
    p = fmaf(p, r, L4J_EXP_C3);
    p = fmaf(p, r, L4J_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t i = (int32_t)(magic.u - 0x4B400000u), half = i >> 1;
    return p * l4j_pow2(half) * l4j_pow2(i - half);
}

/* log of a positive normal number by fp64 basic operations: 2·atanh((m − 1)/(m + 1)) + e·ln2, about 1e-15 before the one rounding. */
static inline float l4j_log(float x) {
    union {
        double f;
        uint64_t u;
    } v = {.f = (double)x};
    if (!(x > 0.0f) || isinf(x)) return x == 0.0f ? -INFINITY : (x > 0.0f ? x : NAN);
    int e = (int)(v.u >> 52) - 1023;
    v.u = (v.u & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    double m = v.f;
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double t = (m - 1.0) / (m + 1.0), t2 = t * t;
    double s = 1.0 / 21.0;
    for (int k = 19; k >= 1; k -= 2) s = s * t2 + 1.0 / k;
    return (float)(2.0 * t * s + e * 0.6931471805599453);
}

#endif
