/* Operands into tiles: read as the fp32 products read them, then rounded to bf16 and paired. */
#include "bf16.h"
#include <string.h>

/* Eight values rounded to bf16, in the high halves; what is in the low halves does not count. */
static inline __m256i pack_round(__m256 x) {
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
}

/* Sixteen pairs of a low and a high value. */
static inline void pack_pairs(uint16_t *out, const float *low, const float *high) {
    for (int j = 0; j < L4J_TILE_ROWS; j += 8) {
        __m256i l = _mm256_srli_epi32(pack_round(_mm256_loadu_ps(low + j)), 16);
        __m256i h = pack_round(_mm256_loadu_ps(high + j));
        _mm256_storeu_si256((__m256i *)(out + 2 * j), _mm256_blend_epi16(l, h, 0xAA));
    }
}

/* A tile of B from its steps, [32][16]. */
static void pack_tile(uint16_t *tile, bool quads, const float *steps) {
    for (int k = 0; k < L4J_TILE_STEPS; k += 4) {
        const float *s = steps + k * L4J_TILE_ROWS;
        uint16_t *out = tile + k * L4J_TILE_ROWS;
        int low0 = quads ? 2 : 0, high0 = quads ? 0 : 1, low1 = quads ? 3 : 2, high1 = quads ? 1 : 3;
        pack_pairs(out, s + low0 * L4J_TILE_ROWS, s + high0 * L4J_TILE_ROWS);
        pack_pairs(out + 2 * L4J_TILE_ROWS, s + low1 * L4J_TILE_ROWS, s + high1 * L4J_TILE_ROWS);
    }
}

/* A row of a tile of A from its 32 values. */
static inline void pack_row(uint16_t *out, bool quads, const float *from) {
    for (int k = 0; k < L4J_TILE_STEPS; k += 16) {
        __m256i a = _mm256_srli_epi32(pack_round(_mm256_loadu_ps(from + k)), 16);
        __m256i b = _mm256_srli_epi32(pack_round(_mm256_loadu_ps(from + k + 8)), 16);
        __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
        if (quads) both = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(both, 0x72), 0x72);
        _mm256_storeu_si256((__m256i *)(out + k), both);
    }
}

void bf16_pack_a(uint16_t *out, bool quads, const gemm_a *a, int64_t m, int64_t rows, int64_t steps) {
    bool drops = a->dropout && a->dropout->threshold, plain = a->col_stride == 1 && !drops;
    dropout_keys keys;
    if (drops) dropout_keys_init(&keys, a->dropout);
    for (int64_t t = 0; t < l4j_tiles(steps); t++) {
        int64_t k = t * L4J_TILE_STEPS, live = l4j_min64(L4J_TILE_STEPS, steps - k);
        uint16_t *tile = out + t * L4J_TILE;
        for (int64_t i = 0; i < rows; i++) {
            float buffer[L4J_TILE_STEPS] = {0};
            const float *from = a->data + (m + i) * a->row_stride + k;
            if (!plain) {
                gemm_gather(buffer, a, drops ? &keys : NULL, m + i, k, live);
                from = buffer;
            } else if (live < L4J_TILE_STEPS) {
                memcpy(buffer, from, sizeof(float) * (size_t)live);
                from = buffer;
            }
            pack_row(tile + i * L4J_TILE_STEPS, quads, from);
        }
        memset(tile + rows * L4J_TILE_STEPS, 0, sizeof(uint16_t) * (size_t)((L4J_TILE_ROWS - rows) * L4J_TILE_STEPS));
    }
}

/* ---- B ---- */

/* Sixteen rows of sixteen pairs, transposed. */
static void pack_transpose(uint32_t out[16][16], const uint32_t in[16][16]) {
    for (int h = 0; h < 4; h++) {
        int i0 = h / 2 * 8, j0 = h % 2 * 8;
        __m256 r[8], t[8];
        for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps((const float *)&in[i0 + i][j0]);
        for (int i = 0; i < 8; i += 4) {
            __m256 a0 = _mm256_unpacklo_ps(r[i], r[i + 1]), a1 = _mm256_unpackhi_ps(r[i], r[i + 1]);
            __m256 a2 = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), a3 = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
            t[i] = _mm256_shuffle_ps(a0, a2, 0x44);
            t[i + 1] = _mm256_shuffle_ps(a0, a2, 0xEE);
            t[i + 2] = _mm256_shuffle_ps(a1, a3, 0x44);
            t[i + 3] = _mm256_shuffle_ps(a1, a3, 0xEE);
        }
        for (int i = 0; i < 4; i++) {
            _mm256_storeu_ps((float *)&out[j0 + i][i0], _mm256_permute2f128_ps(t[i], t[i + 4], 0x20));
            _mm256_storeu_ps((float *)&out[j0 + i + 4][i0], _mm256_permute2f128_ps(t[i], t[i + 4], 0x31));
        }
    }
}

/* In `quads` four places hold the steps 2, 0, 3, 1. */
static inline __m256i pack_natural(bool quads, __m256i places) {
    return quads ? _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(places, 0x8D), 0x8D) : places;
}

#ifdef __AVX512BW__
/* Eight rows of eight pairs of values, [k pair][n pair], to [n pair][k pair]; of each two pairs first the first values, then the second. */
static inline void pack_turn_eight(uint16_t *out, const uint16_t *in) {
    const __m512i pairs = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i r[8], t[8], u[8];
    for (int i = 0; i < 8; i++) r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(in + i * 2 * L4J_TILE_ROWS), pairs);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (int i = 0; i < 4; i++) { /* lanes 0 and 2, then 1 and 3, of rows i % 2 of each four */
        int a = i / 2 * 4 + i % 2;
        u[i] = _mm512_shuffle_i64x2(t[a], t[a + 2], 0x88);
        u[i + 4] = _mm512_shuffle_i64x2(t[a], t[a + 2], 0xDD);
    }
    for (int i = 0; i < 2; i++) { /* row 4q + 2h + i of the result: lane 2q + h of its pairs */
        for (int h = 0; h < 2; h++) {
            __m512i low = u[4 * h + i], high = u[4 * h + i + 2];
            _mm512_storeu_si512(out + (2 * h + i) * 2 * L4J_TILE_ROWS, _mm512_shuffle_i64x2(low, high, 0x88));
            _mm512_storeu_si512(out + (4 + 2 * h + i) * 2 * L4J_TILE_ROWS, _mm512_shuffle_i64x2(low, high, 0xDD));
        }
    }
}

/* What pack_turned does, for tiles whose pairs are steps that follow one another. */
static void pack_turned_pairs(uint16_t *out, int64_t panel, const l4j_weight *w, int64_t n, int64_t k, int64_t cols) {
    const uint16_t *data = w->data;
    int64_t across = l4j_tiles(w->cols);
    for (int64_t h = 0; h < 2; h++) {
        int64_t tile = (n / L4J_TILE_ROWS + h) * across + k / L4J_TILE_STEPS;
        for (int64_t j = 0; j < cols; j += L4J_TILE_ROWS) {
            uint16_t *to = out + j / L4J_TILE_ROWS * panel + h * L4J_TILE / 2;
            if (n + h * L4J_TILE_ROWS >= w->rows) {
                memset(to, 0, sizeof(uint16_t) * L4J_TILE / 2);
            } else {
                pack_turn_eight(to, data + tile * L4J_TILE + j / L4J_TILE_ROWS * L4J_TILE / 2);
            }
        }
    }
}
#endif

/* Two tiles of B, 32 columns wide, with the steps [n, n + 32), from a weight in tiles along its columns: [k, k + 32). */
static void pack_turned(uint16_t *out, int64_t panel, const l4j_weight *w, int64_t n, int64_t k, int64_t cols) {
    bool quads = w->layout == L4J_LAYOUT_QUAD_TILES;
#ifdef __AVX512BW__
    if (!quads) {
        pack_turned_pairs(out, panel, w, n, k, cols);
        return;
    }
#endif
    const uint16_t *data = w->data;
    int64_t across = l4j_tiles(w->cols);
    uint16_t rows[L4J_TILE_STEPS][L4J_TILE_STEPS]; /* [n][k] */
    for (int64_t h = 0; h < 2; h++) {
        if (n + h * L4J_TILE_ROWS >= w->rows) {
            memset(rows[h * L4J_TILE_ROWS], 0, sizeof(rows) / 2);
            continue;
        }
        int64_t tile = (n / L4J_TILE_ROWS + h) * across + k / L4J_TILE_STEPS;
        pack_transpose((uint32_t(*)[16])rows[h * L4J_TILE_ROWS], (const uint32_t(*)[16])(data + tile * L4J_TILE));
    }
    for (int pair = 0; pair < L4J_TILE_STEPS / 2; pair++) {
        int low = quads ? (pair / 2 * 4 + 2 + pair % 2) : 2 * pair, high = quads ? low - 2 : low + 1;
        for (int64_t j = 0; j < cols; j += L4J_TILE_ROWS) {
            __m256i l = pack_natural(quads, _mm256_loadu_si256((const __m256i *)(rows[low] + j)));
            __m256i g = pack_natural(quads, _mm256_loadu_si256((const __m256i *)(rows[high] + j)));
            __m256i a = _mm256_unpacklo_epi16(l, g), b = _mm256_unpackhi_epi16(l, g);
            uint16_t *to = out + j / L4J_TILE_ROWS * panel + pair * 2 * L4J_TILE_ROWS;
            _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(a, b, 0x20));
            _mm256_storeu_si256((__m256i *)(to + L4J_TILE_ROWS), _mm256_permute2x128_si256(a, b, 0x31));
        }
    }
}

enum { PACK_STEPS = 8 * L4J_TILE_STEPS, PACK_AHEAD = 3 /* tiles, each in other pages than the one before */ };

/* Asks for the rows [n, n + 32) of a weight in tiles, columns [k, k + cols). */
static void pack_ask(const l4j_weight *w, int64_t n, int64_t k, int64_t cols) {
    for (int64_t row = n; row < l4j_min64(n + L4J_TILE_STEPS, w->rows); row += L4J_TILE_ROWS) {
        int64_t tile = row / L4J_TILE_ROWS * l4j_tiles(w->cols) + k / L4J_TILE_STEPS;
        const uint16_t *at = (const uint16_t *)w->data + tile * L4J_TILE;
        for (int64_t i = 0; i < l4j_tiles(cols) * L4J_TILE; i += 32) __builtin_prefetch(at + i, 0, 3);
    }
}

void bf16_pack_b(uint16_t *out, int64_t panel, bool quads, const gemm_b *b, int64_t k, int64_t steps, int64_t n,
                 int64_t cols) {
    if (b->kind == GEMM_B_WEIGHT && l4j_in_tiles(b->weight)) {
        for (int64_t t = 0; t < l4j_tiles(steps); t++) {
            pack_ask(b->weight, k + (t + PACK_AHEAD) * L4J_TILE_STEPS, n, cols);
            for (int64_t j = 0; j < cols; j += L4J_TILE_STEPS) {
                pack_turned(out + j / L4J_TILE_ROWS * panel + t * L4J_TILE, panel, b->weight, k + t * L4J_TILE_STEPS,
                            n + j, l4j_min64(L4J_TILE_STEPS, cols - j));
            }
        }
        return;
    }
    float buffer[PACK_STEPS * L4J_TILE_ROWS];
    for (int64_t j = 0; j < cols; j += L4J_TILE_ROWS) {
        for (int64_t s = 0; s < steps; s += PACK_STEPS) {
            int64_t count = l4j_min64(PACK_STEPS, steps - s), padded = l4j_tiles(count) * L4J_TILE_STEPS;
            gemm_pack_b(buffer, b, k + s, count, n + j, l4j_min64(L4J_TILE_ROWS, cols - j));
            memset(buffer + count * L4J_TILE_ROWS, 0, sizeof(float) * (size_t)((padded - count) * L4J_TILE_ROWS));
            uint16_t *to = out + j / L4J_TILE_ROWS * panel + s / L4J_TILE_STEPS * L4J_TILE;
            for (int64_t t = 0; t < l4j_tiles(count); t++) pack_tile(to + t * L4J_TILE, quads, buffer + t * L4J_TILE);
        }
    }
}

void bf16_pack_b_rows(uint16_t *out, bool quads, const gemm_b *b, const int32_t *rows, int64_t steps, int64_t n,
                      int64_t cols) {
    for (int64_t t = 0; t < l4j_tiles(steps); t++) {
        float buffer[L4J_TILE] = {0};
        int64_t last = l4j_min64((t + 1) * L4J_TILE_STEPS, steps);
        for (int64_t s = t * L4J_TILE_STEPS, end; s < last; s = end) {
            for (end = s + 1; end < last && rows[end] == rows[end - 1] + 1;) end++;
            gemm_pack_b(buffer + (s - t * L4J_TILE_STEPS) * L4J_TILE_ROWS, b, rows[s], end - s, n, cols);
        }
        pack_tile(out + t * L4J_TILE, quads, buffer);
    }
}

void bf16_pack_a_trans(uint16_t *out, bool quads, const gemm_b *b, const int32_t *rows, int64_t steps, int64_t n,
                       int64_t cols) {
    bf16_pack_b_rows(out, quads, b, rows, steps, n, cols);
    for (int64_t t = 0; t < l4j_tiles(steps); t++) { /* pairs stay pairs: their places are those of A too */
        uint32_t turned[16][16];
        pack_transpose(turned, (const uint32_t(*)[16])(out + t * L4J_TILE));
        memcpy(out + t * L4J_TILE, turned, sizeof turned);
    }
}
