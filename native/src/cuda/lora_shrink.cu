/* s = c · (mask ⊙ x)·Aᵀ and ds = c · dy·B: a block of rows by the ranks, over the whole contraction. */
#include "feed.cuh"
#include "lora_kernels.cuh"

namespace l4j {

constexpr int kRanks = 32;
/* In 16 bits the eight warps share the contraction, so that few rows keep as much in flight as many; rows do not change the sums. */
template <class T, int ROWS> using ShrinkBlock = Block<T, ROWS, kRanks, 1, 1, 256, 3, 8>;
using ShrinkPlain = Block<float, 64, kRanks, 4, 2>;

template <class Tile, bool BACK, bool DROP, bool FAST>
__global__ void __launch_bounds__(kThreads) shrink_kernel(const __grid_constant__ LoraParams p, unsigned share) {
    using T = typename Tile::Value;
    await_previous();
    extern __shared__ uint4 raw[];
    __shared__ RowAdapters<Tile::BM, kThreads> rows;
    T *shared = reinterpret_cast<T *>(raw);
    int g = blockIdx.z;
    const Projection &q = p.projection[g];
    int64_t m0 = static_cast<int64_t>(blockIdx.x) * Tile::BM, r0 = static_cast<int64_t>(blockIdx.y / share) * kRanks;
    if (r0 >= q.width) return;
    if (blockIdx.x == 0 && blockIdx.y == 0) check_values(p, g);
    rows.load(p, m0);
    unsigned turn = 0;
    for (int a = rows.next(-1); a >= 0; a = rows.next(a)) {
        if (turn++ % share != blockIdx.y % share) continue;
        const Adapter &adapter = adapter_of(p, a, g);
        if (r0 >= adapter.rank) continue;
        Operand left = operand<T>(BACK ? q.dy : p.x), right = operand<T>(BACK ? adapter.b : adapter.a);
        int64_t length = BACK ? q.n : p.K;
        Tile acc;
        acc.clear();
        auto run = [&](auto mask) {
            if constexpr (FAST) {
                multiply_fast<false, BACK>(acc, shared, left, m0, p.M, right, r0, adapter.rank, 0, length, mask);
            } else {
                multiply<false, BACK>(acc, shared, left, m0, p.M, right, r0, adapter.rank, 0, length, mask);
            }
        };
        if constexpr (DROP && FAST) {
            run(RowMask<Tile>(dropout_of(p, a, g), m0, p.M));
        } else if constexpr (DROP) {
            run(TileMask{dropout_of(p, a, g), nullptr});
        } else {
            run(NoMask());
        }
        float c = lora_factor(p, a, g);
        const View &out = BACK ? q.ds : q.s;
        acc.each_sum(shared, [&](int row, int col, float sum) {
            int64_t m = m0 + row, r = r0 + col;
            if (m < p.M && r < adapter.rank && rows.of[row] == a) write(out, m, r, sum * c);
        });
    }
}

/* Where there are few rows and several adapters, `share` blocks take the adapters of a tile in turn. */
template <class Tile, bool FAST> static cudaError_t start(const l4j_queue *queue, const LoraParams &p, bool backward) {
    int width = 0;
    for (int g = 0; g < p.projections; g++) width = p.projection[g].width > width ? p.projection[g].width : width;
    dim3 grid(blocks(p.M, Tile::BM), blocks(width, kRanks), p.projections);
    unsigned share = 1, tiles = grid.x * grid.y * grid.z;
    while (p.segmented && 2 * share * tiles <= static_cast<unsigned>(queue->threads) && 2 * share <= Tile::BM)
        share *= 2;
    grid.y *= share;
    constexpr size_t bytes = Tile::kShared;
    if (backward) return launch(queue, shrink_kernel<Tile, true, false, FAST>, grid, kThreads, bytes, p, share);
    return p.threshold ? launch(queue, shrink_kernel<Tile, false, true, FAST>, grid, kThreads, bytes, p, share)
                       : launch(queue, shrink_kernel<Tile, false, false, FAST>, grid, kThreads, bytes, p, share);
}

static bool aligned(const LoraParams &p, bool backward, int32_t dtype) {
    bool good = p.adapters_aligned && p.K % 8 == 0 && (backward || rows_are_aligned(p.x, dtype));
    for (int g = 0; g < p.projections && backward; g++) good &= rows_are_aligned(p.projection[g].dy, dtype);
    for (int g = 0; g < p.projections; g++) good &= p.projection[g].n % 8 == 0;
    return good;
}

cudaError_t launch_shrink(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype) {
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (sizeof(T) == 4) {
            return start<ShrinkPlain, false>(queue, p, backward);
        } else {
            if (!aligned(p, backward, dtype)) return start<ShrinkBlock<T, 32>, false>(queue, p, backward);
            return p.M < 32 * queue->threads ? start<ShrinkBlock<T, 16>, true>(queue, p, backward)
                                             : start<ShrinkBlock<T, 32>, true>(queue, p, backward);
        }
    });
}

} // namespace l4j
