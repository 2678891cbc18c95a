/* s = c · (mask ⊙ x)·Aᵀ and y = s·Bᵀ in one pass: x is read, y is written. */
#include "stream_tile.cuh"

namespace l4j {

constexpr int kWarps = 16, kStreamThreads = kWarps * 32;

/* RT: tiles of 16 ranks. MT: tiles of 16 rows. Warps share the contraction of s and the columns of y. */
template <class T, int RT, int MT, bool DROP>
__global__ void __launch_bounds__(kStreamThreads, 1) stream_forward_kernel(const __grid_constant__ LoraParams p) {
    await_previous();
    constexpr int RANKS = 16 * RT, ROWS = 16 * MT, AHEAD = 4 / MT / (DROP ? RT : 1); /* blocks of 32 of x that a warp asks for at once */
    extern __shared__ uint4 raw[];
    float *sums = reinterpret_cast<float *>(raw);                /* [kWarps][ROWS][RANKS] */
    T *shared = reinterpret_cast<T *>(sums + kWarps * ROWS * RANKS); /* s: [ROWS][RANKS] */
    int g = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, t = lane % 4;
    const Projection &q = p.projection[g];
    const Adapter &adapter = adapter_of(p, 0, g);
    if (blockIdx.x == 0) check_values(p, g);
    if (adapter.rank == 0) return;
    /* The last rows first: the first ones are in the cache when the product comes. */
    int64_t m0 = 
#ifdef L4J_DEV_FIRST
        static_cast<int64_t>(blockIdx.x) * ROWS;
#else
        static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * ROWS;
#endif

    /* A thread has columns 8t to 8t + 7 of each block of rows quad and quad + 8 of x's tiles, and of ranks likewise. */
    const char *x[2 * MT], *a[2 * RT];
    uint32_t tokens[DROP ? 2 * MT : 1];
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        int64_t m = m0 + 8 * i + quad;
        x[i] = at(p.x, m, 8 * t);
        if constexpr (DROP) tokens[i] = p.token_index[m < p.M ? m : p.M - 1];
    }
#pragma unroll
    for (int i = 0; i < 2 * RT; i++) a[i] = at(adapter.a, 8 * i + quad, 8 * t);
    Dropout drop = {};
    if constexpr (DROP) drop = dropout_of(p, 0, g);
    float c[MT][2 * RT][4] = {};
    int64_t blocks = (p.K + 31) / 32;
    for (int64_t b0 = warp; b0 < blocks; b0 += kWarps * AHEAD) {
        Vector8 xs[AHEAD][2 * MT], as[AHEAD][2 * RT];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int64_t block = b0 + u * kWarps;
            bool in = 32 * block + 8 * t < p.K;
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) {
                xs[u][i] = load_activation(x[i] + 64 * block, in && m0 + 8 * i + quad < p.M);
            }
#pragma unroll
            for (int i = 0; i < 2 * RT; i++) {
                as[u][i] = load_vector(a[i] + 64 * block, in && 8 * i + quad < adapter.rank);
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if constexpr (DROP) {
#pragma unroll
                for (int i = 0; i < 2 * MT; i++) {
                    uint32_t keep[4];
                    keep_eight<1>(drop, tokens[i], b0 + u * kWarps, t, keep);
#pragma unroll
                    for (int w = 0; w < 4; w++) xs[u][i].w[w] &= keep[w];
                }
            }
#pragma unroll
            for (int step = 0; step < 2; step++) {
#pragma unroll
                for (int i = 0; i < MT; i++) {
                    const Vector8 &low = xs[u][2 * i], &high = xs[u][2 * i + 1];
                    uint32_t left[4] = {low.w[2 * step], high.w[2 * step], low.w[2 * step + 1], high.w[2 * step + 1]};
#pragma unroll
                    for (int n = 0; n < 2 * RT; n++) {
                        mma<T>(c[i][n], left, as[u][n].w[2 * step], as[u][n].w[2 * step + 1]);
                    }
                }
            }
        }
    }

#pragma unroll
    for (int i = 0; i < MT; i++) {
#pragma unroll
        for (int n = 0; n < 2 * RT; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float *to = sums + (warp * ROWS + 16 * i + 8 * half + quad) * RANKS + 8 * n + 2 * t;
                *reinterpret_cast<float2 *>(to) = make_float2(c[i][n][2 * half], c[i][n][2 * half + 1]);
            }
        }
    }
    __syncthreads();
    float factor = lora_factor(p, 0, g);
    for (int e = threadIdx.x; e < ROWS * RANKS; e += kStreamThreads) {
        float sum = sums[e];
#pragma unroll
        for (int w = 1; w < kWarps; w++) sum += sums[w * ROWS * RANKS + e];
        int64_t m = m0 + e / RANKS, r = e % RANKS;
        T value = from_float<T>(sum * factor);
        shared[e] = value;
        if (m < p.M && r < adapter.rank) reinterpret_cast<T *>(q.s.data)[m * q.s.s0 + r] = value;
    }
    __syncthreads();

    /* A thread has columns 8·quad to 8·quad + 7 of each 64 of y, of rows 2t and 2t + 1 of each eight. */
    for (int64_t n0 = 64 * warp; n0 < q.n; n0 += 64 * kWarps) {
        bool in = n0 + 8 * quad < q.n;
        uint32_t b[RT][4][4];
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) { /* ranks 4t to 4t + 3 of 16 */
                uint2 v = make_uint2(0, 0);
                if (in && 16 * k + 4 * t < adapter.rank) {
                    v = *reinterpret_cast<const uint2 *>(at(adapter.b, n0 + 8 * quad + i, 16 * k + 4 * t));
                }
                b[k][i / 2][i % 2] = v.x;
                b[k][i / 2][2 + i % 2] = v.y;
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            float y[4][4] = {};
#pragma unroll
            for (int k = 0; k < RT; k++) {
                uint2 s = *reinterpret_cast<const uint2 *>(shared + (8 * i + quad) * RANKS + 16 * k + 4 * t);
#pragma unroll
                for (int j = 0; j < 4; j++) mma<T>(y[j], b[k][j], s.x, s.y);
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int64_t m = m0 + 8 * i + 2 * t + e;
                if (m >= p.M || !in) continue;
                store_vector(at(q.y, m, n0 + 8 * quad),
                             Vector8{packed<T>(y[0][e], y[0][2 + e]), packed<T>(y[1][e], y[1][2 + e]),
                                     packed<T>(y[2][e], y[2][2 + e]), packed<T>(y[3][e], y[3][2 + e])});
            }
        }
    }
}

cudaError_t launch_stream_forward(const l4j_queue *queue, const LoraParams &p, int32_t dtype) {
    int32_t width = 0;
    for (int g = 0; g < p.projections; g++) width = p.projection[g].width > width ? p.projection[g].width : width;
    return with_stream(dtype, width, [&](auto zero, auto tiles) {
        using T = decltype(zero);
        constexpr int RT = decltype(tiles)::value;
        auto start = [&](auto kernel, int rows) {
            dim3 grid(blocks(p.M, rows), p.projections);
            size_t shared = static_cast<size_t>(16 * RT * rows) * (kWarps * sizeof(float) + sizeof(T));
            return launch(queue, kernel, grid, kStreamThreads, shared, p);
        };
        bool drop = p.threshold != 0;
        if (p.M >= 32 * queue->threads) {
            return drop ? start(stream_forward_kernel<T, RT, 2, true>, 32) : start(stream_forward_kernel<T, RT, 2, false>, 32);
        }
        return drop ? start(stream_forward_kernel<T, RT, 1, true>, 16) : start(stream_forward_kernel<T, RT, 1, false>, 16);
    });
}

} // namespace l4j
