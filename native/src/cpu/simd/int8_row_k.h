/*
 * One row of activations and a K quant in panels. Units of a super-block share bytes: these are put into words of four columns first, and
 * taken apart into the units' codes there, which costs each code a shift and a mask. All codes are unsigned.
 */
#ifndef L4J_INT8_ROW_K_H
#define L4J_INT8_ROW_K_H

#include "int8_row.h"

enum { K_UNITS = 8, K_VALUES = K_UNITS * L4J_INT8_UNIT, K_AHEAD = 2 /* super-blocks that are fetched ahead */ };

/* Where the codes of a format lie: `low` bits and, above them, `high` bits, in bytes from low_at and high_at of the block on. */
typedef struct int8_k {
    int low, high, low_at, high_at;
} int8_k;
#define K_Q2_K \
    { 2, 0, 16, 0 }
#define K_Q3_K \
    { 2, 1, 32, 0 }
#define K_Q4_K \
    { 4, 0, 16, 0 }
#define K_Q5_K \
    { 4, 1, 48, 16 }
#define K_Q6_K \
    { 4, 2, 0, 128 }

/* Bytes of eight columns in words. */
static inline void k_words(__m256i w[4], const uint8_t *block, int64_t byte) {
    int8_eight(w, (const int8_t *)block + byte * L4J_PANEL, 0);
}
/* The same, less their lowest `drop` bits. */
static inline void k_words_from(__m256i w[4], const uint8_t *block, int64_t byte, int drop) {
    k_words(w, block, byte);
    for (int i = 0; i < 4; i++) w[i] = _mm256_srl_epi16(w[i], _mm_cvtsi32_si128(drop));
}

/* `count` bits of each byte, from bit `from` to bit `to`. */
static inline __attribute__((always_inline)) __m256i k_bits(__m256i w, const int from, const int to, const int count) {
    if (from > to) w = _mm256_srli_epi16(w, from - to);
    if (from < to) w = _mm256_slli_epi16(w, to - from);
    return _mm256_and_si256(w, _mm256_set1_epi8((char)(((1 << count) - 1) << to)));
}

/* sum += code · x; in this order: compilers would keep the products to add them in pairs, and have no registers for that. */
static inline __attribute__((always_inline)) __m256i k_dot(__m256i sum, const bool first, __m256i code, __m256i x) {
    if (INT8_DOT) return int8_dot32(first ? _mm256_setzero_si256() : sum, code, x);
    __m256i pairs = _mm256_maddubs_epi16(code, x);
    if (!first) pairs = _mm256_add_epi16(sum, pairs);
    __asm__("" : "+x"(pairs));
    return pairs;
}
_Static_assert(63 * 127 * 4 <= INT16_MAX && 31 * 127 * 8 <= INT16_MAX, "what k_dot adds up fits in 16 bits");

/* A number that the compiler does not know, so that it leaves a loop a loop: unrolled, it has no registers for it. */
static inline int64_t k_times(int64_t n) {
    __asm__("" : "+r"(n));
    return n;
}

/* The sums of a group of `columns`; even and odd columns meet in 16 bits where they fit. */
static inline __attribute__((always_inline)) b64 k_sum(const __m256i part[4], const int8_k k, const int columns) {
    const bool fits = !INT8_DOT && ((1 << (k.low + k.high)) - 1) * 127 * columns / 2 <= INT16_MAX;
    __m256i one = _mm256_set1_epi16(1), whole[4];
    if (!fits) {
        for (int i = 0; i < 4; i++) whole[i] = INT8_DOT ? part[i] : _mm256_madd_epi16(part[i], one);
        return int8_join(whole);
    }
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_permute2x128_si256(part[2 * i], part[2 * i + 1], 0x20);
        __m256i odd = _mm256_permute2x128_si256(part[2 * i], part[2 * i + 1], 0x31);
        whole[i] = _mm256_madd_epi16(_mm256_add_epi16(even, odd), one);
    }
    return b64_join(whole[0], whole[1]);
}

/* Asks the second cache for what is read later, a little at a time. */
static inline __attribute__((always_inline)) void k_fetch(const uint8_t *at, const int bytes) {
    for (int l = 0; l < bytes; l += 64) _mm_prefetch((const char *)at + l, _MM_HINT_T1);
}

/* Sums of the units of a super-block of `bytes` whose groups are units, two of which share the bytes of their low bits. */
static inline __attribute__((always_inline)) void k_units(b64 *sums, const int8_k k, const int bytes,
                                                          const uint8_t *block, const int8_t *q) {
    const uint8_t *ahead = block + K_AHEAD * bytes;
    for (int64_t first = 0, end = k_times(K_UNITS); first < end;
         first += 2, q += 2 * L4J_INT8_UNIT, ahead += bytes / 4) {
        k_fetch(ahead, bytes / 4);
        __m256i part[2][4];
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            __m256i low[4], high[4];
            k_words(low, block, k.low_at + first / 2 * L4J_INT8_UNIT + 8 * s);
            if (k.high) k_words_from(high, block, k.high_at + 8 * s, (int)first);
#pragma GCC unroll 2
            for (int u = 0; u < 2; u++) {
                __m256i x = int8_spread(q + u * L4J_INT8_UNIT + 8 * s);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    __m256i code = k_bits(low[i], k.low * u, 0, k.low);
                    if (k.high) code = _mm256_or_si256(code, k_bits(high[i], u, k.low, 1));
                    part[u][i] = k_dot(part[u][i], s == 0, code, x);
                }
            }
        }
        for (int u = 0; u < 2; u++) sums[first + u] = k_sum(part[u], k, 32);
    }
}

/* part continued over eight columns, step s of a half of unit u: its low bits are number `place` of the bytes. */
static inline __attribute__((always_inline)) void k_eight(__m256i part[4], const int8_k k, const int s,
                                                          const __m256i low[4], const int place, const __m256i high[4],
                                                          const int u, const int8_t *q) {
    __m256i x = int8_spread(q + u * L4J_INT8_UNIT + 8 * s);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i code = k_bits(low[i], k.low * place, 0, k.low);
        if (k.high) code = _mm256_or_si256(code, k_bits(high[i], k.high * u, k.low, k.high));
        part[i] = k_dot(part[i], s == 0, code, x);
    }
}

/* Sums of half a unit each: of formats in which four units share the bytes of their low bits, or four and four those of two runs. */
static inline __attribute__((always_inline)) void k_halves(b64 *sums, const int8_k k, const int bytes,
                                                           const uint8_t *block, const int8_t *q) {
    const uint8_t *ahead = block + K_AHEAD * bytes;
    const int runs = k.low / 2;
    const uint8_t *lows = block + k.low_at * L4J_PANEL, *highs = block + k.high_at * L4J_PANEL;
    for (int64_t first = 0, end = k_times(K_UNITS); first < end; first += 4) {
        for (int64_t h = k_times(2); h > 0;
             h--, q += 16, lows += PANEL_HALF, highs += PANEL_HALF, sums++, ahead += bytes / 4) {
            k_fetch(ahead, bytes / 4);
            __m256i high[2][4];
#pragma GCC unroll 2
            for (int s = 0; s < 2; s++) {
                if (k.high == 1) k_words_from(high[s], highs, 8 * s, (int)first);
                if (k.high == 2) k_words(high[s], highs, 8 * s);
            }
#pragma GCC unroll 2
            for (int r = 0; r < runs; r++) {
                __m256i low[2][4], part[2][4];
                /* One run's two units at once, or four units one after another: what the registers hold. */
#pragma GCC unroll 2
                for (int s = 0; s < 2; s++) {
                    k_words(low[s], lows, r * L4J_INT8_UNIT + 8 * s);
#pragma GCC unroll 2
                    for (int u = r; u < 2 * runs; u += 2)
                        if (runs == 2) k_eight(part[u / 2], k, s, low[s], u / 2, high[s], u, q);
                }
#pragma GCC unroll 4
                for (int u = r; u < 4; u += runs) {
#pragma GCC unroll 2
                    for (int s = 0; s < 2; s++)
                        if (runs == 1) k_eight(part[0], k, s, low[s], u, high[s], u, q);
                    sums[2 * u] = k_sum(part[runs == 2 ? u / 2 : 0], k, 16);
                }
            }
        }
        q += 3 * L4J_INT8_UNIT;
        lows += (runs - 1) * 2 * PANEL_HALF;
        if (k.high == 1) highs -= 2 * PANEL_HALF; /* all units' high bits lie in the same bytes */
        sums += 6;
    }
}

/* The sums of all groups of a super-block. */
typedef void (*k_adder)(b64 *sums, const uint8_t *block, const int8_t *q);

/* acc[p] continued over all columns for `panels` panels, whose chains do not wait for each other. */
static inline __attribute__((always_inline)) void int8_row_k(float acc[2][L4J_PANEL], const int panels,
                                                             const k_adder add, const int8_decoder scales,
                                                             const int8_format f, const uint8_t *block, int64_t panel,
                                                             const int8_rows *x) {
    const int groups = L4J_INT8_UNIT / f.group, bytes = f.bytes * L4J_PANEL;
    const int8_t *q = x->q;
    v16 c[2];
    panel_unit u[2];
    for (int p = 0; p < panels; p++) {
        c[p] = v16_load(acc[p]);
        panel_begin(&u[p], NULL, 0);
    }
    for (int64_t at = 0; at < x->columns; at += K_VALUES, block += bytes, q += K_VALUES) {
        b64 sums[2][2 * K_UNITS];
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            add(sums[p], block + p * panel, q);
        }
        const float *xd = x->d + at / L4J_INT8_UNIT, *part[3];
        const int32_t *xs = x->sum + at / 16;
        for (int i = 0; i < 3; i++) part[i] = x->part[i] + at / L4J_INT8_UNIT;
        for (int unit = 0, end = (int)k_times(K_UNITS); unit < end; unit++) {
            v16 d = v16_set1(xd[unit]);
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++) {
                scales(&u[p], block + p * panel, unit);
#pragma GCC unroll 2
                for (int g = 0; g < groups; g++) {
                    b64 whole = sums[p][unit * groups + g];
                    int32_t sum = groups == 1 ? xs[2 * unit] + xs[2 * unit + 1] : xs[2 * unit + g];
                    if (f.least) whole = b64_add32(whole, b64_set1(f.least * sum));
                    c[p] = v16_fma(v16_mul(d, v16_load(u[p].d[g])), v16_from_i32(whole), c[p]);
                    if (f.sum)
                        c[p] = v16_fnma(v16_set1(part[groups == 1 ? 0 : 1 + g][unit]), v16_load(u[p].m[g]), c[p]);
                }
            }
        }
    }
    for (int p = 0; p < panels; p++) v16_store(acc[p], c[p]);
}

#endif
