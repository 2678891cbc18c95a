// What the bf16 instructions of a core do at most: operands in registers, independent sums.
#pragma once

#include "cpu/amx_bf16/tmul.h"

#include <immintrin.h>

#include <cstdint>

const double kTmulFlops = 4.0 * 2 * 16 * 16 * 32; // of a round

// TDPBF16PS on four tiles of C, two of A, two of B. The process needs the permission that l4j_device_open asks Linux for.
inline void tmul(int64_t rounds) {
    tile_config config = {};
    config.palette = 1;
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    tile_configure(&config);
    alignas(64) uint16_t values[512];
    for (int i = 0; i < 512; i++) values[i] = static_cast<uint16_t>(0x3C00 + 37 * i % 512 + (i % 3 ? 0 : 0x8000));
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    tile_load(4, values, 64);
    tile_load(5, values, 64);
    tile_load(6, values, 64);
    tile_load(7, values, 64);
    for (int64_t i = 0; i < rounds; i++) {
        tile_multiply(0, 4, 6);
        tile_multiply(1, 4, 7);
        tile_multiply(2, 5, 6);
        tile_multiply(3, 5, 7);
    }
    tile_release();
}

const double kVdpbf16Flops = 24.0 * 64;

__attribute__((target("avx512f,avx512bf16"))) inline void vdpbf16(int64_t rounds) {
    __m512 acc[24];
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3F7F3F7F), y = (__m512bh)_mm512_set1_epi32(0x3A833A83);
    for (__m512 &a : acc) a = _mm512_setzero_ps();
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; j++) acc[j] = _mm512_dpbf16_ps(acc[j], x, y);
    }
    for (__m512 &a : acc) asm volatile("" ::"v"(a));
}
