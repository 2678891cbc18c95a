/*
 * Tiles with TDPBF16PS: two panels of A times two of B, four tiles of C in the registers. The instruction's order is the contract's. It
 * takes whole tiles: 16 rows always, since another height would mean to configure the tile registers anew.
 */
#include "../bf16.h"
#include "tmul.h"

static void amx_begin(void) {
    static const tile_config whole = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    tile_configure(&whole);
}

static void amx_end(void) { tile_release(); }

/* Registers 0 to 3 are C by rows of two, 4 and 5 are A, 6 and 7 are B. */
enum { ROW = 2 * L4J_TILE_STEPS }; /* bytes of a row of a tile of A or B */

#define AMX_START(when, t, i, j)                                                                                       \
    if ((when) && start) tile_load(t, start + (i)*L4J_TILE_ROWS * start_stride + (j)*L4J_TILE_ROWS, start_stride * 4); \
    if ((when) && !start) tile_zero(t);
#define AMX_STORE(when, t, i, j) \
    if (when) tile_store(t, c + (i)*L4J_TILE_ROWS * ldc + (j)*L4J_TILE_ROWS, ldc * 4);

static inline void amx_fetch(const uint16_t *tile) {
    for (int i = 0; i < L4J_TILE; i += 32) __builtin_prefetch(tile + i, 0, 2);
}

#define AMX_INSTANCE(name, two_rows, two_panels)                                                                  \
    static void name(const l4j_tile_piece *pieces, int count, const float *start, int64_t start_stride, float *c, \
                     int64_t ldc) {                                                                               \
        AMX_START(1, 0, 0, 0)                                                                                     \
        AMX_START(two_panels, 1, 0, 1)                                                                            \
        AMX_START(two_rows, 2, 1, 0)                                                                              \
        AMX_START(two_rows &&two_panels, 3, 1, 1)                                                                 \
        for (int q = 0; q < count; q++) {                                                                         \
            const uint16_t *a = pieces[q].a, *b = pieces[q].b;                                                    \
            const int64_t a_panel = pieces[q].a_panel, b_panel = pieces[q].b_panel, ahead = pieces[q].ahead;      \
            for (int64_t t = pieces[q].tiles; t > 0; t--, a += L4J_TILE, b += L4J_TILE) {                         \
                tile_load(6, b, ROW);                                                                             \
                if (two_panels) tile_load(7, b + b_panel, ROW);                                                   \
                tile_load(4, a, ROW);                                                                             \
                if (two_rows) tile_load(5, a + a_panel, ROW);                                                     \
                if (ahead) amx_fetch(b + ahead);                                                                  \
                if (ahead && two_panels) amx_fetch(b + b_panel + ahead);                                          \
                tile_multiply(0, 4, 6);                                                                           \
                if (two_panels) tile_multiply(1, 4, 7);                                                           \
                if (two_rows) tile_multiply(2, 5, 6);                                                             \
                if (two_rows && two_panels) tile_multiply(3, 5, 7);                                               \
            }                                                                                                     \
        }                                                                                                         \
        AMX_STORE(1, 0, 0, 0)                                                                                     \
        AMX_STORE(two_panels, 1, 0, 1)                                                                            \
        AMX_STORE(two_rows, 2, 1, 0)                                                                              \
        AMX_STORE(two_rows &&two_panels, 3, 1, 1)                                                                 \
    }
AMX_INSTANCE(amx_1_1, 0, 0)
AMX_INSTANCE(amx_1_2, 0, 1)
AMX_INSTANCE(amx_2_1, 1, 0)
AMX_INSTANCE(amx_2_2, 1, 1)

static void amx_run(int rows, int panels, const l4j_tile_piece *pieces, int count, const float *start,
                    int64_t start_stride, float *c, int64_t ldc) {
    if (rows > L4J_TILE_ROWS) {
        (panels == 2 ? amx_2_2 : amx_2_1)(pieces, count, start, start_stride, c, ldc);
    } else {
        (panels == 2 ? amx_1_2 : amx_1_1)(pieces, count, start, start_stride, c, ldc);
    }
}

const l4j_tile_kernel l4j_tile_amx_bf16 = {
    .whole = true, .pass = 1 << 30, .begin = amx_begin, .end = amx_end, .run = amx_run};
