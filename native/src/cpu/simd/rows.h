/* How the row-wise kernels read tensors: a stretch of a row at a time, contiguous, sixteen lanes at a time. */
#ifndef L4J_ROWS_H
#define L4J_ROWS_H

#include "../internal.h"
#include "vec16.h"

enum { ROWS_STRETCH = 512 }; /* elements of a stretch: a multiple of the lanes, small enough for L1 */

#define ROWS_INLINE static inline __attribute__((always_inline))

/* First n lanes; full loads and stores where n is the constant 16. */
ROWS_INLINE v16 rows_load(const float *p, int n) { return n == L4J_PANEL ? v16_load(p) : v16_load_n(p, n); }
ROWS_INLINE void rows_store(float *p, v16 a, int n) {
    if (n == L4J_PANEL) {
        v16_store(p, a);
    } else {
        v16_store_n(p, a, n);
    }
}
/* One step of a tree sum of products: lanes past n keep their value. */
ROWS_INLINE v16 rows_sum_fma(v16 a, v16 b, v16 sum, int n) {
    v16 next = v16_fma(a, b, sum);
    return n == L4J_PANEL ? next : v16_first_n(next, sum, n);
}

/* Runs body(i, lanes) for i = 0, 16, ... below count; lanes is the constant 16 but in the last, shorter step. */
#define ROWS_EACH(count, body)                                                  \
    do {                                                                        \
        int64_t i_ = 0;                                                         \
        for (; i_ + L4J_PANEL <= (count); i_ += L4J_PANEL) body(i_, L4J_PANEL); \
        if (i_ < (count)) body(i_, (int)((count)-i_));                          \
    } while (0)

/* Elements [n, n + count) of row m of an F32 tensor: where they lie, or gathered into `buffer` of ROWS_STRETCH floats. */
static inline const float *rows_read(const l4j_tensor *t, int64_t m, int64_t n, int64_t count, float *buffer) {
    const float *from = (const float *)t->data + m * t->stride[0] + n * t->stride[1];
    if (t->stride[1] == 1) return from;
    for (int64_t i = 0; i < count; i++) buffer[i] = from[i * t->stride[1]];
    return buffer;
}
/* Where the same elements of the next row lie (of this row where it is the last; NULL for no tensor): kernels of two passes fetch
   them in the second, or else the first, which only reads, and the second, which writes, take turns waiting for memory. */
static inline const float *rows_next(const l4j_tensor *t, int64_t m, int64_t n) {
    if (!t) return NULL;
    return (const float *)t->data + l4j_min64(m + 1, t->shape[0] - 1) * t->stride[0] + n * t->stride[1];
}
static inline float *rows_write(const l4j_tensor *t, int64_t m, int64_t n) {
    return (float *)t->data + m * t->stride[0] + n;
}

/* Elements [n, n + count) of a vector of stored floats. */
static inline const float *rows_read_stored(const l4j_tensor *t, int64_t n, int64_t count, float *buffer) {
    int64_t stride = t->stride[0], i = 0;
    if (t->dtype == L4J_F32) {
        const float *from = (const float *)t->data + n * stride;
        if (stride == 1) return from;
        for (; i < count; i++) buffer[i] = from[i * stride];
        return buffer;
    }
    const uint16_t *from = (const uint16_t *)t->data + n * stride;
    for (; stride == 1 && i + L4J_PANEL <= count; i += L4J_PANEL) {
        v16_store(buffer + i, t->dtype == L4J_BF16 ? v16_load_bf16(from + i) : v16_load_f16(from + i));
    }
    for (; i < count; i++) {
        uint16_t h = from[i * stride];
        buffer[i] = t->dtype == L4J_BF16 ? l4j_bf16_to_f32(h) : l4j_f16_to_f32(h);
    }
    return buffer;
}

#endif
