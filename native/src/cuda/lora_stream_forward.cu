/* s = c · (mask ⊙ x)·Aᵀ and y = s·Bᵀ in one pass: x is read, y is written. */
#include "stream_tile.cuh"

namespace l4j {

constexpr int kWarps = 16, kStreamThreads = kWarps * 32;

/* RT: tiles of 16 ranks. MT: tiles of 16 rows. Warps share the contraction of s and the columns of y. */
template <class T, int RT, int MT, bool DROP>
__global__ void __launch_bounds__(kStreamThreads, 1) stream_forward_kernel(const __grid_constant__ LoraParams p) {
    await_previous();
    constexpr int RANKS = 16 * RT, ROWS = 16 * MT;
    constexpr int AHEAD = 4 / MT / (DROP ? RT : 1); /* blocks of 32 columns of x that a warp asks for at once */
    extern __shared__ uint4 raw[];
    float *sums = reinterpret_cast<float *>(raw);                    /* [kWarps][ROWS][RANKS] */
    T *shared = reinterpret_cast<T *>(sums + kWarps * ROWS * RANKS); /* s: [ROWS][RANKS] */
    int g = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, t = lane % 4;
    const Projection &q = p.projection[g];
    const Adapter &adapter = adapter_of(p, 0, g);
    if (blockIdx.x == 0) check_values(p, g);
    if (adapter.rank == 0) return;
    int64_t m0 = static_cast<int64_t>(blockIdx.x) * ROWS;

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
    /* The warp's blocks of 32 columns: every sixteenth pair. Their order does not depend on how many are asked for at once. */
    auto block_of = [&](int i) { return (i / 2 * kWarps + warp) * 2 + i % 2; };
    for (int first = 0; 32 * static_cast<int64_t>(block_of(first)) < p.K; first += AHEAD) {
        Vector8 xs[AHEAD][2 * MT], as[AHEAD][2 * RT];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int64_t column = 32 * static_cast<int64_t>(block_of(first + u));
            bool in = column + 8 * t < p.K;
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) {
                xs[u][i] = load_activation(x[i] + 2 * column, in && m0 + 8 * i + quad < p.M);
            }
#pragma unroll
            for (int i = 0; i < 2 * RT; i++) {
                as[u][i] = load_vector(a[i] + 2 * column, in && 8 * i + quad < adapter.rank);
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if constexpr (DROP) {
#pragma unroll
                for (int i = 0; i < 2 * MT; i++) {
                    uint32_t keep[4];
                    keep_eight<1>(drop, tokens[i], block_of(first + u), t, keep);
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
    /* A thread has columns 8·quad to 8·quad + 7 of each 64 of y, of rows 2t and 2t + 1 of each eight. */
    uint2 next_b[RT][8];
    auto load_b = [&](int64_t n0) {
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) { /* ranks 4t to 4t + 3 of 16 */
                bool there = n0 + 8 * quad < q.n && 16 * k + 4 * t < adapter.rank;
                next_b[k][i] = load_four(at(adapter.b, n0 + 8 * quad + i, 16 * k + 4 * t), there);
            }
        }
    };
    load_b(64 * warp);
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

    for (int64_t n0 = 64 * warp; n0 < q.n; n0 += 64 * kWarps) {
        bool in = n0 + 8 * quad < q.n;
        uint32_t b[RT][4][4];
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                b[k][i / 2][i % 2] = next_b[k][i].x;
                b[k][i / 2][2 + i % 2] = next_b[k][i].y;
            }
        }
        load_b(n0 + 64 * kWarps);
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
        auto with_rows = [&](auto height) {
            constexpr int MT = decltype(height)::value;
            auto kernel =
                p.threshold ? stream_forward_kernel<T, RT, MT, true> : stream_forward_kernel<T, RT, MT, false>;
            dim3 grid(blocks(p.M, 16 * MT), p.projections);
            size_t shared = static_cast<size_t>(16 * MT * 16 * RT) * (kWarps * sizeof(float) + sizeof(T));
            return launch(queue, kernel, grid, kStreamThreads, shared, p);
        };
        return p.M >= 32 * queue->threads ? with_rows(std::integral_constant<int, 2>())
                                          : with_rows(std::integral_constant<int, 1>());
    });
}

} // namespace l4j
