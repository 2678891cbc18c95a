/* Sixteen fp32 lanes on AVX2 + FMA: two registers. The same names on every tier; src/cpu/simd is written over them. */
#ifndef L4J_VEC16_H
#define L4J_VEC16_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || defined(__AVX512F__)
#error "compile this tier with -mavx2 -mfma -mf16c and without AVX-512"
#endif

typedef struct {
    __m256 lo, hi;
} v16;

static inline v16 v16_set1(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline v16 v16_zero(void) { return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void v16_store(float *p, v16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

/* Lane masks for the first n lanes, 0 ≤ n ≤ 16. */
static inline __m256i v16_mask_lo_(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline __m256i v16_mask_hi_(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
}
/* First n lanes of memory, the others +0; nothing past them is touched. */
static inline v16 v16_load_n(const float *p, int n) {
    return (v16){_mm256_maskload_ps(p, v16_mask_lo_(n)), _mm256_maskload_ps(p + 8, v16_mask_hi_(n))};
}
static inline void v16_store_n(float *p, v16 a, int n) {
    _mm256_maskstore_ps(p, v16_mask_lo_(n), a.lo);
    _mm256_maskstore_ps(p + 8, v16_mask_hi_(n), a.hi);
}
/* First n lanes of a, the others from b. */
static inline v16 v16_first_n(v16 a, v16 b, int n) {
    return (v16){_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(v16_mask_lo_(n))),
                 _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(v16_mask_hi_(n)))};
}

static inline v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline v16 v16_sub(v16 a, v16 b) { return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline v16 v16_div(v16 a, v16 b) { return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline v16 v16_sqrt(v16 a) { return (v16){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
static inline v16 v16_max(v16 a, v16 b) { return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
/* a·b + c, rounded once. */
static inline v16 v16_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
/* c − a·b, rounded once. */
static inline v16 v16_fnma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
static inline v16 v16_neg(v16 a) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
/* a where x < y, otherwise b (also where x or y is NaN). */
static inline v16 v16_select_lt(v16 x, v16 y, v16 a, v16 b) {
    return (v16){_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
}
/* a[i] where bit i of `kept` is set, otherwise +0: the dropout mask. */
static inline v16 v16_keep(v16 a, uint32_t kept) {
    __m256i all = _mm256_set1_epi32((int)kept), first = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i second = _mm256_slli_epi32(first, 8);
    __m256i lo = _mm256_cmpeq_epi32(_mm256_and_si256(all, first), first);
    __m256i hi = _mm256_cmpeq_epi32(_mm256_and_si256(all, second), second);
    return (v16){_mm256_and_ps(a.lo, _mm256_castsi256_ps(lo)), _mm256_and_ps(a.hi, _mm256_castsi256_ps(hi))};
}

/* 2^n for integral n held as fp32 + 12582912 (see exp): exponent arithmetic on the low bits. */
static inline __m256 l4j_pow2_(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/* a · 2^(n/2) · 2^(n − n/2), where the low bits of `magic` = n + 12582912 hold n. */
static inline __m256 l4j_scale2_(__m256 a, __m256 magic) {
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(magic), _mm256_set1_epi32(0x4B400000));
    __m256i half = _mm256_srai_epi32(n, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, l4j_pow2_(half)), l4j_pow2_(_mm256_sub_epi32(n, half)));
}
static inline v16 v16_scale2(v16 a, v16 magic) {
    return (v16){l4j_scale2_(a.lo, magic.lo), l4j_scale2_(a.hi, magic.hi)};
}

/* a · 2^n, exactly: the low bits of `magic` hold n, and neither a nor the result leaves the normal numbers. */
static inline v16 v16_add_exponent(v16 a, v16 magic) {
    __m256i lo = _mm256_slli_epi32(_mm256_castps_si256(magic.lo), 23);
    __m256i hi = _mm256_slli_epi32(_mm256_castps_si256(magic.hi), 23);
    return (v16){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.lo), lo)),
                 _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.hi), hi))};
}
/* Whether |a| < limit in every lane; false where one is NaN. */
static inline bool v16_all_within(v16 a, float limit) {
    __m256 sign = _mm256_set1_ps(-0.0f), l = _mm256_set1_ps(limit);
    return _mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(_mm256_andnot_ps(sign, a.lo), l, _CMP_LT_OQ),
                                            _mm256_cmp_ps(_mm256_andnot_ps(sign, a.hi), l, _CMP_LT_OQ))) == 0xFF;
}

/* The tree of the contract: 8, 4, 2, 1. */
static inline float v16_sum(v16 a) {
    __m256 s8 = _mm256_add_ps(a.lo, a.hi);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
static inline float v16_hmax(v16 a) {
    __m256 s8 = _mm256_max_ps(a.lo, a.hi);
    __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

/* Sixteen signed bytes. */
static inline v16 v16_from_i8(__m128i q) {
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
/* The same from memory. */
static inline v16 v16_load_i8(const int8_t *p) {
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}
/* Entry index[i] of a table of sixteen; indices are below 16. */
static inline __m256 l4j_lookup8_(v16 table, __m256i index) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.lo, index), _mm256_permutevar8x32_ps(table.hi, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
static inline v16 v16_lookup(v16 table, __m128i index) {
    return (v16){l4j_lookup8_(table, _mm256_cvtepu8_epi32(index)),
                 l4j_lookup8_(table, _mm256_cvtepu8_epi32(_mm_srli_si128(index, 8)))};
}

/* Sixteen stored bf16 or fp16 values, exactly. */
static inline v16 v16_load_bf16(const uint16_t *p) {
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    __m256i hi = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8)));
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
static inline v16 v16_load_f16(const uint16_t *p) {
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
/* Eight and eight fp16 patterns. */
static inline v16 v16_from_f16(__m128i lo, __m128i hi) { return (v16){_mm256_cvtph_ps(lo), _mm256_cvtph_ps(hi)}; }

static inline v16 v16_abs(v16 a) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
/* To the nearest integers, ties to even, which fit in a byte. */
static inline __m128i v16_to_i8(v16 a) {
    __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    words = _mm256_permute4x64_epi64(words, 0xD8);
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* How many of fifteen ascending bounds are below each value, found in halves. */
static inline __m256i l4j_count8_(const float b[15], __m256 x) {
    __m256 quarters = _mm256_setr_ps(b[1], b[5], b[9], b[13], 0, 0, 0, 0);
    __m256 eighths = _mm256_setr_ps(b[0], b[2], b[4], b[6], b[8], b[10], b[12], b[14]);
    __m256 c8 = _mm256_cmp_ps(x, _mm256_set1_ps(b[7]), _CMP_GT_OQ);
    __m256 c4 = _mm256_cmp_ps(x, _mm256_blendv_ps(_mm256_set1_ps(b[3]), _mm256_set1_ps(b[11]), c8), _CMP_GT_OQ);
    __m256i two = _mm256_and_si256(_mm256_castps_si256(c8), _mm256_set1_epi32(2));
    two = _mm256_sub_epi32(two, _mm256_castps_si256(c4)); /* 0 to 3 */
    __m256 c2 = _mm256_cmp_ps(x, _mm256_permutevar8x32_ps(quarters, two), _CMP_GT_OQ);
    __m256i three = _mm256_sub_epi32(_mm256_add_epi32(two, two), _mm256_castps_si256(c2));
    __m256 c1 = _mm256_cmp_ps(x, _mm256_permutevar8x32_ps(eighths, three), _CMP_GT_OQ);
    return _mm256_sub_epi32(_mm256_add_epi32(three, three), _mm256_castps_si256(c1));
}
static inline __m128i v16_count_below(const float b[15], v16 x) {
    __m256i words = _mm256_packs_epi32(l4j_count8_(b, x.lo), l4j_count8_(b, x.hi));
    words = _mm256_permute4x64_epi64(words, 0xD8);
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* ---- sixty-four bytes ---- */

typedef struct {
    __m256i lo, hi;
} b64;

static inline b64 b64_load(const uint8_t *p) {
    return (b64){_mm256_load_si256((const __m256i *)p), _mm256_load_si256((const __m256i *)p + 1)};
}
static inline b64 b64_join(__m256i lo, __m256i hi) { return (b64){lo, hi}; }
static inline b64 b64_set1(int32_t x) { return (b64){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
/* Unsigned bytes of a times signed bytes of b, added in pairs to 16 bits. */
static inline b64 b64_pairs(b64 a, b64 b) {
    return (b64){_mm256_maddubs_epi16(a.lo, b.lo), _mm256_maddubs_epi16(a.hi, b.hi)};
}
static inline b64 b64_add16(b64 a, b64 b) { return (b64){_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)}; }
static inline b64 b64_add32(b64 a, b64 b) { return (b64){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
/* 16 bits added in pairs to 32. */
static inline b64 b64_widen(b64 a) {
    __m256i one = _mm256_set1_epi16(1);
    return (b64){_mm256_madd_epi16(a.lo, one), _mm256_madd_epi16(a.hi, one)};
}
static inline b64 b64_abs8(b64 a) { return (b64){_mm256_abs_epi8(a.lo), _mm256_abs_epi8(a.hi)}; }
/* a where b is above 0, -a where it is below; anything where it is 0. */
static inline b64 b64_sign8(b64 a, b64 b) { return (b64){_mm256_sign_epi8(a.lo, b.lo), _mm256_sign_epi8(a.hi, b.hi)}; }
static inline v16 v16_from_i32(b64 a) { return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

#endif
