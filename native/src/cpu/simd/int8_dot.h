/*
 * Products of bytes, in one instruction or in two. Without one for it codes are made unsigned by an offset, which is taken off again as
 * offset * (sum of the activations), so that two products of bytes fit in 16 bits, and so do several of their sums; of formats whose codes
 * need eight bits the sign goes to the activation instead.
 */
#ifndef L4J_INT8_DOT_H
#define L4J_INT8_DOT_H

#include "int8_codes.h"

#ifdef INT8_VNNI /* a product of four bytes and its sum in one instruction, for any codes */
static inline b64 int8_dot(b64 sum, b64 a, b64 b) { return _mm512_dpbusd_epi32(sum, a, b); }
static inline __m256i int8_dot32(__m256i sum, __m256i a, __m256i b) { return _mm256_dpbusd_epi32(sum, a, b); }
enum { INT8_DOT = 1 };
#else
static inline b64 int8_dot(b64 sum, b64 a, b64 b) { return b64_add32(sum, b64_widen(b64_pairs(a, b))); }
static inline __m256i int8_dot32(__m256i sum, __m256i a, __m256i b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
enum { INT8_DOT = 0 };
#endif

static inline bool int8_is_signed(const int8_format f) { return !INT8_DOT && 254 * (f.most - f.least) > INT16_MAX; }
/* Words whose products may be added in 16 bits: two bytes times 127 each. */
static inline int int8_adds(const int8_format f) {
    int fit = int8_is_signed(f) || INT8_DOT ? 1 : INT16_MAX / (254 * (f.most - f.least)), words = f.group / 4;
    fit = fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
    return fit < words ? fit : words;
}
/* What is added to codes: they are unsigned then. */
static inline int int8_offset(const int8_format f) { return int8_is_signed(f) ? 0 : -f.least; }

#endif
