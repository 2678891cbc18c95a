/* Sixteen codes of one byte each, portable. The vector tiers have the same names over a register: src/cpu/simd/codes16.h. */
#ifndef L4J_CODES16_H
#define L4J_CODES16_H

#include <stdint.h>
#include <string.h>

typedef struct {
    int8_t q[16];
} c16;

static inline c16 c16_load(const void *p) {
    c16 c;
    memcpy(c.q, p, sizeof c.q);
    return c;
}
/* (code >> shift) & mask, as unsigned bytes */
static inline c16 c16_bits(c16 c, int shift, int mask) {
    for (int i = 0; i < 16; i++) c.q[i] = (int8_t)((uint8_t)c.q[i] >> shift & mask);
    return c;
}
/* a + (b << shift), which fits in seven bits */
static inline c16 c16_join(c16 a, c16 b, int shift) {
    for (int i = 0; i < 16; i++) a.q[i] = (int8_t)(a.q[i] + (b.q[i] << shift));
    return a;
}
static inline c16 c16_less(c16 c, int less) {
    for (int i = 0; i < 16; i++) c.q[i] = (int8_t)(c.q[i] - less);
    return c;
}
/* Code i is bit i of two bytes. */
static inline c16 c16_spread(const uint8_t *bits) {
    c16 c;
    for (int i = 0; i < 16; i++) c.q[i] = (int8_t)(bits[i / 8] >> i % 8 & 1);
    return c;
}
/* table[code], codes below 16 */
static inline c16 c16_lookup(const int8_t table[16], c16 c) {
    for (int i = 0; i < 16; i++) c.q[i] = table[c.q[i]];
    return c;
}
/* High nibbles at even places, low nibbles at odd ones, of eight bytes. */
static inline c16 c16_pairs(const uint8_t *p) {
    c16 c;
    for (int i = 0; i < 16; i++) c.q[i] = (int8_t)(i % 2 ? p[i / 2] & 15 : p[i / 2] >> 4);
    return c;
}

/* The way back: a byte of each two. */
static inline void c16_store_pairs(uint8_t *p, c16 c) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(c.q[2 * i] << 4 | c.q[2 * i + 1]);
}
/* How many of fifteen ascending midpoints are below each of sixteen values. */
static inline c16 c16_above(const float middle[15], const float *x) {
    c16 c = {{0}};
    for (int b = 0; b < 15; b++) {
        for (int i = 0; i < 16; i++) c.q[i] = (int8_t)(c.q[i] + (x[i] > middle[b]));
    }
    return c;
}

#ifdef C16_APART /* codes and scales as they are, for products of integers */
typedef l4j_half c16_out;
static inline void c16_scale_add(c16 c, float d, float m, c16_out *out) {
    memcpy(out->code, c.q, sizeof c.q);
    out->d = d;
    out->m = m;
}
static inline void c16_scale(c16 c, float d, c16_out *out) { c16_scale_add(c, d, 0, out); }
#else
typedef struct {
    float value[16];
} c16_out;
/* out = code·d; code·d + m; map[code]·d: each step rounded */
static inline void c16_scale(c16 c, float d, c16_out *out) {
    for (int i = 0; i < 16; i++) out->value[i] = (float)c.q[i] * d;
}
static inline void c16_scale_add(c16 c, float d, float m, c16_out *out) {
    for (int i = 0; i < 16; i++) out->value[i] = (float)c.q[i] * d + m;
}
static inline void c16_map(const float map[16], c16 c, float d, float *out) {
    for (int i = 0; i < 16; i++) out[i] = map[c.q[i]] * d;
}
#endif

#endif
