/*
 * Quantizers of blocks, each with the bits of its format's owner: the same fp32 steps in the same order, none fused. Included once for
 * each tier, which defines QUANT_TO_F16 (a float as an fp16 pattern) and QUANT_F16 (the way back) first.
 */
#ifndef L4J_QUANTIZE_H
#define L4J_QUANTIZE_H

#include "cpu/internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A float's integral part as a byte of it, and 0 for what an int32 cannot hold: as x86 converts. */
static inline int quant_trunc8(float v) { return v > -2147483648.0f && v < 2147483648.0f ? (int8_t)(int32_t)v : 0; }

/* Stores d as fp16; false where that is not finite. */
static inline bool quant_put_f16(uint8_t *to, float d) {
    uint16_t h = QUANT_TO_F16(d);
    memcpy(to, &h, sizeof h);
    return (h & 0x7C00) != 0x7C00;
}

/* Of finite values, whose bits are ordered as they are. */
static inline float quant_absolute_max(const float *x, int64_t n) {
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    float max;
    memcpy(&max, &most, sizeof max);
    return max;
}

/* ---- bitsandbytes, 4 bits: backends/default/ops.py ---- */

/* The codes of a map, ascending by value, and the fp32 midpoints between neighbours: a value has the code below the first midpoint that is
   not less than it. */
typedef struct quant_bounds {
    float middle[15];
    uint8_t code[16];
} quant_bounds;

static inline quant_bounds quant_bounds_of(int32_t scheme) {
    static const uint8_t fp4[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};
    const float *map = l4j_bitsandbytes_map(scheme);
    quant_bounds b;
    for (int i = 0; i < 16; i++) b.code[i] = scheme == L4J_SCHEME_NF4 ? (uint8_t)i : fp4[i];
    for (int i = 0; i < 15; i++) b.middle[i] = (map[b.code[i]] + map[b.code[i + 1]]) / 2;
    return b;
}

/* x[0..n) becomes codes in pairs, the first in the high nibble; 0 pairs with the last of an odd number. A whole block is multiplied by the
   reciprocal of its absmax, the rest at the end of a weight is divided by it. x is overwritten; returns absmax. */
static inline float quantize_bitsandbytes_4bit(float *restrict x, int64_t n, bool whole, const quant_bounds *bounds,
                                               uint8_t *restrict out) {
    float absmax = quant_absolute_max(x, n), least = absmax > 1e-38f ? absmax : 1e-38f, inverse = 1.0f / least;
    if (whole) {
        for (int64_t i = 0; i < n; i++) x[i] = x[i] * inverse;
    } else {
        absmax = least;
        for (int64_t i = 0; i < n; i++) x[i] = x[i] / least;
    }
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) /* what lies beyond ±1 is beyond all midpoints as well */
        c16_store_pairs(out + i / 2, c16_lookup((const int8_t *)bounds->code, c16_above(bounds->middle, x + i)));
    if (i == n) return absmax;
    float rest[16] = {0};
    uint8_t pairs[8];
    memcpy(rest, x + i, sizeof(float) * (size_t)(n - i));
    c16_store_pairs(pairs, c16_lookup((const int8_t *)bounds->code, c16_above(bounds->middle, rest)));
    memcpy(out + i / 2, pairs, (size_t)(n - i + 1) / 2);
    return absmax;
}

/* Absmaxes less their offset become codes of the dynamic map: the code nearest to the point nearest to x / absmax on a grid of 65536 points
   from -1 to 1. Returns their own absmax. */
static inline float quantize_nested(const float *x, int64_t n, float offset, uint8_t *out) {
    float map[256], absmax = 0;
    memcpy(map, l4j_bitsandbytes_dynamic_map(), sizeof map);
    for (int64_t i = 0; i < n; i++) absmax = fmaxf(absmax, fabsf(x[i] - offset));
    float inverse = 1.0f / absmax;
    for (int64_t i = 0; i < n; i++) {
        float v = fminf(fmaxf((x[i] - offset) * inverse, -1.0f), 1.0f);
        int point = absmax > 0 ? (int)((v + 1.0f) * 0.5f * 65535.0f + 0.5f) : 0;
        double at = point / 65535.0 * 2 - 1;
        int low = 0, high = 255;
        while (low < high) {
            int middle = (low + high) / 2;
            if (at > ((double)map[middle] + map[middle + 1]) / 2) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        out[i] = absmax > 0 ? (uint8_t)low : 0;
    }
    return absmax;
}

/* ---- LLM.int8, one row: int8_vectorwise_quant. PyTorch divides a number by a tensor as the number times the tensor's reciprocal. ---- */
static inline void quantize_llm_int8(const float *restrict x, int64_t n, float absmax, int8_t *restrict out) {
    float scale = absmax > 0x1p-126f ? 1.0f / absmax * 127.0f : 0; /* a subnormal has no reciprocal */
    for (int64_t i = 0; i < n; i++) out[i] = (int8_t)rintf(x[i] * scale);
}

/* ---- GGUF's blocks of 32: quantize_row_<type>_ref of ggml-quants.c ---- */

/* The value of the largest magnitude, with its sign. */
static inline float quant_signed_max(const float *x) {
    float largest = 0, max = 0;
    for (int i = 0; i < 32; i++) {
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            max = x[i];
        }
    }
    return max;
}

/* Codes 0 to 2 * middle - 1 of a block whose value of the largest magnitude has the code 0; returns the scale. */
static inline float quant_signed_codes(const float *x, int middle, uint8_t *q) {
    float d = quant_signed_max(x) / (float)-middle, inverse = d != 0 ? 1.0f / d : 0;
    for (int i = 0; i < 32; i++) {
        uint8_t code = (uint8_t)quant_trunc8(x[i] * inverse + ((float)middle + 0.5f));
        q[i] = code < 2 * middle - 1 ? code : (uint8_t)(2 * middle - 1);
    }
    return d;
}

static inline bool quantize_q4_0(const float *x, uint8_t *out) {
    uint8_t q[32];
    float d = quant_signed_codes(x, 8, q);
    for (int i = 0; i < 16; i++) out[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
    return quant_put_f16(out, d);
}

static inline bool quantize_q5_0(const float *x, uint8_t *out) {
    uint8_t q[32];
    float d = quant_signed_codes(x, 16, q);
    uint32_t fifth = 0;
    for (int i = 0; i < 32; i++) fifth |= (uint32_t)(q[i] >> 4) << i;
    for (int i = 0; i < 4; i++) out[2 + i] = (uint8_t)(fifth >> (8 * i));
    for (int i = 0; i < 16; i++) out[6 + i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    return quant_put_f16(out, d);
}

static inline bool quantize_q4_1(const float *x, uint8_t *out) {
    float min = FLT_MAX, max = -FLT_MAX;
    for (int i = 0; i < 32; i++) {
        if (x[i] < min) min = x[i];
        if (x[i] > max) max = x[i];
    }
    float d = (max - min) / 15, inverse = d != 0 ? 1.0f / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        uint8_t code = (uint8_t)quant_trunc8((x[i] - min) * inverse + 0.5f);
        q[i] = code < 15 ? code : 15;
    }
    for (int i = 0; i < 16; i++) out[4 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
    return quant_put_f16(out, d) & quant_put_f16(out + 2, min);
}

static inline bool quantize_q8_0(const float *x, uint8_t *out) {
    float d = quant_absolute_max(x, 32) / 127, inverse = d != 0 ? 1.0f / d : 0;
    for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)quant_trunc8(roundf(x[i] * inverse));
    return quant_put_f16(out, d);
}

#endif
