/*
 * What the reference kernels share. They are compiled twice: with real = float they are the tier `ref`, with real = double they
 * are `ref64`, the accuracy oracle. Activations, adapters and gradients are tensors of real; weights and biases keep their dtype.
 */
#ifndef L4J_REAL_H
#define L4J_REAL_H

#include "../bf16.h"
#include "../internal.h"
#include "../math.h"

#ifndef L4J_TIER
#ifdef L4J_REF64
#define L4J_TIER ref64
#else
#define L4J_TIER ref
#endif
#endif

typedef L4J_REAL real;

#ifdef L4J_REF64
static inline real real_fma(real a, real b, real c) { return fma(a, b, c); }
static inline real real_exp(real x) { return exp(x); }
static inline real real_log(real x) { return log(x); }
static inline real real_sqrt(real x) { return sqrt(x); }
#else
static inline real real_fma(real a, real b, real c) { return fmaf(a, b, c); }
static inline real real_exp(real x) { return l4j_exp(x); }
static inline real real_log(real x) { return l4j_log(x); }
static inline real real_sqrt(real x) { return sqrtf(x); }
#endif

/* Element `index` of stored floats of any dtype. */
static inline real real_read(const void *data, int32_t dtype, int64_t index) {
    switch (dtype) {
    case L4J_F16: return l4j_f16_to_f32(((const uint16_t *)data)[index]);
    case L4J_BF16: return l4j_bf16_to_f32(((const uint16_t *)data)[index]);
    case L4J_F64: return (real)((const double *)data)[index];
    default: return ((const float *)data)[index];
    }
}

/* Elements of tensors whose dtype is real. */
static inline real *real_at1(const l4j_tensor *t, int64_t i) { return (real *)t->data + i * t->stride[0]; }
static inline real *real_at2(const l4j_tensor *t, int64_t i, int64_t j) {
    return (real *)t->data + i * t->stride[0] + j * t->stride[1];
}
static inline real *real_at3(const l4j_tensor *t, int64_t i, int64_t j, int64_t k) {
    return (real *)t->data + i * t->stride[0] + j * t->stride[1] + k * t->stride[2];
}

/* Value (n, k) of a weight. */
static inline real real_weight(const l4j_weight *w, int64_t n, int64_t k) {
    if (w->layout == L4J_LAYOUT_CODES) {
        float values[16];
        L4J_NAME(decode_row)(w, n, k / 16 * 16, k % 16 + 1, values);
        return values[k % 16];
    }
    if (l4j_in_tiles(w)) {
        int64_t i = l4j_tile_index(w->layout == L4J_LAYOUT_QUAD_TILES, w->cols, n, k);
        return l4j_bf16_to_f32(((const uint16_t *)w->data)[i]);
    }
    int64_t i = w->layout == L4J_LAYOUT_PANELS ? (n / L4J_PANEL * w->cols + k) * L4J_PANEL + n % L4J_PANEL
                                               : n * w->row_stride + k;
    return real_read(w->data, w->dtype, i);
}

/* Row n of a weight: out[0 .. cols). */
static inline void real_weight_row(const l4j_weight *w, int64_t n, real *out) {
    if (w->layout == L4J_LAYOUT_CODES) {
        for (int64_t k = 0; k < w->cols; k += 64) {
            float values[64];
            int64_t count = l4j_min64(64, w->cols - k);
            L4J_NAME(decode_row)(w, n, k, count, values);
            for (int64_t i = 0; i < count; i++) out[k + i] = values[i];
        }
        return;
    }
    if (l4j_in_tiles(w)) {
        for (int64_t k = 0; k < w->cols; k++) out[k] = real_weight(w, n, k);
        return;
    }
    int64_t first = n * w->row_stride, step = 1;
    if (w->layout == L4J_LAYOUT_PANELS) {
        first = n / L4J_PANEL * w->cols * L4J_PANEL + n % L4J_PANEL;
        step = L4J_PANEL;
    }
    for (int64_t k = 0; k < w->cols; k++) out[k] = real_read(w->data, w->dtype, first + k * step);
}

/* The tree sum of the contract: add element i to lane[i % 16] in ascending order, then fold. */
static inline real real_fold16(real lane[L4J_PANEL]) {
    for (int half = L4J_PANEL / 2; half >= 1; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    return lane[0];
}

#endif
