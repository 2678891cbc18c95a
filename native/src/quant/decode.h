/*
 * Decoding of quantized weights: columns [k, k + count) of row n as fp32. Included once for each tier, which includes its codes16.h and
 * defines QUANT_F16 (an fp16 pattern as a float) first.
 */
#ifndef L4J_DECODE_H
#define L4J_DECODE_H

#include "gguf_k_blocks.h"
#include "int4.h"

/* Element i of stored floats. */
static inline float quant_float(const void *data, int32_t dtype, int64_t i) {
    if (dtype == L4J_F32) return ((const float *)data)[i];
    uint16_t h = ((const uint16_t *)data)[i];
    return dtype == L4J_BF16 ? l4j_bf16_to_f32(h) : QUANT_F16(h);
}

/* ---- bitsandbytes ---- */

/* out[i] = map[nibble i] · scale; even nibbles are the high ones. */
static inline void quant_nibbles(const float map[16], const uint8_t *codes, float scale, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) c16_map(map, c16_pairs(codes + i / 2), scale, out + i);
    for (; i < count; i++) out[i] = map[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4] * scale;
}

static inline float quant_absmax(const l4j_quant *q, int64_t block) {
    if (!q->nested_map) return ((const float *)q->scales)[block];
    float scaled = q->nested_map[((const uint8_t *)q->scales)[block]] * q->nested_scales[block / q->nested_block];
    return scaled + q->nested_offset;
}

/* Values [first, first + count) of the flattened weight: blocks may begin anywhere in a row. */
static inline void decode_bitsandbytes_4bit(const l4j_quant *q, int64_t first, int64_t count, float *out) {
    const uint8_t *codes = q->values;
    while (count > 0) {
        int64_t block = first / q->block, here = l4j_min64(count, (block + 1) * q->block - first);
        float scale = quant_absmax(q, block);
        if (first % 2) {
            *out = q->map[codes[first / 2] & 15] * scale;
            here = 1;
        } else {
            quant_nibbles(q->map, codes + first / 2, scale, here, out);
        }
        first += here;
        out += here;
        count -= here;
    }
}

/* ---- integers and FP8 ---- */

#define L4J_LLM_INT8_STEP 7.874015718698502e-3f /* 1 / 127 */

static inline void decode_llm_int8(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *restrict out) {
    const int8_t *codes = (const int8_t *)q->values + n * q->cols + k;
    float scale = ((const float *)q->scales)[n];
    for (int64_t i = 0; i < count; i++) out[i] = (float)codes[i] * scale * L4J_LLM_INT8_STEP;
}

static inline void decode_int8(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *restrict out) {
    const int8_t *codes = (const int8_t *)q->values + n * q->cols;
    for (int64_t end = k + count; k < end;) {
        int64_t group = k / q->block, stop = l4j_min64(end, (group + 1) * q->block);
        float scale = quant_float(q->scales, q->scale_dtype, n * q->scale_stride + group);
        for (; k < stop; k++) *out++ = (float)codes[k] * scale;
    }
}

/* w = (q − zero) · scale, both of the column's group */
static inline void decode_int4(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++, k++) {
        int64_t group = int4_group(q, k);
        float scale = quant_float(q->scales, q->scale_dtype, group * q->scale_stride + n);
        out[i] = (float)(int4_code(q, n, k) - int4_zero(q, n, group)) * scale;
    }
}

/* The same from rows of codes, in pairs, and of scales: how the weight keeps them that it packed. */
static inline void decode_int4_rows(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *out) {
    const uint8_t *codes = (const uint8_t *)q->values + n * q->row_bytes;
    const float *scales = (const float *)q->scales + n * q->scale_stride;
    const int8_t *zeros = q->row_zeros + n * q->scale_stride;
    for (int64_t end = k + count; k < end;) {
        int64_t group = int4_group(q, k), stop = q->group_index ? k + 1 : l4j_min64(end, (group + 1) * q->block);
        for (; k % 2 == 0 && k + 16 <= stop; k += 16, out += 16) {
            c16_scale(c16_less(c16_pairs(codes + k / 2), zeros[group]), scales[group], (c16_out *)out);
        }
        for (; k < stop && (k % 2 || k + 16 > stop); k++) {
            int code = k % 2 ? codes[k / 2] & 15 : codes[k / 2] >> 4;
            *out++ = (float)(code - zeros[group]) * scales[group];
        }
    }
}

/* E4M3 (OCP 8-bit floating point): sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity, 0x7F and 0xFF are NaN. */
static inline float quant_e4m3(uint8_t b) {
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)(b & 0x7F) << 20}; /* the value times 2^-120: exponents are biased by 7 instead of 127 */
    v.f *= 0x1p120f;
    v.u |= (uint32_t)(b & 0x80) << 24;
    v.u |= (b & 0x7F) == 0x7F ? 0x7FC00000u : 0;
    return v.f;
}

static inline void decode_fp8(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *restrict out) {
    const uint8_t *codes = (const uint8_t *)q->values + n * q->cols;
    for (int64_t end = k + count; k < end;) {
        int64_t group = k / q->block, stop = l4j_min64(end, (group + 1) * q->block);
        float scale = quant_float(q->scales, q->scale_dtype, n / q->block_rows * q->scale_stride + group);
        for (; k < stop; k++) *out++ = quant_e4m3(codes[k]) * scale;
    }
}

/* ---- GGUF ---- */

#define DECODE_GGUF(name, decoder, values, bytes, group, sum, least, most)                          \
    static inline void decode_##decoder(const uint8_t *row, int64_t k, int64_t count, float *out) { \
        while (count > 0) {                                                                         \
            const uint8_t *block = row + k / values * bytes;                                        \
            int unit = (int)(k % values / 32), skip = (int)(k % 32);                                \
            int64_t here = l4j_min64(32 - skip, count);                                             \
            if (here == 32) {                                                                       \
                l4j_##decoder(block, unit, (c16_out *)out);                                         \
            } else {                                                                                \
                float part[32];                                                                     \
                l4j_##decoder(block, unit, (c16_out *)part);                                        \
                memcpy(out, part + skip, sizeof(float) * (size_t)here);                             \
            }                                                                                       \
            k += here;                                                                              \
            out += here;                                                                            \
            count -= here;                                                                          \
        }                                                                                           \
    }
L4J_GGUF_FORMATS(DECODE_GGUF)

/* Rows in panels are put together again, a few blocks at a time. */
static inline void decode_panel_other(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *out) {
    const uint8_t *lane = (const uint8_t *)q->values + n / L4J_PANEL * L4J_PANEL * q->row_bytes + n % L4J_PANEL;
    int64_t per_byte = q->cols / q->row_bytes;
    for (int64_t end = k + count; k < end;) { /* k is even */
        int64_t group = k / q->block, stop = l4j_min64(l4j_min64(end, (group + 1) * q->block), k + 256);
        uint8_t codes[256];
        for (int64_t j = 0; j < (stop - k + per_byte - 1) / per_byte; j++)
            codes[j] = lane[(k / per_byte + j) * L4J_PANEL];
        if (q->scheme == L4J_SCHEME_NF4 || q->scheme == L4J_SCHEME_FP4) {
            quant_nibbles(q->map, codes, quant_absmax(q, n * (q->cols / q->block) + group), stop - k, out);
            out += stop - k;
            k = stop;
            continue;
        }
        float scale =
            quant_float(q->scales, q->scale_dtype, n / (q->block_rows ? q->block_rows : 1) * q->scale_stride + group);
        for (int64_t i = 0; k < stop; i++, k++) {
            int code = (int8_t)codes[i];
            if (q->scheme == L4J_INT4_ROWS)
                code = (i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4) - q->row_zeros[n * q->scale_stride + group];
            float value = q->scheme == L4J_SCHEME_FP8_E4M3 ? quant_e4m3(codes[i]) : (float)code;
            *out++ = q->scheme == L4J_SCHEME_LLM_INT8 ? value * scale * L4J_LLM_INT8_STEP : value * scale;
        }
    }
}
#define DECODE_PANEL(name, decoder, values, bytes, group, sum, least, most)                                \
    static inline void decode_panel_##decoder(const uint8_t *lane, int64_t k, int64_t count, float *out) { \
        uint8_t row[256 / values * bytes];                                                                 \
        for (int64_t end = k + count; k < end;) {                                                          \
            int64_t first = k / 256 * 256, here = l4j_min64(first + 256, end) - k;                         \
            int64_t from = first / values * bytes, last = (k + here + values - 1) / values * bytes;        \
            for (int64_t j = from; j < last; j++) row[j - from] = lane[j * L4J_PANEL];                     \
            decode_##decoder(row, k - first, here, out);                                                   \
            k += here;                                                                                     \
            out += here;                                                                                   \
        }                                                                                                  \
    }
L4J_GGUF_FORMATS(DECODE_PANEL)

static inline void quant_decode(const l4j_quant *q, int64_t n, int64_t k, int64_t count, float *out) {
    const uint8_t *row = (const uint8_t *)q->values + n * q->row_bytes;
    const uint8_t *lane = (const uint8_t *)q->values + n / L4J_PANEL * L4J_PANEL * q->row_bytes + n % L4J_PANEL;
    if (q->panels && !l4j_is_gguf(q->scheme)) {
        decode_panel_other(q, n, k, count, out);
        return;
    }
    switch (q->scheme) {
    case L4J_SCHEME_NF4:
    case L4J_SCHEME_FP4: decode_bitsandbytes_4bit(q, n * q->cols + k, count, out); break;
    case L4J_SCHEME_LLM_INT8: decode_llm_int8(q, n, k, count, out); break;
    case L4J_SCHEME_INT8: decode_int8(q, n, k, count, out); break;
    case L4J_SCHEME_GPTQ:
    case L4J_SCHEME_GPTQ_V2:
    case L4J_SCHEME_AWQ: decode_int4(q, n, k, count, out); break;
    case L4J_INT4_ROWS: decode_int4_rows(q, n, k, count, out); break;
    case L4J_SCHEME_FP8_E4M3: decode_fp8(q, n, k, count, out); break;
#define CASE(name, decoder, values, bytes, group, sum, least, most) \
    case L4J_SCHEME_GGUF_##name:                                    \
        if (q->panels) {                                            \
            decode_panel_##decoder(lane, k, count, out);            \
        } else {                                                    \
            decode_##decoder(row, k, count, out);                   \
        }                                                           \
        break;
        L4J_GGUF_FORMATS(CASE)
#undef CASE
    default: break;
    }
}

#endif
