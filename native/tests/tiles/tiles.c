#include "tiles.h"

#include "cpu/ref/chain.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

extern const l4j_tile_kernel l4j_tile_model, l4j_avx2_bf16_tile_fma, l4j_avx512_bf16_tile_fma;

static const l4j_tile_kernel *const kernels[TILES_KERNELS] = {[TILES_MODEL] = &l4j_tile_model,
                                                              [TILES_AVX2] = &l4j_avx2_bf16_tile_fma,
                                                              [TILES_AVX512] = &l4j_avx512_bf16_tile_fma,
                                                              [TILES_AVX512_BF16] = &l4j_tile_avx512_bf16,
                                                              [TILES_AMX_BF16] = &l4j_tile_amx_bf16};

static void chains(int rows, int panels, int k, int first, const float *a, const float *b, const float *start,
                   float *c) {
    for (int m = 0; m < rows; m++) {
        for (int n = 0; n < 16 * panels; n++) {
            bf16_chain chain = bf16_start(start ? start[m * 32 + n] : 0);
            for (int i = 0; i < k; i++) {
                if (i == first) bf16_end(&chain);
                bf16_step(&chain, bf16_operand(a[m * k + i]), bf16_operand(b[i * 16 * panels + n]));
            }
            c[m * 32 + n] = bf16_end(&chain);
        }
    }
}

void tiles_multiply(int kernel, int rows, int panels, int k, int first, const float *a, const float *b,
                    const float *start, float *c) {
    if (kernel == TILES_CHAIN) {
        chains(rows, panels, k, first, a, b, start, c);
        return;
    }
    const l4j_tile_kernel *run = kernels[kernel];
    int64_t panel = l4j_tiles(k) * L4J_TILE;
    uint16_t *at = aligned_alloc(64, sizeof(uint16_t) * 4 * (size_t)panel), *bt = at + 2 * panel;
    memset(at, 0, sizeof(uint16_t) * 4 * (size_t)panel);
    for (int i = 0; i < k; i++) {
        int place = l4j_tile_place(run->quads, i);
        int64_t tile = i / L4J_TILE_STEPS * L4J_TILE;
        for (int m = 0; m < rows; m++)
            at[m / 16 * panel + tile + m % 16 * L4J_TILE_STEPS + place] = l4j_f32_to_bf16(a[m * k + i]);
        for (int n = 0; n < 16 * panels; n++)
            bt[n / 16 * panel + tile + place / 2 * 32 + n % 16 * 2 + place % 2] =
                l4j_f32_to_bf16(b[i * 16 * panels + n]);
    }
    int64_t skip = first / L4J_TILE_STEPS * L4J_TILE;
    l4j_tile_piece pieces[2] = {{at, bt, panel, panel, first / L4J_TILE_STEPS, 0},
                                {at + skip, bt + skip, panel, panel, l4j_tiles(k) - first / L4J_TILE_STEPS, 0}};
    unsigned callers = _mm_getcsr();
    _mm_setcsr(callers | 0x8040);
    if (run->begin) run->begin();
    run->run(run->whole ? (rows + 15) / 16 * 16 : rows, panels, pieces, 2, start, 32, c, 32);
    if (run->end) run->end();
    _mm_setcsr(callers);
    free(at);
}
