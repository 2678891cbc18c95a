/* Shape of the register tile and of the cache blocks on AVX2: 6 x 16, twelve accumulators of the sixteen registers. */
#ifndef L4J_GEMM_KERNEL_H
#define L4J_GEMM_KERNEL_H

enum {
    GEMM_MR = 6,    /* rows of a tile */
    GEMM_NV = 1,    /* panels of 16 columns in a tile */
    GEMM_KC = 384,  /* most contraction steps of a block: a panel of B (16·KC floats) stays in L1 */
    GEMM_MC = 144,  /* rows whose packed block stays in L2 */
    GEMM_STRIP = 16 /* columns that all packed rows stream past: one tile, which stays in L1 */
};

#define GEMM_HALF 1 /* half a panel is one register and costs half: for low ranks */

#endif
