/* The codes of sixteen rows of a GGUF weight, decoded once for a stretch of columns: four columns of each row in a word. */
#ifndef L4J_INT8_CODES_H
#define L4J_INT8_CODES_H

#include "../int8.h"
#include "int8.h"
#include "panel_codes.h"

enum {
    INT8_WORDS = 8,   /* of four columns in a unit */
    INT8_CLAIM = 4,   /* panels that a thread takes at once, at most */
    INT8_AHEAD = 2048 /* bytes of a panel that are fetched ahead */
};

/* What of a format the loops know when they are compiled. */
typedef struct int8_format {
    int values, bytes, group, sum, least, most;
} int8_format;
typedef void (*int8_decoder)(panel_unit *u, const uint8_t *block, int unit);
/* Sixteen rows of one unit whose weight does not lie in panels. Rows past the end repeat the last one: their sums are not stored. */
static inline void int8_unit_of_rows(panel_unit *u, const l4j_weight *w, int64_t n, int64_t k) {
    for (int64_t i = 0; i < L4J_PANEL; i++) {
        l4j_half half[2];
        l4j_decode_halves(&w->quant, w->first_row + l4j_min64(n + i, w->rows - 1), k, half);
        for (int h = 0; h < 2; h++) {
            u->d[h][i] = half[h].d;
            u->m[h][i] = half[h].m;
            for (int s = 0; s < 16; s++) u->code[h * PANEL_HALF + s * L4J_PANEL + i] = half[h].code[s];
        }
    }
}

/* [column][row] becomes [column / 4][row][column % 4]. */
static inline void int8_words(uint8_t *out, const int8_t *codes, int offset) {
    __m128i add = _mm_set1_epi8((char)offset);
    for (int s = 0; s < INT8_WORDS; s++, codes += 64, out += 64) {
        const __m128i *in = (const __m128i *)codes;
        __m128i c0 = _mm_loadu_si128(in), c1 = _mm_loadu_si128(in + 1), c2 = _mm_loadu_si128(in + 2),
                c3 = _mm_loadu_si128(in + 3);
        __m128i low01 = _mm_unpacklo_epi8(c0, c1), high01 = _mm_unpackhi_epi8(c0, c1);
        __m128i low23 = _mm_unpacklo_epi8(c2, c3), high23 = _mm_unpackhi_epi8(c2, c3);
        __m128i rows[4] = {_mm_unpacklo_epi16(low01, low23), _mm_unpackhi_epi16(low01, low23),
                           _mm_unpacklo_epi16(high01, high23), _mm_unpackhi_epi16(high01, high23)};
        for (int i = 0; i < 4; i++) _mm_store_si128((__m128i *)out + i, _mm_add_epi8(rows[i], add));
    }
}

/* Columns [k, k + count) of rows [n, n + 16); `offset` is added to each code. */
static inline __attribute__((always_inline)) void int8_decode(int8_tile *t, const int8_decoder decode,
                                                              const int8_format f, const int offset,
                                                              const l4j_weight *w, int64_t n, int64_t k,
                                                              int64_t count) {
    const uint8_t *panel = (const uint8_t *)w->quant.values + (w->first_row + n) * w->quant.row_bytes;
    int groups = 32 / f.group;
    panel_unit u;
    panel_begin(&u, &w->quant, w->first_row + n);
    for (int64_t unit = 0; unit < count / L4J_INT8_UNIT; unit++) {
        int64_t at = k + unit * L4J_INT8_UNIT;
        u.codes = u.code;
        if (w->quant.panels) {
            const uint8_t *block = panel + at / f.values * f.bytes * L4J_PANEL;
            const int bytes = f.bytes * L4J_PANEL * L4J_INT8_UNIT / f.values;
            for (int l = 0; l < bytes; l += 64)
                _mm_prefetch((const char *)block + INT8_AHEAD + at % f.values / L4J_INT8_UNIT * bytes + l, _MM_HINT_T0);
            decode(&u, block, (int)(at % f.values / L4J_INT8_UNIT));
        } else {
            int8_unit_of_rows(&u, w, n, at);
        }
        int8_words(t->code + unit * L4J_INT8_UNIT * L4J_PANEL, u.codes, offset);
        for (int g = 0; g < groups; g++) {
            v16_store(t->d + (unit * groups + g) * L4J_PANEL, v16_load(u.d[g]));
            if (f.sum) v16_store(t->m + (unit * groups + g) * L4J_PANEL, v16_load(u.m[g]));
        }
    }
}

#endif
