/*
 * Products of activations and weights of whole bytes. The codes of sixteen rows of the weight are decoded once for a stretch of columns,
 * four columns of each row in a word, and meet all rows of activations there; one row of activations meets them as they are decoded.
 */
#include "int8_dot.h"
#include "int8_row_k.h"
#include <string.h>

enum { INT8_ROWS = GEMM_HALF ? 4 : 8 /* of activations at once */ };

/* acc[i][j] continued over `count` columns, from column k of the activations on, for `rows` rows from row m on. */
static inline __attribute__((always_inline)) void int8_run(float acc[INT8_ROWS][L4J_PANEL], const int rows,
                                                           const int8_format f, const int8_tile *t, const int8_rows *x,
                                                           int64_t m, int64_t k, int64_t count) {
    const int groups = 32 / f.group, words = INT8_WORDS / groups, adds = int8_adds(f);
    const int8_t *q = x->q + m * x->columns + k;
    const float *xd = x->d + m * (x->columns / 32) + k / 32;
    const int32_t *xs = x->sum + m * (x->columns / 16) + k / 16;
    const int64_t d_stride = x->columns / 32, s_stride = x->columns / 16;
    const float *part_of[2]; /* d times the sum of a group */
    for (int g = 0; g < groups; g++) part_of[g] = x->part[groups == 1 ? 0 : 1 + g] + m * d_stride + k / 32;
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
                if (f.sum) c[i] = v16_fma(v16_set1(part_of[g][i * d_stride + unit]), add, c[i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) v16_store(acc[i], c[i]);
}

/* ---- one instance for each format ---- */

typedef struct {
    int32_t scheme;
    void (*decode)(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count);
    /* one row and `panels` panels, at most two, which lie so many bytes apart */
    void (*row)(float acc[2][L4J_PANEL], int panels, const uint8_t *first, int64_t bytes, const int8_rows *x);
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
#define INT8_FUNCTIONS(NAME, name, values, bytes, group, sum, least, most)                            \
    static void tile_##name(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count) { \
        const int8_format f = {values, bytes, group, sum, least, most};                               \
        int8_decode(t, panel_##name, f, int8_offset(f), w, n, k, count);                              \
    }                                                                                                 \
    INT8_RUN(name, _one, 1, INT8_BRACED(values, bytes, group, sum, least, most))                      \
    INT8_RUN(name, _many, INT8_ROWS, INT8_BRACED(values, bytes, group, sum, least, most))
L4J_GGUF_FORMATS(INT8_FUNCTIONS)

#define INT8_ROW_FUNCTION(NAME, name, values, bytes, group, sum, least, most)                        \
    static void row_##name(float acc[2][L4J_PANEL], int panels, const uint8_t *first, int64_t panel, \
                           const int8_rows *x) {                                                     \
        const int8_format f = {values, bytes, group, sum, least, most};                              \
        for (int p = 0; p < panels; p++) int8_row(acc[p], panel_##name, f, first + p * panel, x);    \
    }
#define INT8_ROW_K_FUNCTION(NAME, name, values, bytes, group, sum, least, most)                           \
    static __attribute__((noinline)) void sums_##name(b64 *sums, const uint8_t *block, const int8_t *q) { \
        (group == 16 ? k_halves : k_units)(sums, (int8_k)K_##NAME, bytes * L4J_PANEL, block, q);          \
    }                                                                                                     \
    static void row_##name(float acc[2][L4J_PANEL], int panels, const uint8_t *first, int64_t panel,      \
                           const int8_rows *x) {                                                          \
        const int8_format f = {values, bytes, group, sum, least, most};                                   \
        if (panels == 2) {                                                                                \
            int8_row_k(acc, 2, sums_##name, panel_##name##_scales, f, first, panel, x);                   \
        } else {                                                                                          \
            int8_row_k(acc, 1, sums_##name, panel_##name##_scales, f, first, panel, x);                   \
        }                                                                                                 \
    }
L4J_GGUF_SMALL_FORMATS(INT8_ROW_FUNCTION)
L4J_GGUF_K_FORMATS(INT8_ROW_K_FUNCTION)

static const int8_instance *int8_of(const l4j_weight *w) {
#define INT8_INSTANCE(NAME, name, values, bytes, group, sum, least, most) \
    {L4J_SCHEME_GGUF_##NAME, tile_##name, row_##name, run_##name##_one, run_##name##_many},
    static const int8_instance all[] = {L4J_GGUF_FORMATS(INT8_INSTANCE)};
    int i = 0;
    while (all[i].scheme != w->scheme) i++;
    return &all[i];
}

/* Columns [n, n + 32) of a C of one row, as far as there are any. */
static void int8_panels(const int8_instance *f, const int8_rows *x, const l4j_weight *w, int64_t n, const float *start,
                        float *c) {
    float acc[2][L4J_PANEL];
    int panels = n + L4J_PANEL < w->rows ? 2 : 1;
    const uint8_t *first = (const uint8_t *)w->quant.values + (w->first_row + n) * w->quant.row_bytes;
    for (int p = 0; p < panels; p++) {
        int64_t at = n + p * L4J_PANEL;
        v16_store(acc[p], start ? gemm_load(start + at, (int)l4j_min64(L4J_PANEL, w->rows - at)) : v16_zero());
    }
    f->row(acc, panels, first, w->quant.row_bytes * L4J_PANEL, x);
    for (int p = 0; p < panels; p++) {
        int64_t at = n + p * L4J_PANEL;
        gemm_store(c + at, v16_load(acc[p]), (int)l4j_min64(L4J_PANEL, w->rows - at));
    }
}

/* Columns [n, n + 16) of C, as far as there are any. */
static void int8_panel(const int8_instance *f, const int8_rows *x, int64_t rows, const l4j_weight *w, int64_t n,
                       const float *start, float *c, int64_t ldc, int8_tile *own) {
    int live = (int)l4j_min64(L4J_PANEL, w->rows - n);
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
    const bool row = rows == 1 && w->quant.panels;
    const int64_t unit = row ? 2 * L4J_PANEL : L4J_PANEL;
    int64_t taken = gemm_begin(team), begin, end;
    while (gemm_claim(team, &taken, (w->rows + unit - 1) / unit, INT8_CLAIM, &begin, &end)) {
        for (int64_t n = begin * unit; n < end * unit && row; n += unit) int8_panels(f, x, w, n, start, c);
        for (int64_t n = begin * unit; n < end * unit && !row; n += unit)
            int8_panel(f, x, rows, w, n, start, c, ldc, own);
    }
}
