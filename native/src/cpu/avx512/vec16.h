/* Sixteen fp32 lanes on AVX-512: one register. The same names on every tier; src/cpu/simd is written over them. */
#ifndef L4J_VEC16_H
#define L4J_VEC16_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "compile this tier with -mavx512f -mavx512bw -mavx512dq -mavx512vl"
#endif

typedef __m512 v16;

static inline v16 v16_set1(float x) { return _mm512_set1_ps(x); }
static inline v16 v16_zero(void) { return _mm512_setzero_ps(); }
static inline v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
static inline __mmask16 v16_mask_(int n) { return (__mmask16)((1u << n) - 1u); }
static inline v16 v16_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(v16_mask_(n), p); }
static inline void v16_store_n(float *p, v16 a, int n) { _mm512_mask_storeu_ps(p, v16_mask_(n), a); }
static inline v16 v16_first_n(v16 a, v16 b, int n) { return _mm512_mask_blend_ps(v16_mask_(n), b, a); }

static inline v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v16_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
static inline v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v16_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }
static inline v16 v16_neg(v16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
static inline v16 v16_select_lt(v16 x, v16 y, v16 a, v16 b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
}
static inline v16 v16_keep(v16 a, uint32_t kept) { return _mm512_maskz_mov_ps((__mmask16)kept, a); }

static inline __m512 l4j_pow2_(__m512i n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
/* a · 2^n, exactly: the low bits of `magic` hold n, and neither a nor the result leaves the normal numbers. */
static inline v16 v16_add_exponent(v16 a, v16 magic) {
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(magic), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), n));
}
/* Whether |a| < limit in every lane; false where one is NaN. */
static inline bool v16_all_within(v16 a, float limit) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(a), _mm512_set1_ps(limit), _CMP_LT_OQ) == 0xFFFF;
}
static inline v16 v16_scale2(v16 a, v16 magic) {
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(magic), _mm512_set1_epi32(0x4B400000));
    __m512i half = _mm512_srai_epi32(n, 1);
    return _mm512_mul_ps(_mm512_mul_ps(a, l4j_pow2_(half)), l4j_pow2_(_mm512_sub_epi32(n, half)));
}

static inline float v16_sum(v16 a) {
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
static inline float v16_hmax(v16 a) { return _mm512_reduce_max_ps(a); }

static inline v16 v16_from_i8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }
static inline v16 v16_load_i8(const int8_t *p) { return v16_from_i8(_mm_loadu_si128((const __m128i *)p)); }
static inline v16 v16_lookup(v16 table, __m128i index) {
    return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(index), table);
}

static inline v16 v16_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline v16 v16_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline v16 v16_from_f16(__m128i lo, __m128i hi) { return _mm512_cvtph_ps(_mm256_setr_m128i(lo, hi)); }

static inline v16 v16_abs(v16 a) { return _mm512_abs_ps(a); }
static inline __m128i v16_to_i8(v16 a) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)); }

static inline __m128i v16_count_below(const float b[15], v16 x) {
    __m512 bounds = _mm512_maskz_loadu_ps(0x7FFF, b);
    __m512i n = _mm512_set1_epi32(7); /* the bound in the middle of those that are left */
    for (int step = 4; step >= 1; step /= 2) {
        __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(n, bounds), _CMP_GT_OQ);
        n = _mm512_mask_add_epi32(_mm512_sub_epi32(n, _mm512_set1_epi32(step)), above, n, _mm512_set1_epi32(step));
    }
    __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(n, bounds), _CMP_GT_OQ);
    return _mm512_cvtepi32_epi8(_mm512_mask_add_epi32(n, above, n, _mm512_set1_epi32(1)));
}

typedef __m512i b64;

static inline b64 b64_load(const uint8_t *p) { return _mm512_load_si512(p); }
static inline b64 b64_join(__m256i lo, __m256i hi) { return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1); }
static inline b64 b64_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline b64 b64_pairs(b64 a, b64 b) { return _mm512_maddubs_epi16(a, b); }
static inline b64 b64_add16(b64 a, b64 b) { return _mm512_add_epi16(a, b); }
static inline b64 b64_add32(b64 a, b64 b) { return _mm512_add_epi32(a, b); }
static inline b64 b64_widen(b64 a) { return _mm512_madd_epi16(a, _mm512_set1_epi16(1)); }
static inline b64 b64_abs8(b64 a) { return _mm512_abs_epi8(a); }
static inline b64 b64_sign8(b64 a, b64 b) {
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(b), _mm512_setzero_si512(), a);
}
static inline v16 v16_from_i32(b64 a) { return _mm512_cvtepi32_ps(a); }

#endif
