/*
 * Attention of 16-bit values on the tensor cores (Dao 2023): tiles of queries and keys in shared memory, scores and sums in a warp's
 * registers. A warp has 16 rows of a tile, or MT times 16, whole: so no row's sums are shared between warps. Probabilities and their
 * gradients are rounded to 16 bits before they are multiplied again.
 */
#pragma once

#include "attention.cuh"
#include "feed.cuh"

namespace l4j {

constexpr float kLog2E = 1.4426950408889634f;

/* Columns of a tile in shared memory: whole groups of banks, so that the swizzle has eight chunks to choose from. */
template <int D> constexpr int kColumns = D <= 64 ? 64 : D <= 128 ? 128 : 256;

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ inline void copy4(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from), "r"(there ? 4 : 0));
}

/* One head's rows from `first` on. */
__device__ inline Operand head_rows(const View &x, int64_t first, int64_t head) {
    return Operand{x.data + (first * x.s0 + head * x.s1) * 2, x.s0, 1, x.dtype, true, nullptr};
}

/* ---- fragments of mma.sync from a tile with COLS columns ---- */

/* A[16, 16] at row r0 and column k. */
template <int COLS, class T> __device__ inline void rows_fragment(uint32_t (&f)[4], const T *tile, int r0, int k) {
    int lane = threadIdx.x % 32, r = r0 + lane % 16;
    load_matrices<false>(f, tile + r * COLS + swizzle<COLS / 8>(r, k / 8 + lane / 16) * 8);
}
/* B[16, 16] whose columns are the tile's rows from n on, the contraction its columns from k on. */
template <int COLS, class T> __device__ inline void along_fragment(uint32_t (&f)[4], const T *tile, int n, int k) {
    int lane = threadIdx.x % 32, quad = lane / 8, r = n + quad / 2 * 8 + lane % 8;
    load_matrices<false>(f, tile + r * COLS + swizzle<COLS / 8>(r, k / 8 + quad % 2) * 8);
}
/* B[16, 16] whose contraction is the tile's rows from k on, its columns the tile's from n on. */
template <int COLS, class T> __device__ inline void down_fragment(uint32_t (&f)[4], const T *tile, int k, int n) {
    int lane = threadIdx.x % 32, quad = lane / 8, r = k + quad % 2 * 8 + lane % 8;
    load_matrices<true>(f, tile + r * COLS + swizzle<COLS / 8>(r, n / 8 + quad / 2) * 8);
}

/* z[m][j] of a warp's rows: A (fragments that a(m, k) gives) · tileᵀ over D columns. */
template <int COLS, int D, int MT, int N, class T, class A>
__device__ inline void scores(float (&z)[MT][N / 8][4], const T *tile, A a) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) z[m][j][e] = 0.0f;
        }
    }
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t af[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) a(af[m], m, k);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[4];
            along_fragment<COLS>(b, tile, j * 16, k);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma<T>(z[m][2 * j], af[m], b[0], b[1]);
                mma<T>(z[m][2 * j + 1], af[m], b[2], b[3]);
            }
        }
    }
}

/* acc[m][d] += z · tile over N rows; z is rounded to T. */
template <int COLS, int D, int MT, int N, class T>
__device__ inline void weigh(float (&acc)[MT][D / 8][4], const float (&z)[MT][N / 8][4], const T *tile) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = packed<T>(z[m][2 * k + i / 2][i % 2 * 2], z[m][2 * k + i / 2][i % 2 * 2 + 1]);
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            down_fragment<COLS>(b, tile, k * 16, n * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma<T>(acc[m][2 * n], a[m], b[0], b[1]);
                mma<T>(acc[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Calls load(stage) for every tile, one ahead of compute(tile, stage) where there are two stages. */
template <int STAGES, class Load, class Compute> __device__ inline void pass(int tiles, Load load, Compute compute) {
    static_assert(STAGES == 1 || STAGES == 2);
    if (STAGES == 2 && tiles > 0) {
        load(0);
        commit();
    }
    for (int t = 0; t < tiles; t++) {
        if (STAGES == 1) {
            __syncthreads();
            load(0);
            commit();
        }
        wait<0>();
        __syncthreads();
        if (STAGES == 2 && t + 1 < tiles) {
            load((t + 1) % 2);
            commit();
        }
        compute(t, STAGES == 2 ? t % 2 : 0);
    }
}

/* Rows row0 + 16·m + {0, 8} of a thread's accumulators, times factor(m, half), to a head's rows. */
template <int MT, int ND, class T, class F>
__device__ inline void store_fragments(const float (&acc)[MT][ND][4], const View &x, int64_t first, int row0, int rows,
                                       int64_t head, int64_t D, F factor) {
    bool pairs = x.s0 % 2 == 0 && x.s1 % 2 == 0 && reinterpret_cast<uintptr_t>(x.data) % 4 == 0;
    int t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = row0 + 16 * m + 8 * half;
            if (r >= rows) continue;
            float c = factor(m, half);
            T *to = reinterpret_cast<T *>(x.data) + (first + r) * x.s0 + head * x.s1 + 2 * t;
#pragma unroll
            for (int n = 0; n < ND; n++) {
                int d = 8 * n + 2 * t;
                float low = acc[m][n][2 * half] * c, high = acc[m][n][2 * half + 1] * c;
                if (pairs && d + 1 < D) {
                    *reinterpret_cast<uint32_t *>(to + 8 * n) = packed<T>(low, high);
                } else {
                    if (d < D) to[8 * n] = from_float<T>(low);
                    if (d + 1 < D) to[8 * n + 1] = from_float<T>(high);
                }
            }
        }
    }
}

/* Calls f with a value of the type and, as a constant, the head dimension that p has on the tensor cores. */
template <int D> struct Depth { static constexpr int value = D; };
template <class F> cudaError_t with_depth(const AttentionParams &p, F f) {
    auto each = [&](auto zero) {
        return p.D <= 64    ? f(zero, Depth<64>())
               : p.D <= 96  ? f(zero, Depth<96>())
               : p.D <= 128 ? f(zero, Depth<128>())
                            : f(zero, Depth<256>());
    };
    return p.q.dtype == L4J_BF16 ? each(bf16()) : each(f16());
}

} // namespace l4j
