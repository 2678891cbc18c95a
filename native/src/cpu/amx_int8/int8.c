/*
 * Products of bytes by TDPBSSD: sixteen rows of activations and a panel of the weight, columns that share a scale at once. The sums go
 * through memory, since tile registers have no other way out: four of them there while the four before become fp32.
 */
#ifndef L4J_TIER
#define L4J_TIER amx_int8
#endif
#include "../amx_bf16/tmul.h"
#include "../simd/int8_codes.h"

enum { SUMS = 4 };
typedef int32_t amx_sums[SUMS][L4J_PANEL][L4J_PANEL];

/* Registers 0 to 3 are sums, 4 and 5 activations, 6 and 7 codes. A group of columns is a row of the one and four of the other's bytes. */
static void amx_begin(int group) {
    tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = t == 4 || t == 5 ? (uint16_t)group : 64;
        config.rows[t] = t >= 6 ? (uint8_t)(group / 4) : 16;
    }
    tile_configure(&config);
}

#define AMX_SUM(i, a, b)                                                                                  \
    if (i < count) {                                                                                      \
        tile_zero(i);                                                                                     \
        tile_load(a, q + (step + i) / groups * L4J_PANEL * L4J_INT8_UNIT + (step + i) % groups * f.group, \
                  L4J_INT8_UNIT);                                                                         \
        tile_load(b, code + (step + i) * f.group * L4J_PANEL, 64);                                        \
        tile_multiply_bytes(i, a, b);                                                                     \
        tile_store(i, sums[i], 64);                                                                       \
    }

/* The sums of groups [step, step + count), count ≤ SUMS, of the stretch whose activations and codes are q and code. */
static inline __attribute__((always_inline)) void amx_four(amx_sums sums, const int8_format f, const int8_t *q,
                                                           const uint8_t *code, int64_t step, int64_t count) {
    const int64_t groups = L4J_INT8_UNIT / f.group;
    AMX_SUM(0, 4, 6)
    AMX_SUM(1, 5, 7)
    AMX_SUM(2, 4, 6)
    AMX_SUM(3, 5, 7)
}

/* c[i] continued over the sums of groups [step, step + count). */
static inline __attribute__((always_inline)) void amx_scale(v16 c[L4J_PANEL], const int8_format f, const int8_tile *t,
                                                            const int8_rows *x, int64_t at, amx_sums sums, int64_t step,
                                                            int64_t count) {
    const int64_t groups = L4J_INT8_UNIT / f.group;
    for (int64_t s = 0; s < count; s++) {
        int64_t unit = at + (step + s) / groups * L4J_PANEL, g = (step + s) % groups;
        const float *xd = x->d + unit, *part = x->part[groups == 1 ? 0 : 1 + g] + unit;
        v16 d = v16_load(t->d + (step + s) * L4J_PANEL);
        v16 add = f.sum ? v16_load(t->m + (step + s) * L4J_PANEL) : v16_zero();
#pragma GCC unroll 16
        for (int i = 0; i < L4J_PANEL; i++) {
            v16 whole = v16_from_i32(b64_load((const uint8_t *)sums[s][i]));
            c[i] = v16_fma(v16_mul(v16_set1(xd[i]), d), whole, c[i]);
            if (f.sum) c[i] = v16_fma(v16_set1(part[i]), add, c[i]);
        }
    }
}

/* Rows [m, m + 16) of C, as far as there are `rows`, and its columns [n, n + cols): continued over columns [k, k + count) of x. */
static inline __attribute__((always_inline)) void amx_run(const int8_format f, const int8_tile *t, const int8_rows *x,
                                                          int64_t m, int rows, int64_t k, int64_t count,
                                                          const float *start, int64_t start_stride, float *out,
                                                          int64_t ldc, int cols) {
    _Alignas(64) amx_sums sums[2];
    v16 c[L4J_PANEL];
    int64_t at = (m * (x->columns / L4J_INT8_UNIT) + k / L4J_INT8_UNIT * L4J_PANEL), steps = count / f.group;
    const int8_t *q = x->q + at * L4J_INT8_UNIT;
#pragma GCC unroll 16
    for (int i = 0; i < L4J_PANEL; i++)
        c[i] = start ? gemm_load(start + l4j_min64(i, rows - 1) * start_stride, cols) : v16_zero();
    amx_four(sums[0], f, q, t->code, 0, l4j_min64(SUMS, steps));
    for (int64_t step = 0, turn = 0; step < steps; step += SUMS, turn ^= 1) {
        int64_t next = step + SUMS;
        if (next + SUMS <= steps) {
            amx_four(sums[turn ^ 1], f, q, t->code, next, SUMS);
        } else if (next < steps) {
            amx_four(sums[turn ^ 1], f, q, t->code, next, steps - next);
        }
        amx_scale(c, f, t, x, at, sums[turn], step, l4j_min64(SUMS, steps - step));
    }
#pragma GCC unroll 16
    for (int i = 0; i < L4J_PANEL; i++) {
        if (i < rows) gemm_store(out + i * ldc, c[i], cols);
    }
}

/* ---- one instance for each format ---- */

typedef struct {
    int32_t scheme;
    int group;
    void (*decode)(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count);
    void (*run)(const int8_tile *t, const int8_rows *x, int64_t m, int rows, int64_t k, int64_t count,
                const float *start, int64_t start_stride, float *out, int64_t ldc, int cols);
} amx_instance;

#define AMX_FUNCTIONS(NAME, name, values, bytes, group, sum, least, most)                                            \
    static void codes_##name(int8_tile *t, const l4j_weight *w, int64_t n, int64_t k, int64_t count) {               \
        int8_decode(t, panel_##name, (int8_format){values, bytes, group, sum, least, most}, 0, w, n, k, count);      \
    }                                                                                                                \
    static void run_##name(const int8_tile *t, const int8_rows *x, int64_t m, int rows, int64_t k, int64_t count,    \
                           const float *start, int64_t start_stride, float *out, int64_t ldc, int cols) {            \
        amx_run((int8_format){values, bytes, group, sum, least, most}, t, x, m, rows, k, count, start, start_stride, \
                out, ldc, cols);                                                                                     \
    }
L4J_GGUF_FORMATS(AMX_FUNCTIONS)

static const amx_instance *amx_of(const l4j_weight *w) {
#define AMX_INSTANCE(NAME, name, values, bytes, group, sum, least, most) \
    {L4J_SCHEME_GGUF_##NAME, group, codes_##name, run_##name},
    static const amx_instance all[] = {L4J_GGUF_FORMATS(AMX_INSTANCE)};
    int i = 0;
    while (all[i].scheme != w->scheme) i++;
    return &all[i];
}

/* Columns [n, n + 16) of C, as far as there are any. */
static void amx_panel(const amx_instance *f, const int8_rows *x, int64_t rows, const l4j_weight *w, int64_t n,
                      const float *start, float *c, int64_t ldc, int8_tile *own) {
    int cols = (int)l4j_min64(L4J_PANEL, w->rows - n);
    for (int64_t k = 0, count; k < w->cols; k += count) {
        count = l4j_min64(INT8_COLUMNS, w->cols - k);
        f->decode(own, w, n, k, count);
        for (int64_t m = 0; m < rows; m += L4J_PANEL) {
            float *out = c + m * ldc + n;
            f->run(own, x, m, (int)l4j_min64(L4J_PANEL, rows - m), k, count,
                   k       ? out
                   : start ? start + n
                           : NULL,
                   k ? ldc : 0, out, ldc, cols);
        }
    }
}

void l4j_amx_int8_product(gemm_team *team, const int8_rows *x, int64_t rows, const l4j_weight *w, const float *start,
                          float *c, int64_t ldc, int8_tile *own) {
    const amx_instance *f = amx_of(w);
    int64_t taken = gemm_begin(team), begin, end;
    amx_begin(f->group);
    while (gemm_claim(team, &taken, gemm_ceil(w->rows, L4J_PANEL) / L4J_PANEL, INT8_CLAIM, &begin, &end)) {
        for (int64_t p = begin; p < end; p++) amx_panel(f, x, rows, w, p * L4J_PANEL, start, c, ldc, own);
    }
    tile_release();
}
