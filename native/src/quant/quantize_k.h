/* Quantizers of GGUF's super-blocks: quantize_row_q4_K_ref and quantize_row_q6_K_ref of ggml-quants.c, step by step in fp32. */
#ifndef L4J_QUANTIZE_K_H
#define L4J_QUANTIZE_K_H

#include "gguf_k_blocks.h"
#include "quantize.h"

#define QUANT_TINY 1e-15f /* a group whose magnitudes lie below this is zero */

/* The nearest integer, ties to even, of |v| < 2^22; the low bits of the sum for others. */
static inline int quant_nearest(float v) {
    union {
        float f;
        uint32_t u;
    } sum = {.f = v + 12582912.0f};
    return (int)(sum.u & 0x007FFFFFu) - 0x00400000;
}
static inline int quant_clamp(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

/* A scale s and a minimum −m (m ≥ 0) for 32 values such that x ≈ s·q − m, q from 0 to 15, has a small weighted squared error: 21 scales
   are tried over the range from the best minimum so far, each improved by least squares. Returns s; codes[i] = q, *min_out = m. */
static inline float q4_k_group(const float *x, const float *weight, uint8_t *codes, float *min_out) {
    enum { N = 32, MOST = 15, STEPS = 20 };
    float min = x[0], max = x[0], sum_w = weight[0], sum_x = sum_w * x[0];
    for (int i = 1; i < N; i++) {
        if (x[i] < min) min = x[i];
        if (x[i] > max) max = x[i];
        sum_w += weight[i];
        sum_x += weight[i] * x[i];
    }
    if (min > 0) min = 0;
    *min_out = -min;
    memset(codes, 0, N);
    if (max == min) return 0;
    float inverse = (float)MOST / (max - min), scale = 1 / inverse, best = 0;
    for (int i = 0; i < N; i++) {
        codes[i] = (uint8_t)quant_clamp(quant_nearest(inverse * (x[i] - min)), 0, MOST);
        float difference = scale * (float)codes[i] + min - x[i];
        best += weight[i] * (difference * difference);
    }
    for (int step = 0; step <= STEPS; step++) {
        inverse = (-1.0f + 0.1f * (float)step + (float)MOST) / (max - min);
        float q[N], sum_l = 0, sum_l2 = 0, sum_xl = 0;
        for (int i = 0; i < N; i++) q[i] = (float)quant_clamp(quant_nearest(inverse * (x[i] - min)), 0, MOST);
        for (int i = 0; i < N; i++) {
            float wl = weight[i] * q[i];
            sum_l += wl;
            sum_l2 += wl * q[i];
            sum_xl += wl * x[i];
        }
        float determinant = sum_w * sum_l2 - sum_l * sum_l;
        if (!(determinant > 0)) continue;
        float this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        float this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant, error = 0;
        if (this_min > 0) {
            this_min = 0;
            this_scale = sum_xl / sum_l2;
        }
        for (int i = 0; i < N; i++) {
            float difference = this_scale * q[i] + this_min - x[i];
            error += weight[i] * (difference * difference);
        }
        if (error < best) {
            best = error;
            scale = this_scale;
            min = this_min;
            for (int i = 0; i < N; i++) codes[i] = (uint8_t)q[i];
        }
    }
    *min_out = -min;
    return scale;
}

static inline bool quantize_q4_k(const float *x, uint8_t *out) {
    float scales[8], mins[8], most_scale = 0, most_min = 0;
    uint8_t codes[256];
    for (int j = 0; j < 8; j++) {
        float weight[32], squares = 0;
        for (int l = 0; l < 32; l++) squares += x[32 * j + l] * x[32 * j + l];
        float average = sqrtf(squares / 32);
        for (int l = 0; l < 32; l++) weight[l] = average + fabsf(x[32 * j + l]);
        scales[j] = q4_k_group(x + 32 * j, weight, codes + 32 * j, &mins[j]);
        if (scales[j] > most_scale) most_scale = scales[j];
        if (mins[j] > most_min) most_min = mins[j];
    }
    float inverse_scale = most_scale > 0 ? 63.0f / most_scale : 0, inverse_min = most_min > 0 ? 63.0f / most_min : 0;
    memset(out, 0, 144);
    uint8_t *six = out + 4, *qs = out + 16;
    for (int j = 0; j < 8; j++) {
        uint8_t s = (uint8_t)quant_nearest(inverse_scale * scales[j]),
                m = (uint8_t)quant_nearest(inverse_min * mins[j]);
        if (s > 63) s = 63;
        if (m > 63) m = 63;
        if (j < 4) {
            six[j] = s;
            six[j + 4] = m;
        } else {
            six[j + 4] = (uint8_t)((s & 15) | (m & 15) << 4);
            six[j - 4] = (uint8_t)(six[j - 4] | (s >> 4) << 6);
            six[j] = (uint8_t)(six[j] | (m >> 4) << 6);
        }
    }
    bool finite = quant_put_f16(out, most_scale / 63.0f) & quant_put_f16(out + 2, most_min / 63.0f);
    for (int j = 0; j < 8; j++) {
        float scale, min;
        gguf_k4_scale(six, j, &scale, &min);
        scale = gguf_f16(out) * scale;
        min = gguf_f16(out + 2) * min;
        /* A group whose scale came out as 0 keeps the codes of the search. */
        for (int l = 0; l < 32 && scale != 0; l++) {
            codes[32 * j + l] = (uint8_t)quant_clamp(quant_nearest((x[32 * j + l] + min) / scale), 0, 15);
        }
    }
    for (int j = 0; j < 8; j++) {
        for (int l = 0; l < 32; l++) qs[32 * (j / 2) + l] |= (uint8_t)(codes[32 * j + l] << 4 * (j % 2));
    }
    return finite;
}

/* A scale s for 16 values such that x ≈ s·q, q from −32 to 31, has a small squared error weighted by x²: 19 scales around the one that maps
   the value of the largest magnitude to −32 are tried, each improved by least squares. Returns s; codes[i] = q + 32. */
static inline float q6_k_group(const float *x, uint8_t *codes) {
    enum { N = 16, MOST = 32 };
    float largest = 0, max = 0;
    for (int i = 0; i < N; i++) {
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            max = x[i];
        }
    }
    memset(codes, 0, N);
    if (largest < QUANT_TINY) return 0;
    float scale = 0, best = 0;
    for (int attempt = 0; attempt < 19; attempt++) {
        int step = attempt == 0 ? 0 : attempt <= 9 ? attempt - 10 : attempt - 9; /* 0, then −9 to −1, 1 to 9 */
        float inverse = attempt == 0 ? (float)-MOST / max : -((float)MOST + 0.1f * (float)step) / max;
        float sum_lx = 0, sum_l2 = 0;
        int q[N];
        for (int i = 0; i < N; i++) q[i] = quant_clamp(quant_nearest(inverse * x[i]), -MOST, MOST - 1);
        for (int i = 0; i < N; i++) {
            float w = x[i] * x[i];
            sum_lx += w * x[i] * (float)q[i];
            sum_l2 += w * (float)q[i] * (float)q[i];
        }
        if (attempt > 0 && !(sum_l2 > 0 && sum_lx * sum_lx > best * sum_l2)) continue;
        for (int i = 0; i < N; i++) codes[i] = (uint8_t)(q[i] + MOST);
        scale = sum_l2 != 0 ? sum_lx / sum_l2 : 0;
        best = scale * sum_lx;
    }
    return scale;
}

static inline bool quantize_q6_k(const float *x, uint8_t *out) {
    float scales[16], largest = 0, max = 0;
    uint8_t codes[256];
    for (int j = 0; j < 16; j++) {
        scales[j] = q6_k_group(x + 16 * j, codes + 16 * j);
        if (fabsf(scales[j]) > largest) {
            largest = fabsf(scales[j]);
            max = scales[j];
        }
    }
    memset(out, 0, 210);
    if (largest < QUANT_TINY) return true;
    float inverse = -128.0f / max;
    bool finite = quant_put_f16(out + 208, 1 / inverse);
    for (int j = 0; j < 16; j++) {
        int s = quant_nearest(inverse * scales[j]);
        int8_t stored = (int8_t)(s < 127 ? s : 127);
        out[192 + j] = (uint8_t)stored;
        float scale = gguf_f16(out + 208) * (float)stored;
        /* A group whose scale came out as 0 keeps the codes of the search. */
        for (int l = 0; l < 16 && scale != 0; l++) {
            codes[16 * j + l] = (uint8_t)(quant_clamp(quant_nearest(x[16 * j + l] / scale), -32, 31) + 32);
        }
    }
    for (int i = 0; i < 256; i++) {
        int half = i / 128, u = i % 128 / 32, l = i % 32; /* the unit's nibble and its two high bits: see l4j_q6_k */
        out[64 * half + 32 * (u % 2) + l] |= (uint8_t)((codes[i] & 15) << 4 * (u / 2));
        out[128 + 32 * half + l] |= (uint8_t)((codes[i] >> 4) << 2 * u);
    }
    return finite;
}

#endif
