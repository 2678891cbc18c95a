/*
 * Products of few rows with operands B that the contraction crosses: dx of a short batch. Each value of the weight meets every row of
 * A once, so that nothing is packed. Eight steps of the contraction at a time pass along the columns, and the chains of C wait in
 * the cache; B is read in the order in which it lies in memory.
 */
#include "../bf16.h"
#include "gemm.h"
#include "transpose8.h"
#include <string.h>

enum {
    ACROSS_STEPS = 8,     /* of the contraction at once: as many rows, or lanes of a panel, of the weight */
    ACROSS_COLUMNS = 512, /* of C between two groups of steps: they stay in L1 */
    ACROSS_AHEAD = 512    /* bytes that are fetched ahead */
};

/* Where a block of B lies: rows at data + i * stride, or eight lanes of a panel, whose columns are 16 elements apart. */
typedef struct across_block {
    const char *data;
    int64_t stride; /* bytes between rows; 0 = a panel */
    int steps;
} across_block;

/* b[i] = columns [j, j + 8) of step i. */
static inline __attribute__((always_inline)) void across_load(__m256 b[ACROSS_STEPS], const int32_t dtype,
                                                              const across_block *block, int64_t j) {
    const int64_t size = dtype == L4J_F32 ? 4 : 2;
    if (block->stride) {
#pragma GCC unroll 8
        for (int i = 0; i < ACROSS_STEPS; i++) {
            const char *row = block->data + i * block->stride;
            if (j % (64 / size) == 0) _mm_prefetch(row + j * size + ACROSS_AHEAD, _MM_HINT_T0);
            b[i] = load8(dtype, row, j);
        }
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const char *column = block->data + (j + i) * L4J_PANEL * size;
        _mm_prefetch(column + 4 * ACROSS_AHEAD, _MM_HINT_T0);
        b[i] = load8(dtype, column, 0);
    }
    transpose8(b);
}

static inline float across_read(const int32_t dtype, const across_block *block, int i, int64_t j) {
    if (block->stride) return gemm_read(block->data + i * block->stride, dtype, j);
    return gemm_read(block->data, dtype, j * L4J_PANEL + i);
}

/* c[m][j] = fma(a[m][i], B[i][j], c[m][j]) for i = 0..steps-1 over `cols` columns. */
static inline __attribute__((always_inline)) void
across_steps(float *c, int64_t rows, int64_t cols, const int32_t dtype, const across_block *block, const float *a) {
    int64_t j = 0;
    for (; j + 8 <= cols && block->steps == ACROSS_STEPS; j += 8) {
        __m256 b[ACROSS_STEPS];
        across_load(b, dtype, block, j);
        for (int64_t m = 0; m < rows; m++) {
            __m256 acc = _mm256_loadu_ps(c + m * ACROSS_COLUMNS + j);
#pragma GCC unroll 8
            for (int i = 0; i < ACROSS_STEPS; i++)
                acc = _mm256_fmadd_ps(_mm256_set1_ps(a[m * ACROSS_STEPS + i]), b[i], acc);
            _mm256_storeu_ps(c + m * ACROSS_COLUMNS + j, acc);
        }
    }
    for (; j < cols; j++) {
        for (int i = 0; i < block->steps; i++) {
            float b = across_read(dtype, block, i, j);
            for (int64_t m = 0; m < rows; m++)
                c[m * ACROSS_COLUMNS + j] = fmaf(a[m * ACROSS_STEPS + i], b, c[m * ACROSS_COLUMNS + j]);
        }
    }
}

static void across_run(float *c, int64_t rows, int64_t cols, int32_t dtype, const across_block *block, const float *a) {
    if (dtype == L4J_F32) {
        if (rows == 1) {
            across_steps(c, 1, cols, L4J_F32, block, a);
        } else {
            across_steps(c, rows, cols, L4J_F32, block, a);
        }
    } else if (dtype == L4J_BF16) {
        across_steps(c, rows, cols, L4J_BF16, block, a);
    } else {
        across_steps(c, rows, cols, L4J_F16, block, a);
    }
}

/* Values of A at steps [k, k + steps) of a segment: a[m][i]. */
static void across_gather(float a[GEMM_ACROSS * ACROSS_STEPS], const gemm_product *p, const gemm_segment *s, int64_t k,
                          int steps) {
    int64_t padded = gemm_panels(p->m, p->height) * p->height, length = gemm_block(s->k);
    for (int i = 0; i < steps; i++) {
        int64_t block = (k + i) / length * length, in_block = l4j_min64(length, s->k - block);
        const float *from = s->packed + block * padded + (k + i - block) * p->height;
        for (int64_t m = 0; m < p->m; m++)
            a[m * ACROSS_STEPS + i] = from[m / p->height * p->height * in_block + m % p->height];
    }
}

/* Steps [k, k + steps) of columns [n, n + cols). Quantized rows are decoded to `rows`, panels when their first step comes. */
typedef union across_rows {
    float row[ACROSS_STEPS][ACROSS_COLUMNS + L4J_PANEL];
    float panel[ACROSS_COLUMNS * L4J_PANEL];
} across_rows;
static across_block across_find(const gemm_b *b, int64_t k, int64_t n, int64_t steps, int64_t cols, across_rows *rows) {
    if (b->kind == GEMM_B_STRIDED)
        return (across_block){(const char *)(b->data + k * b->row_stride + n), b->row_stride * 4, (int)steps};
    const l4j_weight *w = b->weight;
    if (w->layout == L4J_LAYOUT_CODES && w->quant.panels) {
        if (k % L4J_PANEL == 0) gemm_decode_panel(rows->panel, w, k, n, gemm_ceil(cols, L4J_PANEL));
        return (across_block){(const char *)(rows->panel + k % L4J_PANEL), 0, (int)steps};
    }
    if (w->layout == L4J_LAYOUT_CODES) {
        for (int64_t i = 0; i < steps; i++) L4J_NAME(decode_row)(w, k + i, n, cols, rows->row[i]);
        return (across_block){(const char *)rows->row, (int64_t)sizeof rows->row[0], (int)steps};
    }
    int64_t size = w->dtype == L4J_F32 ? 4 : 2;
    if (w->layout == L4J_LAYOUT_ROWS)
        return (across_block){(const char *)w->data + (k * w->row_stride + n) * size, w->row_stride * size, (int)steps};
    int64_t at = (k / L4J_PANEL * w->cols + n) * L4J_PANEL + k % L4J_PANEL;
    return (across_block){(const char *)w->data + at * size, 0, (int)steps};
}

bool gemm_is_across(const gemm_product *p) {
    bool across = p->m <= GEMM_ACROSS;
    for (int s = 0; s < p->segments; s++) {
        const gemm_b *b = &p->segment[s].b;
        across &= (b->kind == GEMM_B_WEIGHT && !l4j_in_tiles(b->weight)) ||
                  (b->kind == GEMM_B_STRIDED && b->col_stride == 1 && !b->kept);
    }
    return across;
}

/* The chains wait in a buffer of their own: rows of C may be a multiple of 4 KiB apart, where they would share a set of the cache. */
void gemm_run_across(gemm_team *team, const gemm_product *p) {
    float c[GEMM_ACROSS * ACROSS_COLUMNS];
    across_rows decoded;
    int64_t begin, end;
    l4j_partition(p->n, L4J_PANEL, team->thread, team->threads, &begin, &end);
    for (int64_t n = begin, cols; n < end; n += cols) {
        cols = l4j_min64(ACROSS_COLUMNS, end - n);
        for (int64_t m = 0; m < p->m; m++) {
            for (int64_t j = 0; j < cols; j++)
                c[m * ACROSS_COLUMNS + j] = p->start ? p->start[m * p->start_stride + n + j] : 0;
        }
        for (int s = 0; s < p->segments; s++) {
            const gemm_segment *segment = &p->segment[s];
            const l4j_weight *w = segment->b.kind == GEMM_B_STRIDED ? NULL : segment->b.weight;
            int32_t dtype = w && w->layout != L4J_LAYOUT_CODES ? w->dtype : L4J_F32;
            for (int64_t k = 0; k < segment->k; k += ACROSS_STEPS) {
                float a[GEMM_ACROSS * ACROSS_STEPS];
                int steps = (int)l4j_min64(ACROSS_STEPS, segment->k - k);
                across_block block = across_find(&segment->b, k, n, steps, cols, &decoded);
                across_gather(a, p, segment, k, steps);
                across_run(c, p->m, cols, dtype, &block, a);
            }
        }
        for (int64_t m = 0; m < p->m; m++)
            memcpy(p->c + m * p->ldc + n, c + m * ACROSS_COLUMNS, sizeof(float) * (size_t)cols);
    }
}
