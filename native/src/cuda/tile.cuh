/*
 * A block's product C[BM, BN] += A · B over a contraction, for 16-bit values on the tensor cores (mma.sync m16n8k16) and for fp32 on
 * the CUDA cores. Operands come through a ring of stages in shared memory (cp.async where rows are aligned to 16 bytes, converted
 * loads otherwise). Each element is one chain over the contraction in ascending order, in steps of 16 on the tensor cores and of 1
 * in fp32: so its bits depend neither on the tile that it lies in nor on its neighbours.
 */
#pragma once

#include "common.cuh"

namespace l4j {

constexpr int kThreads = 256; /* of a block, unless it says otherwise */

/* Element (r, c) at data[r * rs + c * cs]; c runs along a row of the tile in shared memory. */
struct Operand {
    const char *data;
    int64_t rs, cs;
    int32_t dtype;
    bool fast;             /* rows start where 16 bytes can be copied at once */
    const int32_t *gather; /* row r is row gather[r] of the data; NULL: itself */
};

__host__ __device__ inline bool rows_are_aligned(const View &v, int32_t dtype) {
    return v.dtype == dtype && v.s1 == 1 && v.s0 * element_bytes(dtype) % 16 == 0 &&
           reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
}
template <class T> __device__ Operand operand(const View &v, const int32_t *gather = nullptr) {
    return Operand{v.data, v.s0, v.s1, v.dtype, rows_are_aligned(v, kDtype<T>), gather};
}

__device__ inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
/* Copies 16 bytes, or writes zeros and reads nothing. `to` is an address in shared memory. */
__device__ inline void copy16(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;\n" ::); }
template <int N> __device__ inline void wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

/* Place of 16-byte chunk c of row r: eight rows at one chunk lie in eight different groups of banks. */
template <int CHUNKS> __device__ inline int swizzle(int r, int c) {
    return CHUNKS >= 8 ? c ^ (r & 7) : c ^ (r / (8 / CHUNKS) & (CHUNKS - 1));
}

/* The 16 bytes from element (row, col) on into shared memory; zeros outside of [rows, cols]. */
template <class T>
__device__ inline void load_chunk(T *to, const Operand &o, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    constexpr int VEC = 16 / sizeof(T);
    int64_t left = cols - col;
    int valid = row >= rows || left <= 0 ? 0 : left < VEC ? static_cast<int>(left) : VEC;
    if (o.gather && valid) row = o.gather[row];
    if (o.fast && (valid == VEC || valid == 0)) { /* a part of a chunk may end where the memory ends */
        const char *from = o.data + (valid ? (row * o.rs + col) * static_cast<int64_t>(sizeof(T)) : 0);
        copy16(shared_address(to), from, valid != 0);
    } else {
        alignas(16) T v[VEC];
#pragma unroll
        for (int e = 0; e < VEC; e++) {
            v[e] = from_float<T>(e < valid ? read(o.data, o.dtype, row * o.rs + (col + e) * o.cs) : 0.0f);
        }
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(v);
    }
}
/* Rows [r0, r0 + ROWS) and columns [c0, c0 + COLS) of an operand; zeros outside of [rows, cols]. */
template <class T, int ROWS, int COLS>
__device__ void load_tile(T *tile, const Operand &o, int64_t r0, int64_t rows, int64_t c0, int64_t cols) {
    constexpr int VEC = 16 / sizeof(T), CHUNKS = COLS / VEC;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += kThreads) {
        int r = i / CHUNKS, c = i % CHUNKS;
        load_chunk(tile + r * COLS + swizzle<CHUNKS>(r, c) * VEC, o, r0 + r, rows, c0 + c * VEC, cols);
    }
}

/* ---- tensor cores ---- */

template <bool TRANS> __device__ inline void load_matrices(uint32_t (&m)[4], const void *row) {
    if constexpr (TRANS) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                     : "r"(shared_address(row)));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                     : "r"(shared_address(row)));
    }
}
template <class T> __device__ inline void mma(float *c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (sizeof(T) == 2 && kDtype<T> == L4J_BF16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};\n"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};\n"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

/*
 * The accumulators of a block of WM × WN warps over C[BM, BN], and one step of BK of the contraction. AT: A's tile is [BK, BM], its rows
 * are the contraction; otherwise [BM, BK]. BT likewise: [BK, BN] or [BN, BK]. Of KW such groups of warps each takes every KW-th 32 of the
 * contraction; each_sum adds them up.
 */
template <class T, int BM_, int BN_, int WM, int WN, int BK_ = 64 / sizeof(T), int STAGES_ = 4, int KW = 1>
struct Block {
    using Value = T;
    static constexpr int BM = BM_, BN = BN_, BK = BK_, STAGES = STAGES_, THREADS = WM * WN * KW * 32;
    static constexpr int GROUP = WM * WN * 32; /* threads of a group */
    static constexpr bool kTensor = sizeof(T) == 2;
    static constexpr int MI = BM / WM / 16, NI = BN / WN / 8; /* tensor cores: tiles of 16 x 8 of a warp */
    static constexpr int RI = BM / 16, CI = BN / 16;          /* CUDA cores: elements of a thread */
    static constexpr int kCount = BM * BN / GROUP;
    static constexpr int PARTS = BK / 16 / KW;    /* of 16 of the contraction that a warp takes of a step */
    static constexpr int kStage = (BM + BN) * BK; /* elements of the tiles of one step */
    static constexpr size_t kShared = static_cast<size_t>(STAGES) * kStage * sizeof(T);
    static_assert(kTensor || (THREADS == 256 && KW == 1), "the CUDA cores' layout is of 16 x 16 threads");
    static_assert(KW == 1 || (BK % (32 * KW) == 0 && kCount % KW == 0 && KW * BM * BN * sizeof(float) <= kShared));

    /* What a warp multiplies in 16 of the contraction. */
    struct Fragments {
        uint32_t a[MI][4], b[NI / 2][4];
    };

    float c[kCount];

    __device__ void clear() {
#pragma unroll
        for (int e = 0; e < kCount; e++) c[e] = 0.0f;
    }
    /* Row and column of accumulator e in the block. */
    __device__ static int row(int e) {
        if constexpr (kTensor) {
            int warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32;
            return warp / WN * (BM / WM) + e / (4 * NI) * 16 + lane / 4 + e % 4 / 2 * 8;
        } else {
            return threadIdx.x / 16 + 16 * (e / CI);
        }
    }
    __device__ static int col(int e) {
        if constexpr (kTensor) {
            int warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32;
            return warp % WN * (BN / WN) + e / 4 % NI * 8 + lane % 4 * 2 + e % 2;
        } else {
            return threadIdx.x % 16 + 16 * (e % CI);
        }
    }

    template <bool AT, bool BT> __device__ void step(const T *a, const T *b) {
        if constexpr (kTensor) {
            step_tensor<AT, BT>(a, b);
        } else {
            step_plain<AT, BT>(a, b);
        }
    }

    /* Where the warp's part g of a step begins. */
    __device__ static int place(int g) {
        return KW == 1 ? g * 16 : (g / 2 * KW + static_cast<int>(threadIdx.x) / GROUP) * 32 + g % 2 * 16;
    }
    /* The warp's fragments of the tiles at k of the contraction, a multiple of 16. */
    template <bool AT, bool BT> __device__ static void fetch(Fragments &f, const T *a, const T *b, int k) {
        int warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32, quad = lane / 8, in = lane % 8;
        int m0 = warp / WN * (BM / WM), n0 = warp % WN * (BN / WN);
#pragma unroll
        for (int i = 0; i < MI; i++) {
            if constexpr (AT) {
                int r = k + quad / 2 * 8 + in, chunk = (m0 + i * 16) / 8 + quad % 2;
                load_matrices<true>(f.a[i], a + r * BM + swizzle<BM / 8>(r, chunk) * 8);
            } else {
                int r = m0 + i * 16 + lane % 16, chunk = k / 8 + lane / 16;
                load_matrices<false>(f.a[i], a + r * BK + swizzle<BK / 8>(r, chunk) * 8);
            }
        }
#pragma unroll
        for (int j = 0; j < NI / 2; j++) {
            if constexpr (BT) {
                int r = k + quad % 2 * 8 + in, chunk = (n0 + j * 16) / 8 + quad / 2;
                load_matrices<true>(f.b[j], b + r * BN + swizzle<BN / 8>(r, chunk) * 8);
            } else {
                int r = n0 + j * 16 + quad / 2 * 8 + in, chunk = k / 8 + quad % 2;
                load_matrices<false>(f.b[j], b + r * BK + swizzle<BK / 8>(r, chunk) * 8);
            }
        }
    }
    __device__ void accumulate(const Fragments &f) {
#pragma unroll
        for (int i = 0; i < MI; i++) {
#pragma unroll
            for (int j = 0; j < NI; j++) {
                mma<T>(&c[(i * NI + j) * 4], f.a[i], f.b[j / 2][j % 2 * 2], f.b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    /* Calls f(row, column, sum) once for every element, by one thread of the block each. The contraction is over. */
    template <class F> __device__ void each_sum(T *shared, F f) const {
        if constexpr (KW == 1) {
#pragma unroll
            for (int e = 0; e < kCount; e++) f(row(e), col(e), c[e]);
        } else {
            float *all = reinterpret_cast<float *>(shared);
            int group = threadIdx.x / GROUP, t = threadIdx.x % GROUP;
#pragma unroll
            for (int e = 0; e < kCount; e++) all[(group * kCount + e) * GROUP + t] = c[e];
            __syncthreads();
#pragma unroll
            for (int i = 0; i < kCount / KW; i++) {
                int e = group * (kCount / KW) + i;
                float sum = all[e * GROUP + t];
#pragma unroll
                for (int other = 1; other < KW; other++) sum += all[(other * kCount + e) * GROUP + t];
                f(row(e), col(e), sum);
            }
            __syncthreads();
        }
    }

private:
    template <bool AT, bool BT> __device__ void step_tensor(const T *a, const T *b) {
#pragma unroll
        for (int g = 0; g < PARTS; g++) {
            Fragments f;
            fetch<AT, BT>(f, a, b, place(g));
            accumulate(f);
        }
    }

    template <bool AT, bool BT> __device__ void step_plain(const T *a, const T *b) {
        int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll 4
        for (int k = 0; k < BK; k++) {
            float av[RI], bv[CI];
#pragma unroll
            for (int i = 0; i < RI; i++) av[i] = at<AT, BM>(a, ty + 16 * i, k);
#pragma unroll
            for (int j = 0; j < CI; j++) bv[j] = at<BT, BN>(b, tx + 16 * j, k);
#pragma unroll
            for (int i = 0; i < RI; i++) {
#pragma unroll
                for (int j = 0; j < CI; j++) c[i * CI + j] = __fmaf_rn(av[i], bv[j], c[i * CI + j]);
            }
        }
    }
    template <bool TRANS, int WIDE> __device__ static float at(const T *tile, int i, int k) {
        int r = TRANS ? k : i, x = TRANS ? i : k;
        constexpr int COLS = TRANS ? WIDE : BK;
        return to_float(tile[r * COLS + swizzle<COLS / 4>(r, x / 4) * 4 + x % 4]);
    }
};

/* Nothing is done to A's tiles. */
struct NoMask {
    static constexpr bool kActive = false;
};

/* acc += A · B over the contraction [k0, k1); A has m rows (columns if AT), B n. `mask` may change A's tile before it is used. */
template <bool AT, bool BT, class T, class Acc, class Mask = NoMask>
__device__ void multiply(Acc &acc, T *shared, const Operand &a, int64_t m0, int64_t m, const Operand &b, int64_t n0,
                         int64_t n, int64_t k0, int64_t k1, const Mask &mask = Mask()) {
    constexpr int BM = Acc::BM, BN = Acc::BN, BK = Acc::BK, STAGE = Acc::kStage, kStages = Acc::STAGES;
    static_assert(Acc::THREADS == kThreads, "load_tile counts on it");
    int64_t steps = (k1 - k0 + BK - 1) / BK;
    auto load = [&](int64_t i) {
        T *at = shared + i % kStages * STAGE, *bt = at + BM * BK;
        int64_t k = k0 + i * BK;
        if constexpr (AT) {
            load_tile<T, BK, BM>(at, a, k, k1, m0, m);
        } else {
            load_tile<T, BM, BK>(at, a, m0, m, k, k1);
        }
        if constexpr (BT) {
            load_tile<T, BK, BN>(bt, b, k, k1, n0, n);
        } else {
            load_tile<T, BN, BK>(bt, b, n0, n, k, k1);
        }
    };
    for (int i = 0; i < kStages - 1; i++) {
        if (i < steps) load(i);
        commit();
    }
    for (int64_t i = 0; i < steps; i++) {
        wait<kStages - 2>();
        __syncthreads();
        T *at = shared + i % kStages * STAGE;
        if constexpr (Mask::kActive) {
            if constexpr (AT) {
                mask.template apply<T, BK, BM>(at, k0 + i * BK, k1, m0);
            } else {
                mask.template apply<T, BM, BK>(at, m0, m, k0 + i * BK);
            }
            __syncthreads();
        }
        if (i + kStages - 1 < steps) load(i + kStages - 1);
        commit();
        acc.template step<AT, BT>(at, at + BM * BK);
    }
    wait<0>();
    __syncthreads();
}

} // namespace l4j
