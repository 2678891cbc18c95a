/* Sixteen codes of one byte each in a register: the names of src/quant/codes16.h. */
#ifndef L4J_SIMD_CODES16_H
#define L4J_SIMD_CODES16_H

#include "vec16.h"

typedef __m128i c16;

static inline c16 c16_load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline c16 c16_bits(c16 c, int shift, int mask) {
    return _mm_and_si128(_mm_srl_epi16(c, _mm_cvtsi32_si128(shift)), _mm_set1_epi8((char)mask));
}
static inline c16 c16_join(c16 a, c16 b, int shift) {
    return _mm_add_epi8(a, _mm_sll_epi16(b, _mm_cvtsi32_si128(shift)));
}
static inline c16 c16_less(c16 c, int less) { return _mm_sub_epi8(c, _mm_set1_epi8((char)less)); }
static inline c16 c16_spread(const uint8_t *bits) {
    __m128i both = _mm_set1_epi16((short)(bits[0] | bits[1] << 8));
    __m128i byte = _mm_shuffle_epi8(both, _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    __m128i bit = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)128, 1, 2, 4, 8, 16, 32, 64, (char)128);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(byte, bit), bit), _mm_set1_epi8(1));
}
static inline c16 c16_lookup(const int8_t table[16], c16 c) { return _mm_shuffle_epi8(c16_load(table), c); }
static inline c16 c16_pairs(const uint8_t *p) {
    __m128i pairs = _mm_loadl_epi64((const __m128i *)p), low = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(pairs, 4), low), _mm_and_si128(pairs, low));
}

static inline void c16_store_pairs(uint8_t *p, c16 c) {
    __m128i bytes = _mm_maddubs_epi16(c, _mm_set1_epi16(1 << 8 | 16));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(bytes, bytes));
}
static inline c16 c16_above(const float middle[15], const float *x) { return v16_count_below(middle, v16_load(x)); }

typedef struct {
    float value[16];
} c16_out;
static inline void c16_scale(c16 c, float d, c16_out *out) {
    v16_store(out->value, v16_mul(v16_from_i8(c), v16_set1(d)));
}
static inline void c16_scale_add(c16 c, float d, float m, c16_out *out) {
    v16_store(out->value, v16_add(v16_mul(v16_from_i8(c), v16_set1(d)), v16_set1(m)));
}
static inline void c16_map(const float map[16], c16 c, float d, float *out) {
    v16_store(out, v16_mul(v16_lookup(v16_load(map), c), v16_set1(d)));
}

#endif
