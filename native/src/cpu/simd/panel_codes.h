/*
 * Sixteen rows of a quantized weight side by side (l4j_quant.panels): byte j of row i of a panel at j * 16 + i. A decoder takes one unit
 * of 32 columns apart: the codes as signed bytes, [column][row], and the factors and summands of its two halves, a lane for each row. It
 * is the twin of the row's decoder in src/quant, and the value has the same bits: code * d, or fma(code, d, m), whose product is
 * exact wherever the format has an m.
 */
#ifndef L4J_PANEL_CODES_H
#define L4J_PANEL_CODES_H

#include "gemm.h"

#define QUANT_F16(h) _cvtsh_ss(h)
#include "codes16.h"
#include "quant/decode.h"

enum { PANEL_UNIT = 32, PANEL_HALF = 16 * L4J_PANEL /* codes of half a unit */ };

/* How a value comes from its code. */
enum {
    PANEL_SCALE, /* code * d */
    PANEL_SUM,   /* code * d + m */
    PANEL_MAP,   /* m[code] * d */
    PANEL_TWICE, /* (code * d) * m, each step rounded */
    PANEL_E4M3   /* e4m3(code) * d */
};

typedef struct panel_unit {
    const l4j_quant *quant;
    int64_t row, column;                    /* its first ones */
    int64_t group;                          /* of columns whose d is here; -1 at first */
    int8_t zero[L4J_PANEL];                 /* of the group, of formats that have zeros */
    const uint8_t *block;                   /* whose `whole` is here; NULL at first */
    float whole[2][L4J_PANEL];              /* d and dmin of a super-block */
    const int8_t *codes;                    /* `code`, or where they lie in the weight */
    float d[2][L4J_PANEL], m[2][L4J_PANEL]; /* of each half */
    int8_t code[2 * PANEL_HALF] __attribute__((aligned(32)));
} panel_unit;

/* Before the first unit of the panel of row `row`. */
static inline void panel_begin(panel_unit *u, const l4j_quant *quant, int64_t row) {
    u->quant = quant;
    u->row = row;
    u->group = -1;
    u->block = NULL;
    for (int i = 0; i < 2; i++) v16_store(u->whole[i], v16_zero());
}
static inline void panel_scale(panel_unit *u, v16 d) {
    v16_store(u->d[0], d);
    v16_store(u->d[1], d);
}
static inline void panel_add(panel_unit *u, v16 m) {
    v16_store(u->m[0], m);
    v16_store(u->m[1], m);
}

/* ---- bytes of two columns ---- */

typedef __m256i c32;

static inline c32 c32_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void c32_store(int8_t *p, c32 c) { _mm256_store_si256((__m256i *)p, c); }
static inline c32 c32_bits(c32 c, int shift, int mask) {
    if (shift) c = _mm256_srli_epi16(c, shift);
    return _mm256_and_si256(c, _mm256_set1_epi8((char)mask));
}
static inline c32 c32_less(c32 c, int less) { return _mm256_sub_epi8(c, _mm256_set1_epi8((char)less)); }
static inline c32 c32_or(c32 a, c32 b) { return _mm256_or_si256(a, b); }
/* Bits j and j + 1 of each row's byte, worth `worth`, for the columns j and j + 1. */
static inline c32 c32_spread(const uint8_t *bytes, int j, int worth) {
    c32 both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(bytes + j / 8 * L4J_PANEL)));
    c32 bit = _mm256_setr_m128i(_mm_set1_epi8((char)(1 << j % 8)), _mm_set1_epi8((char)(2 << j % 8)));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(both, bit), bit), _mm256_set1_epi8((char)worth));
}
#define PANEL_COLUMNS _Pragma("GCC unroll 8") for (int j = 0; j < 16; j += 2)

/* ---- scales of sixteen rows; at: byte of the block ---- */

static inline __m128i panel_bytes(const uint8_t *block, int at) {
    return _mm_loadu_si128((const __m128i *)(block + at * L4J_PANEL));
}
static inline v16 panel_f16(const uint8_t *block, int at) {
    __m128i low = panel_bytes(block, at), high = panel_bytes(block, at + 1);
    return v16_from_f16(_mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high));
}
/* The fp16 at `d` and at `min` of a super-block, once for all its units. */
static inline void panel_whole(panel_unit *u, const uint8_t *block, int d, int min) {
    if (u->block == block) return;
    u->block = block;
    v16_store(u->whole[0], panel_f16(block, d));
    if (min) v16_store(u->whole[1], panel_f16(block, min));
}
static inline __m128i panel_bits(__m128i c, int shift, int mask) {
    return _mm_and_si128(_mm_srli_epi16(c, shift), _mm_set1_epi8((char)mask));
}

/* ---- GGUF ---- */

static inline void panel_q4_0(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    PANEL_COLUMNS {
        c32 qs = c32_load(block + (2 + j) * L4J_PANEL);
        c32_store(u->code + j * L4J_PANEL, c32_less(c32_bits(qs, 0, 15), 8));
        c32_store(u->code + PANEL_HALF + j * L4J_PANEL, c32_less(c32_bits(qs, 4, 15), 8));
    }
    panel_scale(u, panel_f16(block, 0));
}

static inline void panel_q4_1(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    PANEL_COLUMNS {
        c32 qs = c32_load(block + (4 + j) * L4J_PANEL);
        c32_store(u->code + j * L4J_PANEL, c32_bits(qs, 0, 15));
        c32_store(u->code + PANEL_HALF + j * L4J_PANEL, c32_bits(qs, 4, 15));
    }
    panel_scale(u, panel_f16(block, 0));
    panel_add(u, panel_f16(block, 2));
}

static inline void panel_q5_0(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    PANEL_COLUMNS {
        c32 qs = c32_load(block + (6 + j) * L4J_PANEL);
        c32 low = c32_or(c32_bits(qs, 0, 15), c32_spread(block + 2 * L4J_PANEL, j, 16));
        c32 high = c32_or(c32_bits(qs, 4, 15), c32_spread(block + 4 * L4J_PANEL, j, 16));
        c32_store(u->code + j * L4J_PANEL, c32_less(low, 16));
        c32_store(u->code + PANEL_HALF + j * L4J_PANEL, c32_less(high, 16));
    }
    panel_scale(u, panel_f16(block, 0));
}

static inline void panel_q5_1(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    PANEL_COLUMNS {
        c32 qs = c32_load(block + (8 + j) * L4J_PANEL);
        c32 low = c32_or(c32_bits(qs, 0, 15), c32_spread(block + 4 * L4J_PANEL, j, 16));
        c32 high = c32_or(c32_bits(qs, 4, 15), c32_spread(block + 6 * L4J_PANEL, j, 16));
        c32_store(u->code + j * L4J_PANEL, low);
        c32_store(u->code + PANEL_HALF + j * L4J_PANEL, high);
    }
    panel_scale(u, panel_f16(block, 0));
    panel_add(u, panel_f16(block, 2));
}

static inline void panel_table(panel_unit *u, const int8_t table[16], const uint8_t *qs) {
    c32 entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    PANEL_COLUMNS {
        c32 c = c32_load(qs + j * L4J_PANEL);
        c32_store(u->code + j * L4J_PANEL, _mm256_shuffle_epi8(entries, c32_bits(c, 0, 15)));
        c32_store(u->code + PANEL_HALF + j * L4J_PANEL, _mm256_shuffle_epi8(entries, c32_bits(c, 4, 15)));
    }
}

static inline void panel_iq4_nl(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    panel_table(u, l4j_iq4_nl_table, block + 2 * L4J_PANEL);
    panel_scale(u, panel_f16(block, 0));
}

static inline void panel_mxfp4(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    float d[L4J_PANEL];
    panel_table(u, l4j_e2m1_table, block + L4J_PANEL);
    for (int i = 0; i < L4J_PANEL; i++) d[i] = gguf_e8m0_half(block[i]);
    panel_scale(u, v16_load(d));
}

/* The same of columns whose bits lie at a place that is not known before. */
static inline c32 c32_bits_at(c32 c, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(c, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)mask));
}

static inline void panel_q8_0(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    u->codes = (const int8_t *)block + 2 * L4J_PANEL;
    panel_scale(u, panel_f16(block, 0));
}

/* Factors and minimums of a unit alone: m is what a code's product has too much. */
static inline void panel_negate(panel_unit *u) {
    for (int h = 0; h < 2; h++) v16_store(u->m[h], v16_neg(v16_load(u->m[h])));
}
static inline void panel_q2_k_scales(panel_unit *u, const uint8_t *block, int unit) {
    panel_whole(u, block, 80, 82);
    v16 d = v16_load(u->whole[0]), min = v16_load(u->whole[1]);
    for (int h = 0; h < 2; h++) {
        __m128i s = panel_bytes(block, 2 * unit + h);
        v16_store(u->d[h], v16_mul(d, v16_from_i8(panel_bits(s, 0, 15))));
        v16_store(u->m[h], v16_mul(min, v16_from_i8(panel_bits(s, 4, 15))));
    }
}
static inline void panel_q2_k(panel_unit *u, const uint8_t *block, int unit) {
    const uint8_t *qs = block + (16 + 32 * (unit / 4)) * L4J_PANEL;
    panel_q2_k_scales(u, block, unit);
    panel_negate(u);
    for (int h = 0; h < 2; h++, qs += PANEL_HALF) {
        PANEL_COLUMNS {
            c32 c = c32_load(qs + j * L4J_PANEL);
            c32_store(u->code + h * PANEL_HALF + j * L4J_PANEL, c32_bits_at(c, 2 * (unit % 4), 3));
        }
    }
}

static inline void panel_q3_k_scales(panel_unit *u, const uint8_t *block, int unit) {
    panel_whole(u, block, 108, 0);
    v16 d = v16_load(u->whole[0]);
    for (int h = 0; h < 2; h++) {
        int s = 2 * unit + h;
        __m128i low = panel_bytes(block, 96 + s % 8), high = panel_bytes(block, 104 + s % 4);
        low = s < 8 ? panel_bits(low, 0, 15) : panel_bits(low, 4, 15);
        high = _mm_and_si128(_mm_srl_epi16(high, _mm_cvtsi32_si128(2 * (s / 4))), _mm_set1_epi8(3));
        __m128i scale = _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(high, 4)), _mm_set1_epi8(32));
        v16_store(u->d[h], v16_mul(d, v16_from_i8(scale)));
    }
}
static inline void panel_q3_k(panel_unit *u, const uint8_t *block, int unit) {
    const uint8_t *hmask = block, *qs = block + (32 + 32 * (unit / 4)) * L4J_PANEL;
    panel_q3_k_scales(u, block, unit);
    for (int h = 0; h < 2; h++, qs += PANEL_HALF, hmask += PANEL_HALF) {
        PANEL_COLUMNS {
            c32 c = c32_bits_at(c32_load(qs + j * L4J_PANEL), 2 * (unit % 4), 3);
            c32 bit = c32_bits_at(c32_load(hmask + j * L4J_PANEL), unit, 1);
            c32_store(u->code + h * PANEL_HALF + j * L4J_PANEL, c32_less(c32_or(c, _mm256_slli_epi16(bit, 2)), 4));
        }
    }
}

/* From the twelve bytes at byte 4 of Q4_K and Q5_K. */
static inline void panel_q4_k_scales(panel_unit *u, const uint8_t *block, int j) {
    __m128i scale, min;
    panel_whole(u, block, 0, 2);
    if (j < 4) {
        scale = panel_bits(panel_bytes(block, 4 + j), 0, 63);
        min = panel_bits(panel_bytes(block, 8 + j), 0, 63);
    } else {
        __m128i low = panel_bytes(block, 8 + j);
        scale = _mm_or_si128(panel_bits(low, 0, 15), _mm_slli_epi16(panel_bits(panel_bytes(block, j), 6, 3), 4));
        min = _mm_or_si128(panel_bits(low, 4, 15), _mm_slli_epi16(panel_bits(panel_bytes(block, 4 + j), 6, 3), 4));
    }
    panel_scale(u, v16_mul(v16_load(u->whole[0]), v16_from_i8(scale)));
    panel_add(u, v16_mul(v16_load(u->whole[1]), v16_from_i8(min)));
}

#define panel_q5_k_scales panel_q4_k_scales

static inline void panel_q4_k(panel_unit *u, const uint8_t *block, int unit) {
    const uint8_t *qs = block + (16 + 32 * (unit / 2)) * L4J_PANEL;
    panel_q4_k_scales(u, block, unit);
    panel_negate(u);
    for (int j = 0; j < 2 * PANEL_HALF; j += 32)
        c32_store(u->code + j, c32_bits_at(c32_load(qs + j), 4 * (unit % 2), 15));
}

static inline void panel_q5_k(panel_unit *u, const uint8_t *block, int unit) {
    const uint8_t *qh = block + 16 * L4J_PANEL, *qs = block + (48 + 32 * (unit / 2)) * L4J_PANEL;
    panel_q5_k_scales(u, block, unit);
    panel_negate(u);
    for (int j = 0; j < 2 * PANEL_HALF; j += 32) {
        c32 low = c32_bits_at(c32_load(qs + j), 4 * (unit % 2), 15), high = c32_bits_at(c32_load(qh + j), unit, 1);
        c32_store(u->code + j, c32_or(low, _mm256_slli_epi16(high, 4)));
    }
}

static inline void panel_q6_k_scales(panel_unit *u, const uint8_t *block, int unit) {
    panel_whole(u, block, 208, 0);
    v16 d = v16_load(u->whole[0]);
    for (int h = 0; h < 2; h++) v16_store(u->d[h], v16_mul(d, v16_from_i8(panel_bytes(block, 192 + 2 * unit + h))));
}
static inline void panel_q6_k(panel_unit *u, const uint8_t *block, int unit) {
    int half = unit / 4, part = unit % 4;
    const uint8_t *ql = block + (64 * half + 32 * (part % 2)) * L4J_PANEL, *qh = block + (128 + 32 * half) * L4J_PANEL;
    panel_q6_k_scales(u, block, unit);
    for (int j = 0; j < 2 * PANEL_HALF; j += 32) {
        c32 low = c32_bits_at(c32_load(ql + j), 4 * (part / 2), 15), high = c32_bits_at(c32_load(qh + j), 2 * part, 3);
        c32_store(u->code + j, c32_less(c32_or(low, _mm256_slli_epi16(high, 4)), 32));
    }
}

/* ---- formats whose scales lie apart; the scale of a row and a group of columns ---- */

static inline float panel_absmax(const l4j_quant *q, int64_t n, int64_t group) {
    return quant_absmax(q, n * (q->cols / q->block) + group);
}
static inline float panel_float(const l4j_quant *q, int64_t n, int64_t group) {
    return quant_float(q->scales, q->scale_dtype, n / (q->block_rows ? q->block_rows : 1) * q->scale_stride + group);
}

/* Whether a group begins: d is its scales then. Rows past the end have those of the last one. */
static inline bool panel_group(panel_unit *u, float (*scale)(const l4j_quant *q, int64_t n, int64_t group)) {
    int64_t group = u->column / u->quant->block;
    if (group == u->group) return false;
    u->group = group;
    for (int64_t i = 0; i < L4J_PANEL; i++)
        u->d[0][i] = u->d[1][i] = scale(u->quant, l4j_min64(u->row + i, u->quant->rows - 1), group);
    return true;
}

/* Codes in pairs, the first in the high nibble. */
static inline void panel_nibbles(panel_unit *u, const uint8_t *codes) {
    for (int j = 0; j < 16; j++) {
        __m128i pair = panel_bytes(codes, j);
        _mm_store_si128((__m128i *)(u->code + 2 * j * L4J_PANEL), panel_bits(pair, 4, 15));
        _mm_store_si128((__m128i *)(u->code + (2 * j + 1) * L4J_PANEL), panel_bits(pair, 0, 15));
    }
}
static inline void panel_bitsandbytes(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    panel_nibbles(u, block);
    if (panel_group(u, panel_absmax)) panel_add(u, v16_load(u->quant->map));
}

static inline void panel_int4(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    panel_nibbles(u, block);
    if (panel_group(u, panel_float)) {
        const int8_t *zeros = u->quant->row_zeros + u->group;
        for (int64_t i = 0; i < L4J_PANEL; i++)
            u->zero[i] = zeros[l4j_min64(u->row + i, u->quant->rows - 1) * u->quant->scale_stride];
    }
    __m128i zero = _mm_loadu_si128((const __m128i *)u->zero);
    for (int j = 0; j < 2 * PANEL_HALF; j += L4J_PANEL) {
        __m128i *code = (__m128i *)(u->code + j);
        _mm_store_si128(code, _mm_sub_epi8(_mm_load_si128(code), zero));
    }
}

static inline void panel_int8(panel_unit *u, const uint8_t *block, int unit) {
    (void)unit;
    u->codes = (const int8_t *)block;
    panel_group(u, panel_float);
}
static inline void panel_llm_int8(panel_unit *u, const uint8_t *block, int unit) {
    panel_int8(u, block, unit);
    panel_add(u, v16_set1(L4J_LLM_INT8_STEP));
}
#define panel_fp8 panel_int8

/* Sixteen E4M3: as fp16 they are smaller by 2^8, subnormals too. */
static inline v16 panel_e4m3(const int8_t *code) {
    __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)code));
    __m256i size = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x7F)), 7);
    __m256i sign = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x80)), 8);
    __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x3F80)), _mm256_set1_epi16(0x7E00));
    __m256i h = _mm256_or_si256(_mm256_or_si256(size, sign), nan);
    return v16_mul(v16_from_f16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)), v16_set1(256));
}

static inline __attribute__((always_inline)) v16 panel_value(const int kind, const int8_t *code, v16 d, v16 m) {
    switch (kind) {
    case PANEL_SCALE: return v16_mul(v16_load_i8(code), d);
    case PANEL_SUM: return v16_fma(v16_load_i8(code), d, m);
    case PANEL_MAP: return v16_mul(v16_lookup(m, _mm_loadu_si128((const __m128i *)code)), d);
    case PANEL_TWICE: return v16_mul(v16_mul(v16_load_i8(code), d), m);
    default: return v16_mul(panel_e4m3(code), d);
    }
}
static inline bool panel_has_m(const int kind) { return kind == PANEL_SUM || kind == PANEL_MAP || kind == PANEL_TWICE; }

#endif
