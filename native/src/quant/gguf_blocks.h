/*
 * GGUF's blocks of 32 values, as ggml-quants.c reads them. A decoder gives unit `unit` (32 values) of a block; each step is rounded to
 * fp32. d and m are fp16; nibble j of qs is value j (low) and j + 16 (high).
 */
#ifndef L4J_GGUF_BLOCKS_H
#define L4J_GGUF_BLOCKS_H

#include "cpu/internal.h"

#include <math.h>
#include <string.h>

static inline float gguf_f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return QUANT_F16(h);
}

/* d, qs[16]: (q − 8)·d */
static inline void l4j_q4_0(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    float d = gguf_f16(block);
    for (int j = 0; j < 16; j++) {
        out[j] = (float)((block[2 + j] & 15) - 8) * d;
        out[j + 16] = (float)((block[2 + j] >> 4) - 8) * d;
    }
}

/* d, m, qs[16]: q·d + m */
static inline void l4j_q4_1(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    float d = gguf_f16(block), m = gguf_f16(block + 2);
    for (int j = 0; j < 16; j++) {
        out[j] = (float)(block[4 + j] & 15) * d + m;
        out[j + 16] = (float)(block[4 + j] >> 4) * d + m;
    }
}

/* Bit j of the four bytes, worth 16, is added to value j. */
static inline void gguf_five_bits(const uint8_t *high, const uint8_t *qs, int32_t q[32]) {
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    for (int j = 0; j < 16; j++) {
        q[j] = (int32_t)((qs[j] & 15) | ((bits >> j & 1) << 4));
        q[j + 16] = (int32_t)((uint32_t)(qs[j] >> 4) | ((bits >> (j + 16) & 1) << 4));
    }
}

/* d, qh[4], qs[16]: (q − 16)·d */
static inline void l4j_q5_0(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    float d = gguf_f16(block);
    int32_t q[32];
    gguf_five_bits(block + 2, block + 6, q);
    for (int j = 0; j < 32; j++) out[j] = (float)(q[j] - 16) * d;
}

/* d, m, qh[4], qs[16]: q·d + m */
static inline void l4j_q5_1(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    float d = gguf_f16(block), m = gguf_f16(block + 2);
    int32_t q[32];
    gguf_five_bits(block + 4, block + 8, q);
    for (int j = 0; j < 32; j++) out[j] = (float)q[j] * d + m;
}

/* d, int8 qs[32]: q·d */
static inline void l4j_q8_0(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    float d = gguf_f16(block);
    const int8_t *q = (const int8_t *)block + 2;
    for (int j = 0; j < 32; j++) out[j] = (float)q[j] * d;
}

/* qs[16] as indices of a table of sixteen integers: table[q]·d */
static inline void gguf_table(const int8_t table[16], const uint8_t *qs, float d, float *restrict out) {
    for (int j = 0; j < 16; j++) {
        out[j] = (float)table[qs[j] & 15] * d;
        out[j + 16] = (float)table[qs[j] >> 4] * d;
    }
}

/* d, qs[16]: values of a table that is denser around zero */
static const int8_t l4j_iq4_nl_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static inline void l4j_iq4_nl(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    gguf_table(l4j_iq4_nl_table, block + 2, gguf_f16(block), out);
}

/* e (E8M0: 2^(e − 127)), qs[16] (E2M1), OCP Microscaling Formats 1.0. The table holds twice the values, so that d is half of 2^(e − 127);
   halved it is subnormal where e < 2. e = 255, the standard's NaN, is 2^127 as in ggml. */
static const int8_t l4j_e2m1_table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static inline float gguf_e8m0_half(uint8_t e) {
    union {
        uint32_t u;
        float f;
    } d = {.u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23};
    return d.f;
}
static inline void l4j_mxfp4(const uint8_t *block, int unit, float *restrict out) {
    (void)unit;
    gguf_table(l4j_e2m1_table, block + 1, gguf_e8m0_half(block[0]), out);
}

#endif
