/*
 * Products of activations and weights of whole bytes. The codes of sixteen rows of the weight are decoded once for a stretch of columns,
 * four columns of each row in a word, and meet all rows of activations there. Codes are made unsigned by an offset, which is taken
 * off again as offset * (sum of the activations), so that two products of bytes fit in 16 bits, and so do several of their sums; of
 * formats whose codes need eight bits the sign goes to the activation instead.
 */
#include "int8.h"
#include "../int8.h"
#include "panel_codes.h"

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

enum {
    INT8_ROWS = GEMM_HALF ? 4 : 8, /* of activations at once */
    INT8_WORDS = 8,                /* of four columns in a unit */
    INT8_CLAIM = 4,                /* panels that a thread takes at once, at most */
    INT8_AHEAD = 2048              /* bytes of a panel that are fetched ahead */
};

#ifndef INT8_VNNI
void int8_layout(l4j_arena *arena, int64_t rows, int64_t columns, int8_rows *out) {
    *out = (int8_rows){.columns = columns,
                       .q = l4j_take(arena, (size_t)(rows * columns)),
                       .d = l4j_take(arena, sizeof(float) * (size_t)(rows * (columns / 32))),
                       .sum = l4j_take(arena, sizeof(int32_t) * (size_t)(rows * (columns / 16)))};
}

/* The steps of l4j_int8_quantize. */
void int8_quantize(const int8_rows *rows, int64_t m, const float *x, int64_t stride) {
    int8_t *q = rows->q + m * rows->columns;
    float *d = rows->d + m * (rows->columns / 32);
    int32_t *sum = rows->sum + m * (rows->columns / 16);
    for (int64_t k = 0; k < rows->columns; k += L4J_INT8_UNIT, q += L4J_INT8_UNIT, d++, sum += 2) {
        float gathered[L4J_INT8_UNIT];
        for (int i = 0; i < L4J_INT8_UNIT && stride != 1; i++) gathered[i] = x[(k + i) * stride];
        const float *in = stride == 1 ? x + k : gathered;
        v16 low = v16_load(in), high = v16_load(in + L4J_PANEL), most = v16_max(v16_abs(low), v16_abs(high));
        bool finite = v16_all_within(low, INFINITY) && v16_all_within(high, INFINITY);
        float max = finite ? v16_hmax(most) : 0;
        bool live = max >= L4J_INT8_LEAST;
        v16 inverse = v16_set1(live ? 127.0f / max : 0.0f);
        *d = finite ? (live ? max / 127.0f : 0.0f) : NAN;
        if (!finite) low = high = v16_zero();
        __m128i bytes[2] = {v16_to_i8(v16_mul(low, inverse)), v16_to_i8(v16_mul(high, inverse))};
        for (int h = 0; h < 2; h++) {
            _mm_storeu_si128((__m128i *)(q + h * L4J_PANEL), bytes[h]);
            __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), bytes[h]);
            __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
            fours = _mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0x4E));
            sum[h] = _mm_cvtsi128_si32(_mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0xB1)));
        }
    }
}

int8_product_function int8_product_of(const l4j_device *device) {
#ifdef __AVX512F__
    if (device->vnni) return l4j_avx512_vnni_int8_product;
#endif
    (void)device;
    return int8_product;
}
#endif

/* What of a format the loops below know when they are compiled. */
typedef struct int8_format {
    int values, bytes, group, sum, least, most;
} int8_format;
typedef void (*int8_decoder)(panel_unit *u, const uint8_t *block, int unit);
static inline bool int8_is_signed(const int8_format f) { return !INT8_DOT && 254 * (f.most - f.least) > INT16_MAX; }
/* Words whose products may be added in 16 bits: two bytes times 127 each. */
static inline int int8_adds(const int8_format f) {
    int fit = int8_is_signed(f) || INT8_DOT ? 1 : INT16_MAX / (254 * (f.most - f.least)), words = f.group / 4;
    fit = fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
    return fit < words ? fit : words;
}

/* ---- the codes of a panel ---- */

/* Sixteen rows of one unit whose weight does not lie in panels. Rows past the end repeat the last one: their sums are not stored. */
static void int8_unit_of_rows(panel_unit *u, const l4j_weight *w, int64_t n, int64_t k) {
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

static inline __attribute__((always_inline)) void int8_decode(int8_tile *t, const int8_decoder decode,
                                                              const int8_format f, const l4j_weight *w, int64_t n,
                                                              int64_t k, int64_t count) {
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
        int8_words(t->code + unit * L4J_INT8_UNIT * L4J_PANEL, u.codes, int8_is_signed(f) ? 0 : -f.least);
        for (int g = 0; g < groups; g++) {
            v16_store(t->d + (unit * groups + g) * L4J_PANEL, v16_load(u.d[g]));
            if (f.sum) v16_store(t->m + (unit * groups + g) * L4J_PANEL, v16_load(u.m[g]));
        }
    }
}

/* ---- products ---- */

/* acc[i][j] continued over `count` columns, from column k of the activations on, for `rows` rows from row m on. */
static inline __attribute__((always_inline)) void int8_run(float acc[INT8_ROWS][L4J_PANEL], const int rows,
                                                           const int8_format f, const int8_tile *t, const int8_rows *x,
                                                           int64_t m, int64_t k, int64_t count) {
    const int groups = 32 / f.group, words = INT8_WORDS / groups, adds = int8_adds(f);
    const int8_t *q = x->q + m * x->columns + k;
    const float *xd = x->d + m * (x->columns / 32) + k / 32;
    const int32_t *xs = x->sum + m * (x->columns / 16) + k / 16;
    const int64_t d_stride = x->columns / 32, s_stride = x->columns / 16;
    v16 c[INT8_ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) c[i] = v16_load(acc[i]);
    const uint8_t *code = t->code;
    for (int64_t unit = 0; unit < count / L4J_INT8_UNIT; unit++, q += L4J_INT8_UNIT, xd++, xs += 2) {
#pragma GCC unroll 2
        for (int g = 0; g < groups; g++) {
            b64 whole[INT8_ROWS], part[INT8_ROWS];
#pragma GCC unroll 8
            for (int from = 0; from < words; from += adds) {
#pragma GCC unroll 8
                for (int s = from; s < from + adds; s++, code += 64) {
                    b64 w = b64_load(code);
                    b64 magnitude = int8_is_signed(f) ? b64_abs8(w) : w;
#pragma GCC unroll 8
                    for (int i = 0; i < rows; i++) {
                        int32_t four;
                        memcpy(&four, q + i * x->columns + (g * words + s) * 4, 4);
                        b64 a = b64_set1(four);
                        if (INT8_DOT) {
                            part[i] = int8_dot(s ? part[i] : b64_set1(0), w, a);
                            continue;
                        }
                        b64 pairs = b64_pairs(magnitude, int8_is_signed(f) ? b64_sign8(a, w) : a);
                        part[i] = s == from ? pairs : b64_add16(part[i], pairs);
                    }
                }
#pragma GCC unroll 8
                for (int i = 0; i < rows; i++)
                    whole[i] = INT8_DOT ? part[i] : from ? b64_add32(whole[i], b64_widen(part[i])) : b64_widen(part[i]);
            }
            v16 d = v16_load(t->d + (unit * groups + g) * L4J_PANEL);
            v16 add = f.sum ? v16_load(t->m + (unit * groups + g) * L4J_PANEL) : v16_zero();
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                int32_t sum = groups == 1 ? xs[i * s_stride] + xs[i * s_stride + 1] : xs[i * s_stride + g];
                if (!int8_is_signed(f) && f.least) whole[i] = b64_add32(whole[i], b64_set1(f.least * sum));
                c[i] = v16_fma(v16_mul(v16_set1(xd[i * d_stride]), d), v16_from_i32(whole[i]), c[i]);
                if (f.sum) c[i] = v16_fma(v16_set1(xd[i * d_stride] * (float)sum), add, c[i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) v16_store(acc[i], c[i]);
}

/* ---- one row ---- */

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

/* Products of one group of columns, whose codes are used as they come: sums of sixteen rows. */
static inline __attribute__((always_inline)) b64 int8_group(const int8_format f, const int8_t *codes, const int8_t *q) {
    const int steps = f.group / 8, adds = int8_adds(f) < steps ? int8_adds(f) : steps;
    const __m256i split = _mm256_setr_epi8(0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7, 1, 3,
                                           5, 7, 1, 3, 5, 7);
    const __m256i one = _mm256_set1_epi16(1);
    __m256i whole[4], part[4];
#pragma GCC unroll 4
    for (int s = 0; s < steps; s++, codes += 8 * L4J_PANEL, q += 8) {
        __m256i w[4], x = _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)q)), split);
        int8_eight(w, codes, int8_is_signed(f) ? 0 : -f.least);
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
    __m256i rows[2];
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_permute2x128_si256(whole[2 * i], whole[2 * i + 1], 0x20);
        rows[i] = _mm256_add_epi32(even, _mm256_permute2x128_si256(whole[2 * i], whole[2 * i + 1], 0x31));
    }
    return b64_join(rows[0], rows[1]);
}

/* acc[j] continued over all columns of a weight in panels, for row 0: its codes are not kept. */
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
            v16 d = v16_set1(x->d[k / L4J_INT8_UNIT + unit]);
#pragma GCC unroll 2
            for (int g = 0; g < groups; g++) {
                b64 whole = int8_group(f, u.codes + g * PANEL_HALF, q + g * 16);
                int32_t sum = groups == 1 ? sums[0] + sums[1] : sums[g];
                if (!int8_is_signed(f) && f.least) whole = b64_add32(whole, b64_set1(f.least * sum));
                c = v16_fma(v16_mul(d, v16_load(u.d[g])), v16_from_i32(whole), c);
                if (f.sum) c = v16_fma(v16_mul(d, v16_set1((float)sum)), v16_load(u.m[g]), c);
            }
        }
    }
    v16_store(acc, c);
}

/* ---- one instance for each format ---- */

typedef struct {
    int32_t scheme;
    void (*decode)(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count);
    void (*row)(float acc[L4J_PANEL], const uint8_t *panel, const int8_rows *x);
    void (*one)(float acc[INT8_ROWS][L4J_PANEL], const int8_tile *t, const int8_rows *x, int64_t m, int64_t k,
                int64_t count);
    void (*many)(float acc[INT8_ROWS][L4J_PANEL], const int8_tile *t, const int8_rows *x, int64_t m, int64_t k,
                 int64_t count);
} int8_instance;

#define INT8_RUN(name, suffix, rows, format)                                                                           \
    static void run_##name##suffix(float acc[INT8_ROWS][L4J_PANEL], const int8_tile *t, const int8_rows *x, int64_t m, \
                                   int64_t k, int64_t count) {                                                         \
        int8_run(acc, rows, (int8_format)format, t, x, m, k, count);                                                   \
    }
#define INT8_BRACED(...) \
    { __VA_ARGS__ }
#define INT8_FUNCTIONS(NAME, name, values, bytes, group, sum, least, most)                                   \
    static void tile_##name(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count) {        \
        int8_decode(t, panel_##name, (int8_format){values, bytes, group, sum, least, most}, w, n, k, count); \
    }                                                                                                        \
    static void row_##name(float acc[L4J_PANEL], const uint8_t *panel, const int8_rows *x) {                 \
        int8_row(acc, panel_##name, (int8_format){values, bytes, group, sum, least, most}, panel, x);        \
    }                                                                                                        \
    INT8_RUN(name, _one, 1, INT8_BRACED(values, bytes, group, sum, least, most))                             \
    INT8_RUN(name, _many, INT8_ROWS, INT8_BRACED(values, bytes, group, sum, least, most))
L4J_GGUF_FORMATS(INT8_FUNCTIONS)

static const int8_instance *int8_of(const l4j_weight *w) {
#define INT8_INSTANCE(NAME, name, values, bytes, group, sum, least, most) \
    {L4J_SCHEME_GGUF_##NAME, tile_##name, row_##name, run_##name##_one, run_##name##_many},
    static const int8_instance all[] = {L4J_GGUF_FORMATS(INT8_INSTANCE)};
    int i = 0;
    while (all[i].scheme != w->scheme) i++;
    return &all[i];
}

/* Columns [n, n + 16) of C, as far as there are any. */
static void int8_panel(const int8_instance *f, const int8_rows *x, int64_t rows, const l4j_weight *w, int64_t n,
                       const float *start, float *c, int64_t ldc, int8_tile *own) {
    int live = (int)l4j_min64(L4J_PANEL, w->rows - n);
    if (rows == 1 && w->quant.panels) {
        float acc[L4J_PANEL];
        v16_store(acc, start ? gemm_load(start + n, live) : v16_zero());
        f->row(acc, (const uint8_t *)w->quant.values + (w->first_row + n) * w->quant.row_bytes, x);
        gemm_store(c + n, v16_load(acc), live);
        return;
    }
    for (int64_t k = 0, count; k < w->cols; k += count) {
        count = l4j_min64(INT8_COLUMNS, w->cols - k);
        f->decode(own, w, n, k, count);
        for (int64_t m = 0, here; m < rows; m += here) {
            float acc[INT8_ROWS][L4J_PANEL];
            here = m + INT8_ROWS <= rows ? INT8_ROWS : 1;
            for (int64_t i = 0; i < here; i++) {
                const float *from = k ? c + (m + i) * ldc + n : start ? start + n : NULL;
                v16_store(acc[i], from ? gemm_load(from, live) : v16_zero());
            }
            (here == 1 ? f->one : f->many)(acc, own, x, m, k, count);
            for (int64_t i = 0; i < here; i++) gemm_store(c + (m + i) * ldc + n, v16_load(acc[i]), live);
        }
    }
}

void int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start, float *c,
                  int64_t ldc, int8_tile *own) {
    const int8_instance *f = int8_of(w);
    int64_t taken = gemm_begin(team), begin, end;
    while (gemm_claim(team, &taken, gemm_ceil(w->rows, L4J_PANEL) / L4J_PANEL, INT8_CLAIM, &begin, &end)) {
        for (int64_t p = begin; p < end; p++) int8_panel(f, x, rows, w, p * L4J_PANEL, start, c, ldc, own);
    }
}
