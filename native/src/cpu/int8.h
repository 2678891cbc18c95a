/*
 * L4J_COMPUTE_INT8: a row of activations as signed bytes, 32 columns with a scale of their own as in ggml's q8_0, but the scale stays
 * fp32. Products of them with the codes of a weight are sums of integers; NUMERICS.md says how they become fp32.
 */
#ifndef L4J_INT8_H
#define L4J_INT8_H

#include "internal.h"

#include <float.h>
#include <math.h>

enum { L4J_INT8_UNIT = 32 };
#define L4J_INT8_LEAST \
    0x1p-120f /* activations that are all smaller become zeros: their scale would not have a reciprocal */

typedef struct l4j_int8_unit {
    int8_t q[L4J_INT8_UNIT];
    float d;        /* x is about q * d */
    int32_t sum[2]; /* of the q of each half */
} l4j_int8_unit;

static inline void l4j_int8_quantize(const float x[L4J_INT8_UNIT], l4j_int8_unit *u) {
    float most = 0;
    bool finite = true;
    for (int i = 0; i < L4J_INT8_UNIT; i++) {
        finite &= fabsf(x[i]) <= FLT_MAX;
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    bool live = finite && most >= L4J_INT8_LEAST;
    float inverse = live ? 127.0f / most : 0;
    u->d = finite ? (live ? most / 127.0f : 0) : NAN;
    u->sum[0] = u->sum[1] = 0;
    for (int i = 0; i < L4J_INT8_UNIT; i++) {
        u->q[i] = live ? (int8_t)rintf(x[i] * inverse) : 0;
        u->sum[i / 16] += u->q[i];
    }
}

#endif
