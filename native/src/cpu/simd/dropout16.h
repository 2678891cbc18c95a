/* Dropout bits in vectors: the four Philox blocks of 32 columns run in the four 64-bit lanes of one register. */
#ifndef L4J_DROPOUT16_H
#define L4J_DROPOUT16_H

#include "../dropout.h"
#include "vec16.h"

/* The keys of the ten rounds in every lane: the same for all calls of one stream. */
typedef struct dropout_keys {
    __m256i k0[10], k1[10];
} dropout_keys;

static inline void dropout_keys_init(dropout_keys *keys, const l4j_dropout *d) {
    uint32_t k0 = d->key[0], k1 = d->key[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        keys->k0[round] = _mm256_set1_epi64x(k0);
        keys->k1[round] = _mm256_set1_epi64x(k1);
    }
}

enum {
    DROPOUT_DRAWN = 2
}; /* blocks at once: ten rounds of one are a single chain, which leaves half of the pipes idle */

/* What l4j_dropout_bits decides on two blocks: bit i of kept[j] tells whether column i of block + j is kept. */
static inline void dropout_kept(const l4j_dropout *d, const dropout_keys *keys, uint32_t token, int64_t block,
                                uint32_t kept[DROPOUT_DRAWN]) {
    const __m256i mul0 = _mm256_set1_epi64x(0xD2511F53u), mul1 = _mm256_set1_epi64x(0xCD9E8D57u);
    /* Only the low half of a lane counts; what a product leaves in the high half is never read. */
    __m256i c0[DROPOUT_DRAWN], c1[DROPOUT_DRAWN], c2[DROPOUT_DRAWN], c3[DROPOUT_DRAWN];
    for (int j = 0; j < DROPOUT_DRAWN; j++) {
        c0[j] = _mm256_set1_epi64x(token);
        c1[j] = _mm256_add_epi64(_mm256_set1_epi64x(4 * (block + j)), _mm256_setr_epi64x(0, 1, 2, 3));
        c2[j] = _mm256_set1_epi64x(d->stream);
        c3[j] = _mm256_set1_epi64x(d->step);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
#pragma GCC unroll 2
        for (int j = 0; j < DROPOUT_DRAWN; j++) {
            __m256i p0 = _mm256_mul_epu32(mul0, c0[j]), p1 = _mm256_mul_epu32(mul1, c2[j]);
            c0[j] = _mm256_xor_si256(_mm256_xor_si256(c1[j], keys->k0[round]), _mm256_srli_epi64(p1, 32));
            c2[j] = _mm256_xor_si256(_mm256_xor_si256(c3[j], keys->k1[round]), _mm256_srli_epi64(p0, 32));
            c1[j] = p1;
            c3[j] = p0;
        }
    }
    /* Words of t = 0..3 side by side: eight columns for each c. */
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i threshold = _mm256_set1_epi16((short)d->threshold);
    for (int j = 0; j < DROPOUT_DRAWN; j++) {
        __m256i low = _mm256_blend_epi32(c0[j], _mm256_slli_epi64(c1[j], 32), 0xAA);
        __m256i high = _mm256_blend_epi32(c2[j], _mm256_slli_epi64(c3[j], 32), 0xAA);
        low = _mm256_permutevar8x32_epi32(low, order);
        high = _mm256_permutevar8x32_epi32(high, order);
        low = _mm256_cmpeq_epi16(_mm256_max_epu16(low, threshold), low);
        high = _mm256_cmpeq_epi16(_mm256_max_epu16(high, threshold), high);
        __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
        kept[j] = (uint32_t)_mm256_movemask_epi8(bytes);
    }
}

#endif
