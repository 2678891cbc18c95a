/* One row of activations: the codes of a weight in panels are used as they are decoded, and not kept. */
#ifndef L4J_INT8_ROW_H
#define L4J_INT8_ROW_H

#include "int8_dot.h"

/* Eight columns of sixteen rows, [column][row]: w[i] has the even columns of rows 4i to 4i + 3, then their odd columns. */
static inline void int8_eight(__m256i w[4], const int8_t *codes, int offset) {
    __m256i in[4], add = _mm256_set1_epi8((char)offset);
    for (int i = 0; i < 4; i++) {
        in[i] = _mm256_loadu_si256((const __m256i *)codes + i);
        if (offset) in[i] = _mm256_add_epi8(in[i], add);
    }
    __m256i low = _mm256_unpacklo_epi8(in[0], in[1]), high = _mm256_unpackhi_epi8(in[0], in[1]);
    __m256i low2 = _mm256_unpacklo_epi8(in[2], in[3]), high2 = _mm256_unpackhi_epi8(in[2], in[3]);
    w[0] = _mm256_unpacklo_epi16(low, low2);
    w[1] = _mm256_unpackhi_epi16(low, low2);
    w[2] = _mm256_unpacklo_epi16(high, high2);
    w[3] = _mm256_unpackhi_epi16(high, high2);
}

/* Eight activations as the codes of eight columns lie. */
static inline __m256i int8_spread(const int8_t *q) {
    const __m256i split = _mm256_setr_epi8(0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3,
                                           5, 7, 1, 3, 5, 7);
    return _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)q)), split);
}

/* The sums of sixteen rows from those of their even and their odd columns. */
static inline b64 int8_join(const __m256i sums[4]) {
    __m256i rows[2];
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_permute2x128_si256(sums[2 * i], sums[2 * i + 1], 0x20);
        rows[i] = _mm256_add_epi32(even, _mm256_permute2x128_si256(sums[2 * i], sums[2 * i + 1], 0x31));
    }
    return b64_join(rows[0], rows[1]);
}

/* Products of one group of columns, whose codes are used as they come: sums of sixteen rows. */
static inline __attribute__((always_inline)) b64 int8_group(const int8_format f, const int8_t *codes, const int8_t *q) {
    const int steps = f.group / 8, adds = int8_adds(f) < steps ? int8_adds(f) : steps;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i whole[4], part[4];
#pragma GCC unroll 4
    for (int s = 0; s < steps; s++, codes += 8 * L4J_PANEL, q += 8) {
        __m256i w[4], x = int8_spread(q);
        int8_eight(w, codes, int8_offset(f));
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (INT8_DOT) {
                whole[i] = int8_dot32(s ? whole[i] : _mm256_setzero_si256(), w[i], x);
                continue;
            }
            __m256i pairs = int8_is_signed(f) ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(x, w[i]))
                                              : _mm256_maddubs_epi16(w[i], x);
            part[i] = s % adds ? _mm256_add_epi16(part[i], pairs) : pairs;
            if (s % adds != adds - 1) continue;
            __m256i sum = _mm256_madd_epi16(part[i], one);
            whole[i] = s >= adds ? _mm256_add_epi32(whole[i], sum) : sum;
        }
    }
    return int8_join(whole);
}

/* acc[j] continued over all columns of a weight in panels, for row 0. */
static inline __attribute__((always_inline)) void int8_row(float acc[L4J_PANEL], const int8_decoder decode,
                                                           const int8_format f, const uint8_t *block,
                                                           const int8_rows *x) {
    const int groups = 32 / f.group, units = f.values / L4J_INT8_UNIT, bytes = f.bytes * L4J_PANEL / units;
    const int8_t *q = x->q;
    const int32_t *sums = x->sum;
    v16 c = v16_load(acc);
    panel_unit u;
    panel_begin(&u, NULL, 0);
    for (int64_t k = 0; k < x->columns; k += f.values, block += f.bytes * L4J_PANEL) {
        for (int unit = 0; unit < units; unit++, q += L4J_INT8_UNIT, sums += 2) {
            u.codes = u.code;
            for (int l = 0; l < bytes; l += 64)
                _mm_prefetch((const char *)block + INT8_AHEAD + unit * bytes + l, _MM_HINT_T0);
            decode(&u, block, unit);
            int64_t at = k / L4J_INT8_UNIT + unit;
            v16 d = v16_set1(x->d[at]);
#pragma GCC unroll 2
            for (int g = 0; g < groups; g++) {
                b64 whole = int8_group(f, u.codes + g * PANEL_HALF, q + g * 16);
                int32_t sum = groups == 1 ? sums[0] + sums[1] : sums[g];
                if (!int8_is_signed(f) && f.least) whole = b64_add32(whole, b64_set1(f.least * sum));
                c = v16_fma(v16_mul(d, v16_load(u.d[g])), v16_from_i32(whole), c);
                if (f.sum) c = v16_fma(v16_set1(x->part[groups == 1 ? 0 : 1 + g][at]), v16_load(u.m[g]), c);
            }
        }
    }
    v16_store(acc, c);
}

#endif
