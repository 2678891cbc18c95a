/*
 * The tile registers in software, for tests on processors without them: what Intel's manual says of palette 1 and TDPBF16PS. Operations
 * on floats run with MXCSR as bf16_enter leaves it.
 */
#ifndef L4J_TILE_MODEL_H
#define L4J_TILE_MODEL_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t tile_register[8][16][16];

static inline float tile_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void tile_configure(const tile_config *config) {
    for (int t = 0; t < 8; t++) {
        if (config->palette != 1 || config->row_bytes[t] != 64 || config->rows[t] != 16) abort();
    }
}
static inline void tile_release(void) {}
static inline void tile_zero(int t) { memset(tile_register[t], 0, sizeof tile_register[t]); }
static inline void tile_load(int t, const void *from, int64_t stride) {
    for (int i = 0; i < 16; i++) memcpy(tile_register[t][i], (const char *)from + i * stride, 64);
}
static inline void tile_store(int t, void *to, int64_t stride) {
    for (int i = 0; i < 16; i++) memcpy((char *)to + i * stride, tile_register[t][i], 64);
}
static inline void tile_multiply(int c, int a, int b) {
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

#endif
