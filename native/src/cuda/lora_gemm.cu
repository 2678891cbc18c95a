/* y = bias + x·Wᵀ + s·Bᵀ and dx = Σ mask ⊙ (ds·A) + Σ dy·W: the low-rank product is more contraction in the same accumulators. */
#include "lora.cuh"

namespace l4j {

template <class T> using GemmBlock = Block<T, 128, 128, 2, 4>;
constexpr int kTile = 128;
constexpr int kRaster =
    8; /* rows of tiles that follow one another down a column: they share their weights in the cache */

template <class T, bool BACK, bool MULTI> struct Gemm {
    using Acc = GemmBlock<T>;
    const LoraParams &p;
    T *shared;
    int64_t m0, n0, N;

    /* The low-rank product of one adapter on one projection, into `acc`. */
    __device__ void low_rank(Acc &acc, const Adapter &adapter, int g) const {
        if constexpr (BACK) {
            multiply<false, true>(acc, shared, operand<T>(p.projection[g].ds), m0, p.M, operand<T>(adapter.a), n0, N, 0,
                                  adapter.rank);
        } else {
            multiply<false, false>(acc, shared, operand<T>(p.projection[g].s), m0, p.M, operand<T>(adapter.b), n0, N, 0,
                                   adapter.rank);
        }
    }

    /* One term, in an accumulator of its own where only some rows or columns take it and others are there already. */
    __device__ void term(Acc &acc, int a, int g, const RowAdapters<kTile> *rows) const {
        const Adapter &adapter = adapter_of(p, a, g);
        if (adapter.rank == 0) return;
        bool drops = BACK && p.threshold;
        if constexpr (MULTI) {
            Acc t;
            t.clear();
            low_rank(t, adapter, g);
            auto add = [&](int e, bool kept) {
                if (kept && (!rows || rows->of[Acc::row(e)] == a)) acc.c[e] += t.c[e];
            };
            if (drops) {
                each_kept<Acc>(dropout_of(p, a, g), m0, p.M, n0, add);
            } else {
#pragma unroll
                for (int e = 0; e < Acc::kCount; e++) add(e, true);
            }
        } else {
            low_rank(acc, adapter, g);
            if (drops) {
                each_kept<Acc>(dropout_of(p, a, g), m0, p.M, n0, [&](int e, bool kept) {
                    if (!kept) acc.c[e] = 0.0f;
                });
            }
        }
    }

    __device__ void base(Acc &acc, const Projection &q, int64_t k0, int64_t k1) const {
        if constexpr (BACK) {
            multiply<false, true>(acc, shared, operand<T>(q.dy), m0, p.M, operand<T>(q.w), n0, N, k0, k1);
        } else {
            multiply<false, false>(acc, shared, operand<T>(p.x), m0, p.M, operand<T>(q.w), n0, N, k0, k1);
        }
    }
};

template <class T, class Acc>
__device__ void store(const Acc &acc, const LoraParams &p, const View &out, const View &start, bool add, int64_t m0,
                      int64_t n0, int64_t N) {
#pragma unroll
    for (int e = 0; e < Acc::kCount; e++) {
        int64_t m = m0 + Acc::row(e), n = n0 + Acc::col(e);
        if (m >= p.M || n >= N) continue;
        float v = acc.c[e];
        if (p.row_scale) v *= p.row_scale[m];
        if (start.data) v = read(start, n) + v;
        if (add) v = read(out, m, n) + v;
        write(out, m, n, v);
    }
}

template <class T, bool BACK, bool MULTI>
__global__ void __launch_bounds__(kThreads, MULTI ? 1 : 2) gemm_kernel(const __grid_constant__ LoraParams p) {
    extern __shared__ uint4 raw[];
    __shared__ RowAdapters<kTile> rows;
    int z = BACK ? 0 : blockIdx.z;
    int64_t N = BACK ? p.K : p.projection[z].n;
    int64_t mt = (p.M + kTile - 1) / kTile, nt = (N + kTile - 1) / kTile, tile = blockIdx.x;
    if (tile >= mt * nt) return; /* of a narrower projection of the group */
    int64_t group = tile / (kRaster * nt), high = mt - group * kRaster < kRaster ? mt - group * kRaster : kRaster;
    int64_t in = tile - group * kRaster * nt;
    int64_t m0 = (group * kRaster + in % high) * kTile, n0 = in / high * kTile;

    Gemm<T, BACK, MULTI> gemm{p, reinterpret_cast<T *>(raw), m0, n0, N};
    GemmBlock<T> acc;
    acc.clear();
    bool segmented = MULTI && p.segmented;
    if (segmented) rows.load(p, m0);
    for (int g = BACK ? 0 : z; g < (BACK ? p.projections : z + 1); g++) {
        if (p.projection[g].width == 0) continue;
        if (segmented) {
            for (int a = rows.next(-1); a >= 0; a = rows.next(a)) gemm.term(acc, a, g, &rows);
        } else if (p.adapters) {
            gemm.term(acc, 0, g, nullptr);
        }
    }
    for (int g = BACK ? 0 : z; g < (BACK ? p.projections : z + 1); g++) {
        const Projection &q = p.projection[g];
        int64_t length = BACK ? q.n : p.K;
        if (MULTI && p.fold) {
            for (int64_t k = 0; k < length; k += p.fold) {
                GemmBlock<T> part;
                part.clear();
                gemm.base(part, q, k, k + p.fold < length ? k + p.fold : length);
#pragma unroll
                for (int e = 0; e < GemmBlock<T>::kCount; e++) acc.c[e] += part.c[e];
            }
        } else {
            gemm.base(acc, q, 0, length);
        }
    }
    if (BACK) {
        store<T>(acc, p, p.dx, View{}, p.flags & L4J_LORA_ACCUMULATE_DX, m0, n0, N);
    } else {
        store<T>(acc, p, p.projection[z].y, p.projection[z].bias, false, m0, n0, N);
    }
}

template <class T, bool BACK, bool MULTI> static cudaError_t start(const l4j_queue *queue, const LoraParams &p) {
    int64_t widest = BACK ? p.K : 0;
    for (int g = 0; g < p.projections && !BACK; g++) widest = p.projection[g].n > widest ? p.projection[g].n : widest;
    dim3 grid(blocks(p.M, kTile) * blocks(widest, kTile), 1, BACK ? 1 : p.projections);
    return launch(queue, gemm_kernel<T, BACK, MULTI>, grid, kThreads, GemmBlock<T>::kShared, p);
}

cudaError_t launch_gemm(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    bool multi = p.segmented || p.fold || (backward && p.threshold && p.projections > 1);
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        if (backward) return multi ? start<T, true, true>(queue, p) : start<T, true, false>(queue, p);
        return multi ? start<T, false, true>(queue, p) : start<T, false, false>(queue, p);
    });
}

} // namespace l4j
