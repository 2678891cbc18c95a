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
static inline void l4j_q4_0(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    c16 qs = c16_load(block + 2);
    for (int h = 0; h < 2; h++) c16_scale(c16_less(c16_bits(qs, 4 * h, 15), 8), gguf_f16(block), out + h);
}

/* d, m, qs[16]: q·d + m */
static inline void l4j_q4_1(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    c16 qs = c16_load(block + 4);
    float d = gguf_f16(block), m = gguf_f16(block + 2);
    for (int h = 0; h < 2; h++) c16_scale_add(c16_bits(qs, 4 * h, 15), d, m, out + h);
}

/* d, qh[4], qs[16]: (q − 16)·d; bit j of qh is worth 16 to value j */
static inline void l4j_q5_0(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    c16 qs = c16_load(block + 6);
    for (int h = 0; h < 2; h++) {
        c16 q = c16_join(c16_bits(qs, 4 * h, 15), c16_spread(block + 2 + 2 * h), 4);
        c16_scale(c16_less(q, 16), gguf_f16(block), out + h);
    }
}

/* d, m, qh[4], qs[16]: q·d + m */
static inline void l4j_q5_1(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    c16 qs = c16_load(block + 8);
    float d = gguf_f16(block), m = gguf_f16(block + 2);
    for (int h = 0; h < 2; h++) {
        c16 q = c16_join(c16_bits(qs, 4 * h, 15), c16_spread(block + 4 + 2 * h), 4);
        c16_scale_add(q, d, m, out + h);
    }
}

/* d, int8 qs[32]: q·d */
static inline void l4j_q8_0(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    for (int h = 0; h < 2; h++) c16_scale(c16_load(block + 2 + 16 * h), gguf_f16(block), out + h);
}

/* qs[16] as indices of a table of sixteen integers: table[q]·d */
static inline void gguf_table(const int8_t table[16], const uint8_t *qs, float d, c16_out *out) {
    c16 q = c16_load(qs);
    for (int h = 0; h < 2; h++) c16_scale(c16_lookup(table, c16_bits(q, 4 * h, 15)), d, out + h);
}

/* d, qs[16]: values of a table that is denser around zero */
static const int8_t l4j_iq4_nl_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static inline void l4j_iq4_nl(const uint8_t *block, int unit, c16_out *out) {
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
static inline void l4j_mxfp4(const uint8_t *block, int unit, c16_out *out) {
    (void)unit;
    gguf_table(l4j_e2m1_table, block + 1, gguf_e8m0_half(block[0]), out);
}

#endif
