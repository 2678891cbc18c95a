/* Packing of quantized weights: decoded on the way, a few rows at a time, so that no weight is ever expanded whole. */
#include "gemm.h"

#include <string.h>

enum {
    CODES_COLUMNS = 128, /* of sixteen rows, decoded at once: 8 KiB */
    CODES_WIDE = 512     /* of one row */
};

/* B[k, n] = W[n, k]: sixteen rows decoded side by side, then transposed. */
static void codes_transposed(float *out, const l4j_weight *w, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    float rows[L4J_PANEL][CODES_COLUMNS + L4J_PANEL]; /* the padding keeps the rows' lines apart in the cache */
    gemm_b strided = {
        .kind = GEMM_B_STRIDED, .data = rows[0], .row_stride = 1, .col_stride = CODES_COLUMNS + L4J_PANEL};
    for (int64_t j = 0; j < cols; j += L4J_PANEL) {
        int64_t live = l4j_min64(L4J_PANEL, cols - j);
        for (int64_t s = 0; s < steps; s += CODES_COLUMNS) {
            int64_t count = l4j_min64(CODES_COLUMNS, steps - s);
            for (int64_t i = 0; i < live; i++) L4J_NAME(decode_row)(w, n + j + i, k + s, count, rows[i]);
            gemm_pack_b(out + j * steps + s * L4J_PANEL, &strided, 0, count, 0, live);
        }
    }
}

/* B[k, n] = W[k, n]: each row is cut into slices of sixteen columns. */
static void codes_plain(float *out, const l4j_weight *w, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    float row[CODES_WIDE];
    for (int64_t j = 0; j < cols; j += CODES_WIDE) {
        int64_t count = l4j_min64(CODES_WIDE, cols - j), padded = gemm_ceil(count, L4J_PANEL);
        memset(row + count, 0, sizeof(float) * (size_t)(padded - count));
        for (int64_t s = 0; s < steps; s++) {
            L4J_NAME(decode_row)(w, k + s, n + j, count, row);
            float *to = out + j * steps + s * L4J_PANEL;
            for (int64_t i = 0; i < padded; i += L4J_PANEL) v16_store(to + i * steps, v16_load(row + i));
        }
    }
}

/* The same from panels, whose lanes are the contraction: squares of sixteen are transposed. */
static void codes_across_panels(float *out, const l4j_weight *w, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    float panel[CODES_WIDE * L4J_PANEL];
    gemm_b strided = {.kind = GEMM_B_STRIDED, .data = panel, .row_stride = 1, .col_stride = L4J_PANEL};
    for (int64_t j = 0; j < cols; j += CODES_WIDE) {
        int64_t count = l4j_min64(CODES_WIDE, cols - j);
        for (int64_t s = 0; s < steps; s += L4J_PANEL) {
            int64_t live = l4j_min64(L4J_PANEL, steps - s);
            gemm_decode_panel(panel, w, k + s, n + j, gemm_ceil(count, L4J_PANEL));
            for (int64_t i = 0; i < count; i += L4J_PANEL) {
                strided.data = panel + i * L4J_PANEL;
                gemm_pack_b(out + (j + i) * steps + s * L4J_PANEL, &strided, 0, live, 0,
                            l4j_min64(L4J_PANEL, count - i));
            }
        }
    }
}

void gemm_pack_codes(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    const l4j_weight *w = b->weight;
    if (w->quant.panels && b->kind == GEMM_B_WEIGHT_TRANS) {
        for (int64_t j = 0; j < cols; j += L4J_PANEL) gemm_decode_panel(out + j * steps, w, n + j, k, steps);
    } else if (w->quant.panels) {
        codes_across_panels(out, w, k, steps, n, cols);
    } else if (b->kind == GEMM_B_WEIGHT_TRANS) {
        codes_transposed(out, w, k, steps, n, cols);
    } else {
        codes_plain(out, w, k, steps, n, cols);
    }
}
