/* One row of a base weight as fp32. */
#ifndef L4J_WEIGHT_ROW_H
#define L4J_WEIGHT_ROW_H

#include "../bf16.h"
#include "gemm.h"
#include <string.h>

static inline void weight_row(const l4j_weight *w, int64_t n, float *out) {
    int64_t k = 0, K = w->cols;
    if (w->layout == L4J_LAYOUT_CODES) {
        L4J_NAME(decode_row)(w, n, 0, K, out);
        return;
    }
    if (w->layout == L4J_LAYOUT_PANELS) {
        int64_t first = n / L4J_PANEL * K * L4J_PANEL + n % L4J_PANEL;
        for (; k < K; k++) out[k] = gemm_read(w->data, w->dtype, first + k * L4J_PANEL);
        return;
    }
    if (l4j_in_tiles(w)) {
        const uint16_t *data = w->data;
        bool quads = w->layout == L4J_LAYOUT_QUAD_TILES;
        for (; k < K; k++) out[k] = l4j_bf16_to_f32(data[l4j_tile_index(quads, K, n, k)]);
        return;
    }
    int64_t first = n * w->row_stride;
    if (w->dtype == L4J_F32) {
        memcpy(out, (const float *)w->data + first, sizeof(float) * (size_t)K);
        return;
    }
    const uint16_t *row = (const uint16_t *)w->data + first;
    for (; k + L4J_PANEL <= K; k += L4J_PANEL) {
        v16_store(out + k, w->dtype == L4J_BF16 ? v16_load_bf16(row + k) : v16_load_f16(row + k));
    }
    for (; k < K; k++) out[k] = gemm_read(row, w->dtype, k);
}

#endif
