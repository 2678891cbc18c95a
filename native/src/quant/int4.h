/* GPTQ and AWQ: eight 4-bit codes in a word, zeros and scales in rows of groups of columns. Single values, any tier. */
#ifndef L4J_INT4_H
#define L4J_INT4_H

#include "format.h"

/* Where row n % 8 lies in a word of eight rows: in order for GPTQ's zeros, interleaved for AWQ's codes and zeros. */
static inline int int4_shift(const l4j_quant *q, int64_t n) {
    static const int awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return 4 * (q->scheme == L4J_SCHEME_AWQ ? awq[n % 8] : (int)(n % 8));
}
/* The row of scales of column k. */
static inline int64_t int4_group(const l4j_quant *q, int64_t k) {
    return q->group_index ? q->group_index[k] : k / q->block;
}
static inline int int4_code(const l4j_quant *q, int64_t n, int64_t k) {
    const uint32_t *codes = q->values;
    if (q->scheme == L4J_SCHEME_AWQ) return (int)(codes[k * q->zero_stride + n / 8] >> int4_shift(q, n) & 15);
    return (int)(codes[k / 8 * q->rows + n] >> 4 * (k % 8) & 15);
}
/* What is taken off the codes; version 1 of GPTQ stores it less one. */
static inline int int4_zero(const l4j_quant *q, int64_t n, int64_t group) {
    int zero = (int)((uint32_t)q->zeros[group * q->zero_stride + n / 8] >> int4_shift(q, n) & 15);
    return zero + (q->scheme == L4J_SCHEME_GPTQ);
}

#endif
