/* Up to kTileRows rows by a quantized weight: a block decodes tiles of it into shared memory, a step ahead of the tensor cores. The chain of
   sums is the one of lora_gemm.cuh. */
#pragma once

#include "lora_codes.cuh"
#include "lora_gemm.cuh"

namespace l4j {

template <class T, int ROWS>
using CodesTile =
    Block<T, ROWS, 64, ROWS / 16, ROWS == 64 ? 2 : 4, 128, 3>; /* four units of a row, or two of a column's */

template <class Format, class Tile, bool BACK> struct CodesGemm : Gemm<Tile, BACK, true, false> {
    using T = typename Tile::Value;
    static constexpr int COLS = BACK ? Tile::BN : Tile::BK, UNITS = COLS / kUnit; /* of a tile of the weight */
    static_assert((BACK ? Tile::BK : Tile::BN) * UNITS == kThreads, "a unit for each thread");

    /* The thread's unit of step i; false where it lies outside of the weight. */
    __device__ bool place(int64_t i, int64_t length, int64_t &n, int &u) const {
        int64_t k = i * Tile::BK;
        n = (BACK ? k : this->n0) + threadIdx.x / UNITS;
        u = static_cast<int>((BACK ? this->n0 : k) / kUnit + threadIdx.x % UNITS);
        return n < (BACK ? length : this->N) && u < (BACK ? this->N : length) / kUnit;
    }
    __device__ void fetch(Unit<Format> &raw, const Coded &q, int64_t i, int64_t length) const {
        int64_t n;
        int u;
        bool there = place(i, length, n, u);
        raw.load(q, there ? n : 0, there ? u : 0);
    }
    __device__ void decode(T *tile, const Unit<Format> &raw, const Coded &q, int64_t i, int64_t length) const {
        int64_t n;
        int u;
        bool there = place(i, length, n, u);
        int r = threadIdx.x / UNITS;
        typename Format::Scale scale = Format::scale(q, raw.head, u);
#pragma unroll
        for (int o = 0; o < 4; o++) {
            float w[8];
            Format::values(scale, raw.codes[o], u, o, w);
            uint4 v = {packed<T>(w[0], w[1]), packed<T>(w[2], w[3]), packed<T>(w[4], w[5]), packed<T>(w[6], w[7])};
            if (!there) v = uint4{0, 0, 0, 0};
            int chunk = threadIdx.x % UNITS * 4 + o;
            *reinterpret_cast<uint4 *>(tile + r * COLS + swizzle<COLS / 8>(r, chunk) * 8) = v;
        }
    }
    /* acc += x · Wᵀ, or dy · W. */
    __device__ void coded(Tile &acc, const Projection &projection, const Coded &q) const {
        int64_t length = BACK ? projection.n : this->p.K, steps = (length + Tile::BK - 1) / Tile::BK;
        Operand left = operand<T>(BACK ? projection.dy : this->p.x);
        auto stage = [&](int64_t i) { return this->shared + i % Tile::STAGES * Tile::kStage; };
        auto load = [&](int64_t i) {
            if (i < steps) {
                load_tile<T, Tile::BM, Tile::BK>(stage(i), left, 0, this->p.M, i * Tile::BK, length);
            }
            commit();
        };
        Unit<Format> raw[2];
        fetch(raw[0], q, 0, length);
        fetch(raw[1], q, 1, length);
        load(0);
        load(1);
        auto one = [&](Unit<Format> &own, int64_t i) {
            T *a = stage(i), *b = a + Tile::BM * Tile::BK;
            decode(b, own, q, i, length);
            fetch(own, q, i + 2, length);
            wait<1>();
            __syncthreads(); /* all have decoded step i and left step i - 1 */
            load(i + 2);
            acc.template step<false, BACK>(a, b);
        };
        for (int64_t i = 0; i < steps; i += 2) {
            one(raw[0], i);
            if (i + 1 < steps) one(raw[1], i + 1);
        }
        wait<0>();
        __syncthreads();
    }
};

template <class Format, class Tile, bool BACK>
__global__ void __launch_bounds__(kThreads, 2)
    codes_tile_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set) {
    extern __shared__ uint4 raw[];
    using G = CodesGemm<Format, Tile, BACK>;
    int z = BACK ? 0 : blockIdx.z;
    int64_t N = BACK ? p.K : p.projection[z].n, n0 = static_cast<int64_t>(blockIdx.x) * Tile::BN;
    if (n0 >= N) return; /* of a narrower projection of the group */
    G gemm{{p, reinterpret_cast<typename Tile::Value *>(raw), 0, n0, N}};
    Tile acc;
    acc.clear();
    int first = BACK ? 0 : z, end = BACK ? p.projections : z + 1;
    __shared__ typename G::Rows rows;
    if (p.segmented) rows.load(p, 0);
    for (int g = first; g < end; g++) {
        if (p.projection[g].width == 0) continue;
        if (p.segmented) {
            for (int a = rows.next(-1); a >= 0; a = rows.next(a)) gemm.term(acc, a, g, &rows);
        } else {
            gemm.term(acc, 0, g, nullptr);
        }
    }
    for (int g = first; g < end; g++) gemm.coded(acc, p.projection[g], set.of[g]);
    if (BACK) {
        gemm.finish(acc, p.dx, View{}, p.flags & L4J_LORA_ACCUMULATE_DX);
    } else {
        gemm.finish(acc, p.projection[z].y, p.projection[z].bias, false);
    }
}

template <class Format, class Tile>
cudaError_t launch_codes_tile(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, bool backward) {
    int64_t widest = backward ? p.K : 0;
    for (int g = 0; g < p.projections && !backward; g++)
        widest = widest > p.projection[g].n ? widest : p.projection[g].n;
    dim3 grid(blocks(widest, Tile::BN), 1, backward ? 1 : p.projections);
    return backward ? launch(queue, codes_tile_kernel<Format, Tile, true>, grid, kThreads, Tile::kShared, p, set)
                    : launch(queue, codes_tile_kernel<Format, Tile, false>, grid, kThreads, Tile::kShared, p, set);
}

template <class Format>
cudaError_t launch_some(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, bool backward) {
    return p.M <= 32 ? launch_codes_tile<Format, CodesTile<bf16, 32>>(queue, p, set, backward)
                     : launch_codes_tile<Format, CodesTile<bf16, 64>>(queue, p, set, backward);
}

} // namespace l4j
