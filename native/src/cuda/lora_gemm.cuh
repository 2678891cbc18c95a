/* y = bias + x·Wᵀ + s·Bᵀ and dx = Σ mask ⊙ (ds·A) + Σ dy·W: the low-rank product is more contraction in the same accumulators. Every
   tile gives the same bits, so the number of rows may choose it. */
#pragma once

#include "feed.cuh"
#include "lora_kernels.cuh"

namespace l4j {

/* Four values of each of four neighbouring threads: thread t gets value t of all four, in their order. */
__device__ inline void transpose(uint32_t (&v)[4], int t) {
#pragma unroll
    for (int apart = 1; apart <= 2; apart *= 2) {
        bool upper = t & apart;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & apart) continue;
            uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, upper ? v[i] : v[i + apart], apart);
            v[i] = upper ? got : v[i];
            v[i + apart] = upper ? v[i + apart] : got;
        }
    }
}

/* FAST: all operands may go through Feed. MULTI: several adapters, several masks, or a sum in blocks. */
template <class Tile, bool BACK, bool MULTI, bool FAST> struct Gemm {
    using T = typename Tile::Value;
    using Rows = RowAdapters<Tile::BM, Tile::THREADS>;
    const LoraParams &p;
    T *shared;
    int64_t m0, n0, N;

    template <bool BT> __device__ void product(Tile &acc, const View &a, const View &b, int64_t k0, int64_t k1) const {
        if constexpr (FAST) {
            multiply_fast<false, BT>(acc, shared, operand<T>(a), m0, p.M, operand<T>(b), n0, N, k0, k1);
        } else {
            multiply<false, BT>(acc, shared, operand<T>(a), m0, p.M, operand<T>(b), n0, N, k0, k1);
        }
    }
    /* One adapter on one projection. */
    __device__ void low_rank(Tile &acc, const Adapter &adapter, int g) const {
        const Projection &q = p.projection[g];
        View right = BACK ? adapter.a : adapter.b;
        right.data += p.first * (BACK ? right.s1 : right.s0) * element_bytes(right.dtype);
        product<BACK>(acc, BACK ? q.ds : q.s, right, 0, adapter.rank);
    }
    __device__ void base(Tile &acc, const Projection &q, int64_t k0, int64_t k1) const {
        product<BACK>(acc, BACK ? q.dy : p.x, q.w, k0, k1);
    }

    /* One adapter's term. Where only some rows or columns take it, it has accumulators of its own: with dropout it is added to what is
       there, without it continues that. */
    __device__ void term(Tile &acc, int a, int g, const Rows *rows) const {
        const Adapter &adapter = adapter_of(p, a, g);
        if (adapter.rank == 0) return;
        bool drops = BACK && p.threshold;
        if constexpr (MULTI) {
            Tile t = acc;
            if (drops) t.clear();
            low_rank(t, adapter, g);
            auto own = [&](int e) { return !rows || rows->of[Tile::row(e)] == a; };
            if (drops) {
                each_kept<Tile>(dropout_of(p, a, g), m0, p.M, p.first + n0, [&](int e, bool kept) {
                    if (kept && own(e)) acc.c[e] += t.c[e];
                });
            } else {
#pragma unroll
                for (int e = 0; e < Tile::kCount; e++) {
                    if (own(e)) acc.c[e] = t.c[e];
                }
            }
        } else {
            low_rank(acc, adapter, g);
            if (drops) {
                each_kept<Tile>(dropout_of(p, a, g), m0, p.M, p.first + n0, [&](int e, bool kept) {
                    if (!kept) acc.c[e] = 0.0f;
                });
            }
        }
    }

    /* In this order: the row's scale, the start (bias), the old value. */
    __device__ void store(const Tile &acc, const View &out, const View &start, bool add) const {
#pragma unroll
        for (int e = 0; e < Tile::kCount; e++) {
            int64_t m = m0 + Tile::row(e), n = n0 + Tile::col(e);
            if (m >= p.M || n >= N) continue;
            float v = acc.c[e];
            if (p.row_scale) v *= p.row_scale[m];
            if (start.data) v = read(start, n) + v;
            if (add) v = read(out, m, n) + v;
            write(out, m, n, v);
        }
    }
    /* The same, two neighbours at a time into rows of OUT. */
    template <class OUT>
    __device__ void store_pairs(const Tile &acc, const View &out, const View &start, bool add) const {
#pragma unroll
        for (int r = 0; r < Tile::MI * 2; r++) {
            int e0 = r / 2 * Tile::NI * 4 + r % 2 * 2;
            int64_t m = m0 + Tile::row(e0), n1 = n0 + Tile::col(e0);
            if (m >= p.M) continue;
            OUT *row = reinterpret_cast<OUT *>(out.data) + m * out.s0;
            float scale = p.row_scale ? p.row_scale[m] : 1.0f;
#pragma unroll
            for (int j = 0; j < Tile::NI; j++) {
                int64_t n = n1 + 8 * j;
                if (n >= N) continue;
                float v[2] = {acc.c[e0 + 4 * j] * scale, acc.c[e0 + 4 * j + 1] * scale};
                Pair<OUT> *to = reinterpret_cast<Pair<OUT> *>(row + n);
                if (start.data) {
                    v[0] = read(start, n) + v[0];
                    v[1] = read(start, n + 1) + v[1];
                }
                if (add) {
                    Pair<OUT> old = *to;
                    v[0] = to_float(old.x) + v[0];
                    v[1] = to_float(old.y) + v[1];
                }
                *to = Pair<OUT>{from_float<OUT>(v[0]), from_float<OUT>(v[1])};
            }
        }
    }
    /* Without a start and an old value, eight neighbours at a time: the four threads of a row exchange their pairs of four fragments. */
    __device__ void store_rows(const Tile &acc, const View &out) const {
        int t = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < Tile::MI * 2; r++) {
            int e0 = r / 2 * Tile::NI * 4 + r % 2 * 2;
            int64_t m = m0 + Tile::row(e0), n1 = n0 + Tile::col(e0) - 2 * t + 8 * t;
            T *row = reinterpret_cast<T *>(out.data) + m * out.s0;
            float scale = p.row_scale && m < p.M ? p.row_scale[m] : 1.0f;
#pragma unroll
            for (int j = 0; j < Tile::NI; j += 4) {
                uint32_t v[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    v[i] = packed<T>(acc.c[e0 + 4 * (j + i)] * scale, acc.c[e0 + 4 * (j + i) + 1] * scale);
                transpose(v, t);
                int64_t n = n1 + 8 * j;
                if (m < p.M && n < N) *reinterpret_cast<uint4 *>(row + n) = make_uint4(v[0], v[1], v[2], v[3]);
            }
        }
    }
    __device__ void finish(const Tile &acc, const View &out, const View &start, bool add) const {
        if constexpr (FAST && Tile::NI % 4 == 0) {
            if (!start.data && !add && rows_are_aligned(out, kDtype<T>)) {
                store_rows(acc, out);
                return;
            }
        }
        if constexpr (!FAST) {
            store(acc, out, start, add);
        } else if (out.dtype == L4J_F32) {
            store_pairs<float>(acc, out, start, add);
        } else {
            store_pairs<T>(acc, out, start, add);
        }
    }
};

constexpr int kRaster =
    8; /* rows of tiles that follow one another down a column: they share their weights in the cache */

template <class Tile, bool BACK, bool MULTI, bool FAST, int RESIDENT>
__global__ void __launch_bounds__(Tile::THREADS, RESIDENT) gemm_kernel(const __grid_constant__ LoraParams p) {
    await_previous();
    extern __shared__ uint4 raw[];
    using G = Gemm<Tile, BACK, MULTI, FAST>;
    int z = BACK ? 0 : blockIdx.z;
    int64_t N = BACK ? p.K : p.projection[z].n;
    int64_t mt = (p.M + Tile::BM - 1) / Tile::BM, nt = (N + Tile::BN - 1) / Tile::BN, tile = blockIdx.x;
    if (tile >= mt * nt) return; /* of a narrower projection of the group */
    int64_t group = tile / (kRaster * nt), high = mt - group * kRaster < kRaster ? mt - group * kRaster : kRaster;
    int64_t in = tile - group * kRaster * nt;
    int64_t m0 = (group * kRaster + in % high) * Tile::BM, n0 = in / high * Tile::BN;

    int own = 0; /* the adapter of all rows of the tile */
    if (p.tiles != kAllTiles) {
        own = row_adapter(p, m0);
        bool same = true;
        for (int r = threadIdx.x; r < Tile::BM && m0 + r < p.M; r += Tile::THREADS)
            same &= row_adapter(p, m0 + r) == own;
        if (static_cast<bool>(__syncthreads_and(same)) != (p.tiles == kTilesOfOne)) return;
    }
    G gemm{p, reinterpret_cast<typename Tile::Value *>(raw), m0, n0, N};
    Tile acc;
    acc.clear();
    int first = BACK ? 0 : z, end = BACK ? p.projections : z + 1;
    if constexpr (MULTI) {
        __shared__ typename G::Rows rows;
        if (p.segmented) rows.load(p, m0);
        for (int g = first; g < end; g++) {
            if (p.projection[g].width == 0) continue;
            if (p.segmented) {
                for (int a = rows.next(-1); a >= 0; a = rows.next(a)) gemm.term(acc, a, g, &rows);
            } else {
                gemm.term(acc, 0, g, nullptr);
            }
        }
    } else {
        for (int g = first; g < end; g++) {
            if (p.projection[g].width && own >= 0) gemm.term(acc, own, g, nullptr);
        }
    }
    for (int g = first; g < end && !p.low_rank_only; g++) {
        const Projection &q = p.projection[g];
        int64_t length = BACK ? q.n : p.K;
        if (MULTI && p.fold) {
            for (int64_t k = 0; k < length; k += p.fold) {
                Tile part;
                part.clear();
                gemm.base(part, q, k, k + p.fold < length ? k + p.fold : length);
#pragma unroll
                for (int e = 0; e < Tile::kCount; e++) acc.c[e] += part.c[e];
            }
        } else {
            gemm.base(acc, q, 0, length);
        }
    }
    if (BACK) {
        gemm.finish(acc, p.dx, View{}, p.flags & L4J_LORA_ACCUMULATE_DX);
    } else {
        gemm.finish(acc, p.projection[z].y, p.projection[z].bias, false);
    }
}

/* What launch_gemm has found out about a call. */
struct GemmChoice {
    bool backward, multi, fast;
    int64_t widest; /* columns of the widest output */
    int32_t multiprocessors;
    int32_t shared; /* bytes of shared memory that a block may have */
};

template <class Tile> int64_t tiles(const LoraParams &p, const GemmChoice &c) {
    return ceil_div(p.M, Tile::BM) * ceil_div(c.widest, Tile::BN) * (c.backward ? 1 : p.projections);
}
template <class Tile, bool MULTI, bool FAST, int RESIDENT>
cudaError_t launch_tiles(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c) {
    dim3 grid(blocks(p.M, Tile::BM) * blocks(c.widest, Tile::BN), 1, c.backward ? 1 : p.projections);
    auto start = [&](auto kernel) {
        return p.adapters ? launch_next(queue, kernel, grid, Tile::THREADS, Tile::kShared, p)
                          : launch(queue, kernel, grid, Tile::THREADS, Tile::kShared, p);
    };
    return c.backward ? start(gemm_kernel<Tile, true, MULTI, FAST, RESIDENT>)
                      : start(gemm_kernel<Tile, false, MULTI, FAST, RESIDENT>);
}

/* Any operands. */
template <class T> cudaError_t launch_any(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c) {
    using Tile = Block<T, 128, 128, 2, 4>;
    return c.multi ? launch_tiles<Tile, true, false, 1>(queue, p, c) : launch_tiles<Tile, false, false, 1>(queue, p, c);
}
/* 16-bit operands whose rows are aligned: the largest tile that still gives most multiprocessors something to do. Where there is not
   enough shared memory for the deep stages of the large ones (99 KiB instead of 163 or more), Low takes their place. */
template <class T> cudaError_t launch_fast(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c) {
    using Large = Block<T, 128, 256, 2, 4, 64, 3>;
    using Medium = Block<T, 128, 128, 2, 4, 64, 4>;
    using Low = Block<T, 128, 128, 2, 4>;
    using Small = Block<T, 64, 64, 2, 2, 64>;
    using Narrow = Block<T, 64, 32, 4, 1, 64, 6>;
    int64_t enough = (3 * c.multiprocessors + 3) / 4;
    bool deep = static_cast<size_t>(c.shared) >= Large::kShared;
    if (p.low_rank_only && !p.segmented) {
        return launch_tiles<Low, false, true, 2>(queue, p, c); /* nothing but stores: many blocks */
    }
    bool one_mask = !(c.backward && p.threshold && p.projections > 1);
    if (p.segmented && one_mask && !p.fold && (p.low_rank_only || (deep && tiles<Medium>(p, c) >= enough))) {
        /* Rows of long segments need no accumulators for each adapter, so they take the large tiles. */
        LoraParams some = p;
        some.tiles = kTilesOfOne;
        cudaError_t status = p.low_rank_only                ? launch_tiles<Low, false, true, 2>(queue, some, c)
                             : tiles<Large>(p, c) >= enough ? launch_tiles<Large, false, true, 1>(queue, some, c)
                                                            : launch_tiles<Medium, false, true, 1>(queue, some, c);
        some.tiles = kMixedTiles;
        return status == cudaSuccess ? launch_tiles<Low, true, true, 1>(queue, some, c) : status;
    }
    if (c.multi) {
        return p.M > 64 && tiles<Low>(p, c) >= enough / 2 ? launch_tiles<Low, true, true, 1>(queue, p, c)
                                                          : launch_tiles<Small, true, true, 1>(queue, p, c);
    }
    if (deep && tiles<Large>(p, c) >= enough) return launch_tiles<Large, false, true, 1>(queue, p, c);
    if (deep && tiles<Medium>(p, c) >= enough) return launch_tiles<Medium, false, true, 1>(queue, p, c);
    if (tiles<Low>(p, c) >= enough) return launch_tiles<Low, false, true, 2>(queue, p, c);
    if (tiles<Small>(p, c) >= enough) return launch_tiles<Small, false, true, 2>(queue, p, c);
    return launch_tiles<Narrow, false, true, 2>(queue, p, c);
}

/* Each in a file of its own: they take long to compile. */
cudaError_t launch_gemm_f32(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c);
cudaError_t launch_gemm_bf16(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c);
cudaError_t launch_gemm_f16(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c);

} // namespace l4j
