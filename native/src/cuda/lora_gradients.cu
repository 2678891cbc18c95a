/*
 * dB = dyᵀ·s and dA = dsᵀ·(mask ⊙ x): the contraction runs over an adapter's rows, in chunks of 512 counted from its first one. An
 * adapter of one chunk is written straight to its gradient; chunks of others go to the workspace and are added in order, so the bits
 * depend on the adapter's rows alone.
 */
#include "feed.cuh"
#include "lora_kernels.cuh"

namespace l4j {

constexpr int kWide = 128, kRanks = 32;
template <class T> struct GradientTile { using Type = Block<T, kWide, kRanks, 4, 1, 64, 4, 2>; };
template <> struct GradientTile<float> { using Type = Block<float, kWide, kRanks, 8, 1>; };

__device__ static Chunk chunk_of(const LoraParams &p, int64_t i) {
    if (p.segmented) return i < *p.sorted.chunk_count ? p.sorted.chunks[i] : Chunk{-1, 0, 0, -1};
    int64_t first = i * kChunkRows, rows = p.M - first < kChunkRows ? p.M - first : kChunkRows;
    return Chunk{0, static_cast<int32_t>(first), static_cast<int32_t>(rows),
                 p.M > kChunkRows ? static_cast<int32_t>(i) : -1};
}

/* DA: outputs are [K, ranks] of x and ds, else [n, ranks] of dy and s. */
template <class T, bool DA, bool DROP, bool FAST>
__device__ static void chunk_gradient(const LoraParams &p, T *shared, const Chunk &chunk, int g, int64_t w0) {
    using Tile = typename GradientTile<T>::Type;
    const Projection &q = p.projection[g];
    int64_t wide = DA ? p.K : q.n;
    const Adapter &adapter = adapter_of(p, chunk.adapter, g);
    const View &out = DA ? adapter.da : adapter.db;
    if (w0 >= wide || adapter.rank == 0 || !out.data) return;
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
    const int32_t *gather = p.segmented ? p.sorted.rows : nullptr;
    Operand left = operand<T>(DA ? p.x : q.dy, gather), right = operand<T>(DA ? q.ds : q.s, gather);
    int64_t k0 = chunk.first, k1 = k0 + chunk.rows;
    __shared__ uint32_t tokens[DA && DROP && FAST ? kChunkRows : 1];
    if constexpr (DA && DROP && FAST) {
        for (int i = threadIdx.x; i < chunk.rows; i += kThreads) {
            tokens[i] = p.token_index[gather ? gather[k0 + i] : k0 + i];
        }
        __syncthreads();
    }
    for (int64_t r0 = 0; r0 < adapter.rank; r0 += kRanks) {
        Tile acc;
        acc.clear();
        auto run = [&](auto mask) {
            if constexpr (!FAST) {
                multiply<true, true>(acc, shared, left, w0, wide, right, r0, adapter.rank, k0, k1, mask);
            } else if (gather) {
                multiply_fast<true, true, true>(acc, shared, left, w0, wide, right, r0, adapter.rank, k0, k1, mask);
            } else {
                multiply_fast<true, true>(acc, shared, left, w0, wide, right, r0, adapter.rank, k0, k1, mask);
            }
        };
        if constexpr (DA && DROP && FAST) {
            run(ColumnMask<Tile>{dropout_of(p, chunk.adapter, g), tokens, k0, (w0 + Tile::row(0)) / 32, chunk.rows});
        } else if constexpr (DA && DROP) {
            run(TileMask{dropout_of(p, chunk.adapter, g), gather});
        } else {
            run(NoMask());
        }
        acc.each_sum(shared, [&](int row, int col, float sum) {
            int64_t w = w0 + row, r = r0 + col;
            if (w >= wide || r >= adapter.rank) return;
            if (chunk.slot < 0) {
                int64_t i = DA ? r : w, j = DA ? w : r;
                write(out, i, j, add ? read(out, i, j) + sum : sum);
            } else if (DA) {
                q.partial_da[(static_cast<int64_t>(chunk.slot) * q.width + r) * p.K + w] = sum;
            } else {
                q.partial_db[(static_cast<int64_t>(chunk.slot) * q.n + w) * q.width + r] = sum;
            }
        });
    }
}

/* The first `db_blocks` of the grid's second dimension are dB's, the rest dA's. */
template <class T, bool DROP, bool FAST>
__global__ void __launch_bounds__(kThreads, 2)
    gradient_kernel(const __grid_constant__ LoraParams p, unsigned db_blocks) {
    await_previous();
    extern __shared__ uint4 raw[];
    T *shared = reinterpret_cast<T *>(raw);
    Chunk chunk =
        chunk_of(p, gridDim.x - 1 - blockIdx.x); /* the last rows first: the pass before has left them in the cache */
    if (chunk.adapter < 0) return;
    int64_t wide = static_cast<int64_t>(kWide);
    if (blockIdx.y < db_blocks) {
        chunk_gradient<T, false, false, FAST>(p, shared, chunk, blockIdx.z, blockIdx.y * wide);
    } else {
        chunk_gradient<T, true, DROP, FAST>(p, shared, chunk, blockIdx.z, (blockIdx.y - db_blocks) * wide);
    }
}

/* Adds up the chunks of adapters that have several; zeroes the gradients of those without rows. */
__global__ void finish_kernel(const __grid_constant__ LoraParams p) {
    await_previous();
    int i = blockIdx.x, a = i / p.projections, g = i % p.projections;
    const Projection &q = p.projection[g];
    const Adapter &adapter = adapter_of(p, a, g);
    if (adapter.rank == 0) return;
    int64_t count = p.segmented ? p.sorted.count[a] : p.M;
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
    if (count > 0 && count <= kChunkRows) return;
    if (count == 0 && add) return;
    int64_t first = p.segmented ? p.sorted.slot[a] : 0, chunks = (count + kChunkRows - 1) / kChunkRows;
    for (int part = 0; part < 2; part++) {
        const View &out = part ? adapter.da : adapter.db;
        if (!out.data) continue;
        int64_t rows = part ? adapter.rank : q.n, cols = part ? p.K : adapter.rank, row_length = part ? p.K : q.width;
        int64_t slot_size = part ? q.width * p.K : q.n * q.width;
        const float *partial = part ? q.partial_da : q.partial_db;
        for (int64_t e = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; e < rows * cols;
             e += static_cast<int64_t>(gridDim.y) * blockDim.x) {
            int64_t row = e / cols, col = e % cols;
            float sum = 0.0f;
            for (int64_t c = 0; c < chunks; c++) sum += partial[(first + c) * slot_size + row * row_length + col];
            write(out, row, col, add ? read(out, row, col) + sum : sum);
        }
    }
}

template <class T, bool FAST>
static cudaError_t start(const l4j_queue *queue, const LoraParams &p, int64_t chunks, int64_t widest) {
    unsigned db_blocks = blocks(widest, kWide);
    dim3 grid(static_cast<unsigned>(chunks), db_blocks + blocks(p.K, kWide), p.projections);
    constexpr size_t bytes = GradientTile<T>::Type::kShared;
    return p.threshold ? launch_next(queue, gradient_kernel<T, true, FAST>, grid, kThreads, bytes, p, db_blocks)
                       : launch_next(queue, gradient_kernel<T, false, FAST>, grid, kThreads, bytes, p, db_blocks);
}

static bool aligned(const LoraParams &p, int32_t dtype) {
    auto rows = [&](const View &v) { return rows_are_aligned(v, dtype); };
    bool good = p.adapters_aligned && p.K % 8 == 0 && rows(p.x);
    for (int g = 0; g < p.projections; g++) {
        const Projection &q = p.projection[g];
        if (q.width) good &= q.n % 8 == 0 && rows(q.dy) && rows(q.s) && rows(q.ds);
    }
    return good;
}

cudaError_t launch_gradients(const l4j_queue *queue, const LoraParams &p, int64_t chunks, int32_t dtype) {
    int64_t widest = 0;
    for (int g = 0; g < p.projections; g++) widest = p.projection[g].n > widest ? p.projection[g].n : widest;
    cudaError_t status = with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (sizeof(T) == 2) {
            if (aligned(p, dtype)) return start<T, true>(queue, p, chunks, widest);
        }
        return start<T, false>(queue, p, chunks, widest);
    });
    if (status != cudaSuccess) return status;
    if (!p.segmented && p.M > 0 && p.M <= kChunkRows) return cudaSuccess;
    int64_t entries = static_cast<int64_t>(p.adapters) * p.projections;
    return launch_next(queue, finish_kernel, dim3(static_cast<unsigned>(entries), entries > 64 ? 8 : 512), 256, 0, p);
}

} // namespace l4j
