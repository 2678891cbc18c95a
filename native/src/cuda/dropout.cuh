/* The dropout of l4j_lora on tiles and accumulators: the bits of src/cpu/dropout.h. */
#pragma once

#include "tile.cuh"

namespace l4j {

/* One adapter's stream on one projection. An element is kept when its 16 bits are ≥ threshold; 0 keeps all. */
struct Dropout {
    uint32_t threshold, key0, key1, stream, step;
    const uint32_t *token_index;

    /* The bits of the two columns 32·block + 8·j + 2·t + {0, 1} are the halves of word j. */
    __device__ Philox bits(uint32_t token, int64_t block, int t) const {
        return philox(token, static_cast<uint32_t>(4 * block + t), stream, step, key0, key1);
    }
    __device__ bool kept(const Philox &p, int j, int half) const {
        return (half ? p.w[j] >> 16 : p.w[j] & 0xFFFF) >= threshold;
    }
    /* One element. */
    __device__ bool kept(int64_t m, int64_t n) const {
        Philox p = bits(token_index[m], n / 32, static_cast<int>(n % 8) / 2);
        int word = static_cast<int>(n % 32) / 8;
        uint32_t w = word == 0 ? p.w[0] : word == 1 ? p.w[1] : word == 2 ? p.w[2] : p.w[3];
        return (n % 2 ? w >> 16 : w & 0xFFFF) >= threshold;
    }
};

/* Zeroes what is dropped in tiles of x: rows are tokens, columns features. */
struct TileMask {
    static constexpr bool kActive = true;
    Dropout drop;
    const int32_t *gather;

    template <class T, int ROWS, int COLS> __device__ void apply(T *tile, int64_t r0, int64_t rows, int64_t c0) const {
        constexpr int WIDTH = COLS % 32 == 0 ? 32 : 16, UNITS = ROWS * (COLS / WIDTH) * 4, VEC = 16 / sizeof(T);
        for (int i = threadIdx.x; i < UNITS; i += kThreads) {
            int t = i % 4, part = i / 4 % (COLS / WIDTH), r = i / (4 * (COLS / WIDTH));
            if (r0 + r >= rows) continue;
            int64_t m = gather ? gather[r0 + r] : r0 + r, first = c0 + part * WIDTH;
            Philox p = drop.bits(drop.token_index[m], first / 32, t);
#pragma unroll
            for (int j = 0; j < WIDTH / 8; j++) {
                int c = part * WIDTH + 8 * j + 2 * t, word = static_cast<int>(first % 32) / 8 + j;
                T *at = tile + r * COLS + swizzle<COLS / VEC>(r, c / VEC) * VEC + c % VEC;
                uint32_t w = word == 0 ? p.w[0] : word == 1 ? p.w[1] : word == 2 ? p.w[2] : p.w[3];
                if ((w & 0xFFFF) < drop.threshold) at[0] = from_float<T>(0.0f);
                if (w >> 16 < drop.threshold) at[1] = from_float<T>(0.0f);
            }
        }
    }
};

/* Zeroes the halves of two packed values whose 16 bits are below the threshold. */
__device__ inline uint32_t masked(uint32_t pair, uint32_t low, uint32_t high, uint32_t threshold) {
    return pair & ((low >= threshold ? 0xFFFFu : 0) | (high >= threshold ? 0xFFFF0000u : 0));
}

/* The same on fragments of A whose rows are tokens and whose contraction is features: a thread's columns are 2t and 2t + 1 of every
   eight, so it draws what it needs of 32 features at once. */
template <class Acc> struct RowMask {
    static constexpr bool kActive = true;
    Dropout drop;
    uint32_t token[Acc::MI * 2];
    Philox bits[Acc::MI * 2];

    __device__ RowMask(const Dropout &d, int64_t m0, int64_t rows) : drop(d) {
#pragma unroll
        for (int i = 0; i < Acc::MI * 2; i++) {
            int64_t m = m0 + Acc::row(i / 2 * Acc::NI * 4 + i % 2 * 2);
            token[i] = d.token_index[m < rows ? m : rows - 1];
        }
    }
    __device__ void fragments(typename Acc::Fragments &f, int64_t k, int part) {
#pragma unroll
        for (int i = 0; i < Acc::MI * 2; i++) {
            if (part % 2 == 0) bits[i] = drop.bits(token[i], k / 32, threadIdx.x % 4);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t w = bits[i].w[part % 2 * 2 + half], &pair = f.a[i / 2][half * 2 + i % 2];
                pair = masked(pair, w & 0xFFFF, w >> 16, drop.threshold);
            }
        }
    }
};

/* The same on fragments of A whose rows are features and whose contraction is tokens, `tokens` of them in shared memory. */
template <class Acc> struct ColumnMask {
    static constexpr bool kActive = true;
    static_assert(Acc::MI == 2, "a warp has 32 features");
    Dropout drop;
    const uint32_t *tokens; /* of the contraction's first row on */
    int64_t k0, block;      /* block: of 32 features */
    int32_t count;

    __device__ void fragments(typename Acc::Fragments &f, int64_t k, int) const {
        int lane = threadIdx.x % 32, feature = lane / 4, shift = feature % 2 * 16;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            Philox p[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int at = static_cast<int>(k - k0) + half * 8 + lane % 4 * 2 + i;
                p[i] = drop.bits(tokens[at < count ? at : 0], block, feature / 2);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t &pair = f.a[j / 2][half * 2 + j % 2];
                pair = masked(pair, p[0].w[j] >> shift & 0xFFFF, p[1].w[j] >> shift & 0xFFFF, drop.threshold);
            }
        }
    }
};

/* Calls f(e, kept) for every accumulator; row m0 + row(e), column n0 + col(e), n0 a multiple of 32. Rows from `rows` on are not asked. */
template <class Acc, class F>
__device__ void each_kept(const Dropout &drop, int64_t m0, int64_t rows, int64_t n0, F f) {
    if constexpr (Acc::kTensor && Acc::NI % 4 == 0) {
        int t = threadIdx.x % 4; /* a thread's columns: 2t and 2t + 1 of every eight */
#pragma unroll
        for (int i = 0; i < Acc::MI; i++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int g = 0; g < Acc::NI / 4; g++) {
                    int e0 = (i * Acc::NI + g * 4) * 4 + half * 2;
                    int64_t m = m0 + Acc::row(e0);
                    if (m >= rows) continue;
                    Philox p = drop.bits(drop.token_index[m], (n0 + Acc::col(e0)) / 32, t);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        f(e0 + 4 * j, drop.kept(p, j, 0));
                        f(e0 + 4 * j + 1, drop.kept(p, j, 1));
                    }
                }
            }
        }
    } else {
#pragma unroll
        for (int e = 0; e < Acc::kCount; e++) {
            int64_t m = m0 + Acc::row(e), n = n0 + Acc::col(e);
            if (m < rows) f(e, drop.kept(m, n));
        }
    }
}

} // namespace l4j
