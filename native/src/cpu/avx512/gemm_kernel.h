/* Shape of the register tile and of the cache blocks on AVX-512: 12 x 32, 24 accumulators of the 32 registers. */
#ifndef L4J_GEMM_KERNEL_H
#define L4J_GEMM_KERNEL_H

enum {
    GEMM_MR = 12,    /* rows of a tile */
    GEMM_NV = 2,     /* panels of 16 columns in a tile */
    GEMM_KC = 384,   /* most contraction steps of a block */
    GEMM_MC = 144,   /* rows whose packed block stays in L2 */
    GEMM_STRIP = 128 /* columns that all packed rows stream past: the rows come from L2 as often as there are tiles */
};

#define GEMM_HALF 0 /* half a panel costs as much as a whole one */

#endif
