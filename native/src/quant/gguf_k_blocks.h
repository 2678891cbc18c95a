/*
 * GGUF's super-blocks of 256 values (the K quants), as ggml-quants.c reads them: eight units of 32 values, whose scales are small
 * integers times the fp16 d (and dmin) of the super-block. A decoder gives one unit; each step is rounded to
 * fp32. (Adding −min is subtracting min.)
 */
#ifndef L4J_GGUF_K_BLOCKS_H
#define L4J_GGUF_K_BLOCKS_H

#include "gguf_blocks.h"

/* scales[16] (low nibble scale, high nibble min), qs[64], d, dmin. Two bits a value: unit u of its half is bits 2u of the same bytes. */
static inline void l4j_q2_k(const uint8_t *block, int unit, c16_out *out) {
    const uint8_t *scales = block + 2 * unit, *qs = block + 16 + 32 * (unit / 4);
    float d = gguf_f16(block + 80), dmin = gguf_f16(block + 82);
    for (int h = 0; h < 2; h++) {
        float scale = d * (float)(scales[h] & 15), min = dmin * (float)(scales[h] >> 4);
        c16_scale_add(c16_bits(c16_load(qs + 16 * h), 2 * (unit % 4), 3), scale, -min, out + h);
    }
}

/* hmask[32], qs[64], scales[12] (6 bits each, − 32), d. A clear bit `unit` of hmask takes 4 off. */
static inline void l4j_q3_k(const uint8_t *block, int unit, c16_out *out) {
    const uint8_t *hmask = block, *qs = block + 32 + 32 * (unit / 4), *scales = block + 96;
    float d = gguf_f16(block + 108);
    for (int h = 0; h < 2; h++) {
        int j = 2 * unit + h; /* scale: low four bits in bytes 0 to 7, high two in bytes 8 to 11 */
        int low = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4, high = scales[8 + j % 4] >> 2 * (j / 4) & 3;
        c16 q = c16_bits(c16_load(qs + 16 * h), 2 * (unit % 4), 3);
        q = c16_less(c16_join(q, c16_bits(c16_load(hmask + 16 * h), unit, 1), 2), 4);
        c16_scale(q, d * (float)((low | high << 4) - 32), out + h);
    }
}

/* The six-bit scale and min of unit j: the twelve bytes of Q4_K and Q5_K. */
static inline void gguf_k4_scale(const uint8_t *s, int j, float *scale, float *min) {
    int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    int m = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    *scale = (float)sc;
    *min = (float)m;
}

/* d, dmin, scales[12], qs[128]: two units share 32 bytes, low nibbles first */
static inline void l4j_q4_k(const uint8_t *block, int unit, c16_out *out) {
    const uint8_t *qs = block + 16 + 32 * (unit / 2);
    float scale, min;
    gguf_k4_scale(block + 4, unit, &scale, &min);
    scale = gguf_f16(block) * scale;
    min = gguf_f16(block + 2) * min;
    for (int h = 0; h < 2; h++) {
        c16_scale_add(c16_bits(c16_load(qs + 16 * h), 4 * (unit % 2), 15), scale, -min, out + h);
    }
}

/* d, dmin, scales[12], qh[32], qs[128]: bit `unit` of qh is worth 16 */
static inline void l4j_q5_k(const uint8_t *block, int unit, c16_out *out) {
    const uint8_t *qh = block + 16, *qs = block + 48 + 32 * (unit / 2);
    float scale, min;
    gguf_k4_scale(block + 4, unit, &scale, &min);
    scale = gguf_f16(block) * scale;
    min = gguf_f16(block + 2) * min;
    for (int h = 0; h < 2; h++) {
        c16 low = c16_bits(c16_load(qs + 16 * h), 4 * (unit % 2), 15), high = c16_bits(c16_load(qh + 16 * h), unit, 1);
        c16_scale_add(c16_join(low, high, 4), scale, -min, out + h);
    }
}

/* ql[128], qh[64], int8 scales[16], d. Of each half: unit u has nibble u / 2 of bytes 32(u % 2) on, and bits 2u of qh. */
static inline void l4j_q6_k(const uint8_t *block, int unit, c16_out *out) {
    int half = unit / 4, u = unit % 4;
    const uint8_t *ql = block + 64 * half + 32 * (u % 2), *qh = block + 128 + 32 * half;
    const int8_t *scales = (const int8_t *)block + 192 + 2 * unit;
    float d = gguf_f16(block + 208);
    for (int h = 0; h < 2; h++) {
        c16 low = c16_bits(c16_load(ql + 16 * h), 4 * (u / 2), 15), high = c16_bits(c16_load(qh + 16 * h), 2 * u, 3);
        c16_scale(c16_less(c16_join(low, high, 4), 32), d * (float)scales[h], out + h);
    }
}

#endif
