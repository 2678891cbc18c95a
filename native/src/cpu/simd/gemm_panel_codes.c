/*
 * Quantized weights in panels: decoded to fp32 for packing, and for one or two rows of A multiplied while they are decoded, so that
 * the stored bytes pass through the core once and no value of the weight goes back to memory.
 */
#include "panel_codes.h"

enum {
    CODES_SIDE =
        GEMM_HALF ? 2 : 4, /* panels side by side: a chain of fused multiply-adds waits four cycles between two steps */
    CODES_AHEAD = 2048     /* bytes of a panel that are fetched ahead */
};

typedef void (*panel_decoder)(panel_unit *u, const uint8_t *block, int unit);

/* Where sixteen rows lie: blocks of `values` columns in `bytes` bytes of each row. */
typedef struct panel_format {
    int64_t values, bytes;
} panel_format;

/* The panel of row `row`, a multiple of 16. */
static inline const uint8_t *panel_at(const l4j_quant *q, int64_t row) {
    return (const uint8_t *)q->values + row * q->row_bytes;
}

/* Columns [k, k + count) of a panel to out[column][16]; k and count are multiples of 16. */
static inline __attribute__((always_inline)) void panel_store(float *out, const panel_decoder decode, const int kind,
                                                              const panel_format f, const l4j_quant *q, int64_t row,
                                                              int64_t k, int64_t count) {
    const uint8_t *panel = panel_at(q, row);
    panel_unit u;
    panel_begin(&u, q, row);
    for (int64_t end = k + count, unit = k / PANEL_UNIT * PANEL_UNIT; unit < end; unit += PANEL_UNIT) {
        const uint8_t *block = panel + unit / f.values * f.bytes * L4J_PANEL;
        u.codes = u.code;
        u.column = unit;
        decode(&u, block, (int)(unit % f.values / PANEL_UNIT));
        for (int h = 0; h < 2; h++) {
            int64_t from = unit + h * L4J_PANEL;
            if (from < k || from >= end) continue;
            const int8_t *code = u.codes + h * PANEL_HALF;
            v16 d = v16_load(u.d[h]), m = panel_has_m(kind) ? v16_load(u.m[h]) : v16_zero();
            for (int s = 0; s < L4J_PANEL; s++, code += L4J_PANEL, out += L4J_PANEL)
                v16_store(out, panel_value(kind, code, d, m));
        }
    }
}

/* sums[i][p * 16 + j] = fma(a[s][i], W[row + p * 16 + j, s], …) for all columns s. */
static inline __attribute__((always_inline)) void panel_rows(gemm_row_sums sums, const int rows, const int side,
                                                             const panel_decoder decode, const int kind,
                                                             const panel_format f, const l4j_quant *q, int64_t row,
                                                             const float *a) {
    const uint8_t *panel = panel_at(q, row);
    const int64_t stride = q->row_bytes * L4J_PANEL;
    const int64_t line = 64, bytes = f.bytes * L4J_PANEL * PANEL_UNIT / f.values;
    v16 acc[2][CODES_SIDE];
    panel_unit u[CODES_SIDE];
    for (int p = 0; p < side; p++) panel_begin(&u[p], q, row + p * L4J_PANEL);
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int p = 0; p < side; p++) acc[i][p] = v16_load(sums[i] + p * L4J_PANEL);
    }
    for (int64_t k = 0; k < q->cols; k += f.values, panel += f.bytes * L4J_PANEL) {
        for (int unit = 0; unit < f.values / PANEL_UNIT; unit++) {
#pragma GCC unroll 4
            for (int p = 0; p < side; p++) {
                const uint8_t *block = panel + p * stride;
                for (int64_t l = 0; l < bytes; l += line)
                    _mm_prefetch((const char *)block + unit * bytes + CODES_AHEAD + l, _MM_HINT_T0);
                u[p].codes = u[p].code;
                u[p].column = k + unit * PANEL_UNIT;
                decode(&u[p], block, unit);
            }
            for (int h = 0; h < 2; h++) {
                v16 d[CODES_SIDE], m[CODES_SIDE];
#pragma GCC unroll 4
                for (int p = 0; p < side; p++) {
                    d[p] = v16_load(u[p].d[h]);
                    m[p] = panel_has_m(kind) ? v16_load(u[p].m[h]) : v16_zero();
                }
#pragma GCC unroll 4
                for (int s = 0; s < L4J_PANEL; s++, a += rows) {
#pragma GCC unroll 4
                    for (int p = 0; p < side; p++) {
                        v16 w = panel_value(kind, u[p].codes + h * PANEL_HALF + s * L4J_PANEL, d[p], m[p]);
#pragma GCC unroll 2
                        for (int i = 0; i < rows; i++) acc[i][p] = v16_fma(v16_set1(a[i]), w, acc[i][p]);
                    }
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int p = 0; p < side; p++) v16_store(sums[i] + p * L4J_PANEL, acc[i][p]);
    }
}

/* ---- one instance for each format ---- */

/* Those whose scales lie apart: scheme, decoder, bytes of 32 columns, how a value comes from its code. */
#define PANEL_OTHERS(F)                               \
    F(L4J_SCHEME_NF4, bitsandbytes, 16, PANEL_MAP)    \
    F(L4J_INT4_ROWS, int4, 16, PANEL_SCALE)           \
    F(L4J_SCHEME_INT8, int8, 32, PANEL_SCALE)         \
    F(L4J_SCHEME_LLM_INT8, llm_int8, 32, PANEL_TWICE) \
    F(L4J_SCHEME_FP8_E4M3, fp8, 32, PANEL_E4M3)

typedef struct {
    int32_t scheme;
    void (*store)(float *out, const l4j_quant *q, int64_t row, int64_t k, int64_t count);
    void (*rows[2][2])(gemm_row_sums sums, const l4j_quant *q, int64_t row, const float *a);
} panel_instance;

#define PANEL_ROWS(name, suffix, rows, side, values, bytes, kind)                                          \
    static void rows_##name##suffix(gemm_row_sums sums, const l4j_quant *q, int64_t row, const float *a) { \
        panel_rows(sums, rows, side, panel_##name, kind, (panel_format){values, bytes}, q, row, a);        \
    }
#define PANEL_FUNCTIONS(name, values, bytes, kind)                                                    \
    static void store_##name(float *out, const l4j_quant *q, int64_t row, int64_t k, int64_t count) { \
        panel_store(out, panel_##name, kind, (panel_format){values, bytes}, q, row, k, count);        \
    }                                                                                                 \
    PANEL_ROWS(name, _1, 1, 1, values, bytes, kind)                                                   \
    PANEL_ROWS(name, _1_side, 1, CODES_SIDE, values, bytes, kind)                                     \
    PANEL_ROWS(name, _2, 2, 1, values, bytes, kind)                                                   \
    PANEL_ROWS(name, _2_side, 2, CODES_SIDE, values, bytes, kind)
#define PANEL_GGUF(NAME, name, values, bytes, group, sum, least, most) \
    PANEL_FUNCTIONS(name, values, bytes, sum ? PANEL_SUM : PANEL_SCALE)
#define PANEL_OTHER(scheme, name, bytes, kind) PANEL_FUNCTIONS(name, PANEL_UNIT, bytes, kind)
L4J_GGUF_FORMATS(PANEL_GGUF)
PANEL_OTHERS(PANEL_OTHER)

static const panel_instance *panel_of(const l4j_quant *q) {
#define PANEL_INSTANCE(scheme, name, bytes, kind) \
    {scheme, store_##name, {{rows_##name##_1, rows_##name##_1_side}, {rows_##name##_2, rows_##name##_2_side}}},
#define PANEL_GGUF_INSTANCE(NAME, name, values, bytes, group, sum, least, most) \
    PANEL_INSTANCE(L4J_SCHEME_GGUF_##NAME, name, bytes, 0)
    static const panel_instance all[] = {L4J_GGUF_FORMATS(PANEL_GGUF_INSTANCE) PANEL_OTHERS(PANEL_INSTANCE)};
    int32_t scheme = q->scheme == L4J_SCHEME_FP4 ? L4J_SCHEME_NF4 : q->scheme;
    int i = 0;
    while (all[i].scheme != scheme) i++;
    return &all[i];
}

void gemm_decode_panel(float *out, const l4j_weight *w, int64_t n, int64_t k, int64_t count) {
    panel_of(&w->quant)->store(out, &w->quant, w->first_row + n, k, count);
}

void gemm_row_codes(gemm_row_sums sums, int64_t rows, int panels, const l4j_weight *w, int64_t n, const float *a) {
    const panel_instance *instance = panel_of(&w->quant);
    for (int p = 0, side; p < panels; p += side) {
        side = panels - p < CODES_SIDE ? 1 : CODES_SIDE;
        gemm_row_sums *at = (gemm_row_sums *)(sums[0] + p * L4J_PANEL); /* sums of one row lie side by side */
        instance->rows[rows - 1][side > 1](*at, &w->quant, w->first_row + n + p * L4J_PANEL, a);
    }
}
