/*
 * The instructions on tile registers (Intel AMX-TILE, AMX-BF16 and AMX-INT8). Written here because GCC's _tile_loadconfig names only eight bytes
 * of what it reads, so that the compiler drops stores to the others, and its _tile_loadd names none at all.
 */
#ifndef L4J_TMUL_H
#define L4J_TMUL_H

#include <stdint.h>

/* What LDTILECFG reads. Palette 1: eight registers of up to 16 rows of 64 bytes. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

#ifdef L4J_TILE_MODEL
#include "tile_model.h"
#else
#define tile_configure(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(config)))
#define tile_release() __asm__ volatile("tilerelease" ::)
#define tile_zero(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define tile_load(t, from, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(from), "r"((int64_t)(stride)) : "memory")
#define tile_store(t, to, stride) \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride)) : "memory")
#define tile_multiply(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
/* Sums of products of signed bytes. */
#define tile_multiply_bytes(c, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#endif

#endif
