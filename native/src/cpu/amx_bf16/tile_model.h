/*
 * The tile registers in software, for tests on processors without them: what Intel's manual says of palette 1, TDPBF16PS and TDPBSSD. Operations
 * on floats run with MXCSR as bf16_enter leaves it.
 */
#ifndef L4J_TILE_MODEL_H
#define L4J_TILE_MODEL_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local uint32_t tile_register[8][16][16];
static _Thread_local tile_config tile_shape;

static inline float tile_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void tile_configure(const tile_config *config) {
    for (int t = 0; t < 8; t++) {
        if (config->palette != 1 || config->row_bytes[t] > 64 || config->rows[t] > 16) abort();
    }
    tile_shape = *config;
}
static inline void tile_release(void) { memset(&tile_shape, 0, sizeof tile_shape); }
static inline void tile_zero(int t) { memset(tile_register[t], 0, sizeof tile_register[t]); }
static inline void tile_load(int t, const void *from, int64_t stride) {
    tile_zero(t);
    for (int i = 0; i < tile_shape.rows[t]; i++)
        memcpy(tile_register[t][i], (const char *)from + i * stride, tile_shape.row_bytes[t]);
}
static inline void tile_store(int t, void *to, int64_t stride) {
    for (int i = 0; i < tile_shape.rows[t]; i++)
        memcpy((char *)to + i * stride, tile_register[t][i], tile_shape.row_bytes[t]);
}
/* An exception of the instructions where the shapes do not fit. */
static inline void tile_check(int c, int a, int b) {
    const tile_config *s = &tile_shape;
    if (!s->palette || s->rows[c] != s->rows[a] || s->row_bytes[c] != s->row_bytes[b] ||
        s->row_bytes[a] != 4 * s->rows[b])
        abort();
}
static inline void tile_multiply(int c, int a, int b) {
    tile_check(c, a, b);
    for (int m = 0; m < 16; m++) {
        float sum[16][2] = {{0}};
        for (int k = 0; k < 16; k++) {
            uint32_t x = tile_register[a][m][k];
            for (int n = 0; n < 16; n++) {
                uint32_t y = tile_register[b][k][n];
                sum[n][0] = fmaf(tile_float(x << 16), tile_float(y << 16), sum[n][0]);
                sum[n][1] = fmaf(tile_float(x & 0xFFFF0000u), tile_float(y & 0xFFFF0000u), sum[n][1]);
            }
        }
        for (int n = 0; n < 16; n++) {
            float value = tile_float(tile_register[c][m][n]) + (sum[n][0] + sum[n][1]);
            memcpy(&tile_register[c][m][n], &value, sizeof value);
        }
    }
}
static inline void tile_multiply_bytes(int c, int a, int b) {
    tile_check(c, a, b);
    for (int m = 0; m < tile_shape.rows[c]; m++) {
        for (int k = 0; k < tile_shape.rows[b]; k++) {
            int8_t x[4];
            memcpy(x, &tile_register[a][m][k], 4);
            for (int n = 0; n < tile_shape.row_bytes[c] / 4; n++) {
                int8_t y[4];
                memcpy(y, &tile_register[b][k][n], 4);
                int32_t sum = x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
                tile_register[c][m][n] += (uint32_t)sum;
            }
        }
    }
}

#endif
