/*
 * Products of one or two rows with a weight: generation, one token at a time. Each value of the weight is used once or twice, so that
 * nothing is packed: panels feed the accumulators as they lie in memory, rows are transposed in registers on the way. Several panels
 * go side by side, because one chain of fused multiply-adds waits four cycles between two steps.
 */
#include "gemm.h"
#include "transpose8.h"

enum {
    ROW_COLUMNS = GEMM_ROW_COLUMNS,       /* columns of C at once */
    ROW_PANELS = ROW_COLUMNS / L4J_PANEL, /* side by side */
    ROW_AHEAD =
        512 /* bytes of a panel, columns of a row that are fetched ahead: many streams, which end at every page */
};

static inline __attribute__((always_inline)) v16 row_load16(const int32_t dtype, const char *at) {
    if (dtype == L4J_F32) return v16_load((const float *)at);
    return dtype == L4J_BF16 ? v16_load_bf16((const uint16_t *)at) : v16_load_f16((const uint16_t *)at);
}

/* sums[i][p * 16 + j] = fma(a[s][i], b[p][s][j], …) for s = 0..k-1; panels are `stride` elements apart. */
static inline __attribute__((always_inline)) void row_panels(gemm_row_sums sums, const int rows, const int panels,
                                                             const int32_t dtype, const float *a, int64_t k,
                                                             const char *b, int64_t stride) {
    const int64_t size = dtype == L4J_F32 ? 4 : 2;
    v16 acc[2][ROW_PANELS];
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) acc[i][p] = v16_load(sums[i] + p * L4J_PANEL);
    }
    for (int64_t s = 0; s < k; s++, a += rows, b += L4J_PANEL * size) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            const char *at = b + p * stride * size;
            _mm_prefetch(at + ROW_AHEAD, _MM_HINT_T0);
            v16 w = row_load16(dtype, at);
#pragma GCC unroll 2
            for (int i = 0; i < rows; i++) acc[i][p] = v16_fma(v16_set1(a[i]), w, acc[i][p]);
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) v16_store(sums[i] + p * L4J_PANEL, acc[i][p]);
    }
}

/* sums[i][j] = fma(a[s][i], line[j][s], …) for s = 0..k-1: sixteen rows of the weight, each a whole cache line at a time. */
static inline __attribute__((always_inline)) void row_lines(gemm_row_sums sums, int at, const int rows,
                                                            const int32_t dtype, const float *a, int64_t k,
                                                            const char *const line[L4J_PANEL]) {
    const int64_t step = dtype == L4J_F32 ? 16 : 32;
    __m256 acc[2][2];
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
        acc[i][0] = _mm256_loadu_ps(sums[i] + at);
        acc[i][1] = _mm256_loadu_ps(sums[i] + at + 8);
    }
    int64_t s = 0;
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        for (s = 0; s + step <= k; s += step) {
            const char *const *eight = line + 8 * h;
            for (int c = 0; c < 8; c++) _mm_prefetch(eight[c] + s * (64 / step) + 4 * ROW_AHEAD, _MM_HINT_T1);
            for (int64_t j = s; j < s + step; j += 8) {
                __m256 r[8];
#pragma GCC unroll 8
                for (int c = 0; c < 8; c++) r[c] = load8(dtype, eight[c], j);
                transpose8(r);
#pragma GCC unroll 8
                for (int c = 0; c < 8; c++) {
#pragma GCC unroll 2
                    for (int i = 0; i < rows; i++)
                        acc[i][h] = _mm256_fmadd_ps(_mm256_set1_ps(a[(j + c) * rows + i]), r[c], acc[i][h]);
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_ps(sums[i] + at, acc[i][0]);
        _mm256_storeu_ps(sums[i] + at + 8, acc[i][1]);
    }
    for (; s < k; s++) {
        for (int c = 0; c < L4J_PANEL; c++) {
            float w = gemm_read(line[c], dtype, s);
            for (int i = 0; i < rows; i++) sums[i][at + c] = fmaf(a[s * rows + i], w, sums[i][at + c]);
        }
    }
}

/* ---- one instance for each number of rows and dtype ---- */

#define ROW_INSTANCE(name, rows, dtype)                                                                            \
    static void row_panels_##name(gemm_row_sums sums, int panels, const float *a, int64_t k, const char *b,        \
                                  int64_t stride) {                                                                \
        if (panels == ROW_PANELS) {                                                                                \
            row_panels(sums, rows, ROW_PANELS, dtype, a, k, b, stride);                                            \
            return;                                                                                                \
        }                                                                                                          \
        for (int p = 0; p < panels; p++) /* sums of one row lie side by side */                                    \
            row_panels((float(*)[ROW_COLUMNS])(sums[0] + p * L4J_PANEL), rows, 1, dtype, a, k,                     \
                       b + p * stride * (dtype == L4J_F32 ? 4 : 2), 0);                                            \
    }                                                                                                              \
    static void row_lines_##name(gemm_row_sums sums, int at, const float *a, int64_t k, const char *const *line) { \
        row_lines(sums, at, rows, dtype, a, k, line);                                                              \
    }
ROW_INSTANCE(1_f32, 1, L4J_F32)
ROW_INSTANCE(1_bf16, 1, L4J_BF16)
ROW_INSTANCE(1_f16, 1, L4J_F16)
ROW_INSTANCE(2_f32, 2, L4J_F32)
ROW_INSTANCE(2_bf16, 2, L4J_BF16)
ROW_INSTANCE(2_f16, 2, L4J_F16)

typedef struct {
    void (*panels)(gemm_row_sums sums, int panels, const float *a, int64_t k, const char *b, int64_t stride);
    void (*lines)(gemm_row_sums sums, int at, const float *a, int64_t k, const char *const *line);
} row_instance;

static row_instance row_choose(int64_t rows, int32_t dtype) {
    static const row_instance one[] = {{row_panels_1_f32, row_lines_1_f32},
                                       {row_panels_1_bf16, row_lines_1_bf16},
                                       {row_panels_1_f16, row_lines_1_f16}};
    static const row_instance two[] = {{row_panels_2_f32, row_lines_2_f32},
                                       {row_panels_2_bf16, row_lines_2_bf16},
                                       {row_panels_2_f16, row_lines_2_f16}};
    return (rows == 1 ? one : two)[dtype == L4J_F32 ? 0 : dtype == L4J_BF16 ? 1 : 2];
}

/* Continues the sums of columns [n, n + cols) over one segment. */
static void row_segment(const gemm_team *team, const gemm_segment *s, int64_t rows, int64_t n, int64_t cols,
                        gemm_row_sums sums) {
    const l4j_weight *w = s->b.kind == GEMM_B_WEIGHT_TRANS ? s->b.weight : NULL;
    int panels = (int)(gemm_ceil(cols, L4J_PANEL) / L4J_PANEL);
    if (!w) {
        gemm_pack_b(team->own, &s->b, 0, s->k, n, cols);
        row_choose(rows, L4J_F32).panels(sums, panels, s->packed, s->k, (const char *)team->own, s->k * L4J_PANEL);
        return;
    }
    if (w->layout == L4J_LAYOUT_CODES && w->quant.panels) {
        gemm_row_codes(sums, rows, panels, w, n, s->packed);
        return;
    }
    if (w->layout == L4J_LAYOUT_CODES) {
        for (int64_t k = 0, steps; k < s->k; k += steps) {
            steps = l4j_min64(GEMM_KC, s->k - k);
            gemm_pack_codes(team->own, &s->b, k, steps, n, cols);
            row_choose(rows, L4J_F32)
                .panels(sums, panels, s->packed + k * rows, steps, (const char *)team->own, steps * L4J_PANEL);
        }
        return;
    }
    int64_t size = w->dtype == L4J_F32 ? 4 : 2;
    row_instance run = row_choose(rows, w->dtype);
    if (w->layout == L4J_LAYOUT_PANELS) {
        run.panels(sums, panels, s->packed, s->k, (const char *)w->data + n * w->cols * size, w->cols * L4J_PANEL);
        return;
    }
    for (int64_t j = 0; j < cols; j += L4J_PANEL) {
        const char *line[L4J_PANEL]; /* rows past the end repeat the last one: their sums are not stored */
        for (int64_t i = 0; i < L4J_PANEL; i++)
            line[i] = (const char *)w->data + (n + l4j_min64(j + i, cols - 1)) * w->row_stride * size;
        run.lines(sums, (int)j, s->packed, s->k, line);
    }
}

void gemm_run_row(gemm_team *team, const gemm_product *p) {
    int64_t begin, end;
    l4j_partition(p->n, L4J_PANEL, team->thread, team->threads, &begin, &end);
    for (int64_t n = begin; n < end; n += ROW_COLUMNS) {
        int64_t cols = l4j_min64(ROW_COLUMNS, end - n);
        gemm_row_sums sums = {{0}};
        for (int64_t m = 0; m < p->m && p->start; m++)
            for (int64_t j = 0; j < cols; j++) sums[m][j] = p->start[m * p->start_stride + n + j];
        for (int s = 0; s < p->segments; s++) row_segment(team, &p->segment[s], p->m, n, cols, sums);
        for (int64_t m = 0; m < p->m; m++)
            for (int64_t j = 0; j < cols; j++) p->c[m * p->ldc + n + j] = sums[m][j];
    }
}
