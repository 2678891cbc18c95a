/*
 * ds = c · dy·B with dB = dyᵀ·s in one pass over dy. A block keeps dB of its columns in registers while it goes down a chunk of rows, and
 * has a share of ds of these rows; shares and chunks are added in their order afterwards.
 */
#include "stream_rows.cuh"

namespace l4j {

/* Groups of eight warps, a strip of columns each, take tiles of rows in turns. Fewer threads have the registers for more ranks. */
template <int RT> struct DyShape {
    static constexpr int STRIPS = kDyColumns / kStrip, GROUPS = 2 / RT, THREADS = STRIPS * GROUPS * 32, RANKS = 16 * RT;
    static constexpr int SHARE = kTileRows * RANKS; /* of ds: of one warp */
    using Rows = Tiles<ByRows, kTileRows * GROUPS, kStages, STRIPS * GROUPS>;
    static constexpr size_t kShares = 2 * GROUPS * STRIPS * SHARE * sizeof(float), kShared = kShares + Rows::kBytes;
    static_assert((GROUPS - 1) * STRIPS * 32 * RT * 32 * sizeof(float) <= kShares);
};

template <class T, int RT>
__global__ void __launch_bounds__(DyShape<RT>::THREADS, 1)
    stream_dy_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    using S = DyShape<RT>;
    constexpr int RANKS = S::RANKS, STEP = kTileRows * S::GROUPS;
    await_previous();
    extern __shared__ __align__(128) float shares[];
    const Projection &q = p.projection[0];
    const Adapter &adapter = adapter_of(p, 0, 0);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, t = lane % 4;
    int strip = warp % S::STRIPS, group = warp / S::STRIPS;
    if (blockIdx.x == 0 && blockIdx.y == 0) check_values(p, 0);
    int64_t n0 = static_cast<int64_t>(blockIdx.x) * kDyColumns + strip * kStrip;
    int64_t first = blockIdx.y * plan.db_rows, end = first + plan.db_rows < p.M ? first + plan.db_rows : p.M;

    /* B of the strip: a step is 16 columns, of which a thread has 8t + 4 · (step % 2) to + 3 of 32. */
    uint32_t b[4][2 * RT][2];
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int n = 0; n < 2 * RT; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int64_t col = n0 + step / 2 * 32 + quad / 2 * 8 + step % 2 * 4 + 2 * i + quad % 2;
                int r = 8 * n + 2 * t;
                b[step][n][i] = turned(load_pair(at(adapter.b, col, r), col < q.n && r < adapter.rank));
            }
        }
    }

    int64_t own = first + group * kTileRows;
    typename S::Rows tiles(shares + S::kShares / sizeof(float), q.dy, own, n0, end, q.n);
    int64_t ld_s = q.s.s0 * 2;
    const char *s_asked = at(q.s, own + quad, 2 * t);
    int s_left = static_cast<int>(end - own) - quad, rank_left = adapter.rank - 2 * t;
    Pairs<RT> next_s;
    auto ask_s = [&] {
        next_s.load(s_asked, ld_s, s_left, rank_left);
        s_asked += STEP * ld_s;
        s_left -= STEP;
    };
    float db[RT * 32] = {}; /* [RT][half of 32 columns][pair of columns][4] */
    int steps = static_cast<int>((end - first + STEP - 1) / STEP);
    ask_s();
    for (int i = 0; i < steps; i++) {
        Vector8 dy[4]; /* a thread has columns 8t to 8t + 7 of each 32, of rows quad and quad + 8 */
        tiles.take(dy);
        uint32_t s[RT][4];
        next_s.turn(s);
        ask_s();

        float ds[2 * RT][4] = {};
#pragma unroll
        for (int step = 0; step < 4; step++) {
            const Vector8 &low = dy[step / 2], &high = dy[2 + step / 2];
            int w = step % 2 * 2;
            uint32_t left[4] = {low.w[w], high.w[w], low.w[w + 1], high.w[w + 1]};
#pragma unroll
            for (int n = 0; n < 2 * RT; n++) mma<T>(ds[n], left, b[step][n][0], b[step][n][1]);
        }
        float *mine = shares + ((i % 2 * S::GROUPS + group) * S::STRIPS + strip) * S::SHARE;
#pragma unroll
        for (int n = 0; n < 2 * RT; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                *reinterpret_cast<float2 *>(mine + (8 * half + quad) * RANKS + 8 * n + 2 * t) =
                    make_float2(ds[n][2 * half], ds[n][2 * half + 1]);
            }
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t b0 = turned(dy[j / 4].w[j % 4]), b1 = turned(dy[2 + j / 4].w[j % 4]);
#pragma unroll
            for (int k = 0; k < RT; k++) mma<T>(db + (k * 8 + j) * 4, s[k], b0, b1);
        }
        __syncthreads(); /* the other half of the shares is written meanwhile */
#pragma unroll
        for (int e = threadIdx.x; e < S::GROUPS * S::SHARE; e += S::THREADS) {
            int of = e / S::SHARE, in = e % S::SHARE;
            const float *from = shares + (i % 2 * S::GROUPS + of) * S::STRIPS * S::SHARE + in;
            float sum = from[0];
#pragma unroll
            for (int other = 1; other < S::STRIPS; other++) sum += from[other * S::SHARE];
            int64_t m = first + static_cast<int64_t>(i) * STEP + of * kTileRows + in / RANKS;
            if (m < end) plan.ds_parts[(blockIdx.x * p.M + m) * RANKS + in % RANKS] = sum;
        }
    }

    wait<0>();
    add_groups<RT * 32, S::STRIPS, S::GROUPS>(db, shares);
    if (group > 0) return;
#pragma unroll
    for (int k = 0; k < RT; k++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t col = n0 + j / 4 * 32 + 8 * t + j % 4 * 2 + e % 2;
                int r = 16 * k + quad + e / 2 * 8;
                if (col < q.n) plan.db_parts[(blockIdx.y * q.n + col) * RANKS + r] = db[(k * 8 + j) * 4 + e];
            }
        }
    }
}

/* ds from its shares, then dB from its chunks: four ranks of a row a thread. */
template <class T>
__global__ void stream_ds_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    await_previous();
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, count = p.M * plan.ranks / 4;
    if (i * kXColumns < p.K) plan.arrived[i] = 0;
    if (i < count) {
        float4 sum = add_parts(reinterpret_cast<const float4 *>(plan.ds_parts) + i, count, plan.slices);
        float factor = lora_factor(p, 0, 0);
        reinterpret_cast<uint2 *>(plan.ds)[i] =
            make_uint2(packed<T>(sum.x * factor, sum.y * factor), packed<T>(sum.z * factor, sum.w * factor));
        return;
    }
    i -= count;
    int64_t n = p.projection[0].n, size = n * plan.ranks / 4;
    if (i >= size) return;
    const Adapter &adapter = adapter_of(p, 0, 0);
    float4 sum = add_parts(reinterpret_cast<const float4 *>(plan.db_parts) + i, size, plan.db_chunks);
    store_gradient(p, adapter.db, 4 * i / plan.ranks, n, 4 * i % plan.ranks, adapter.rank, sum);
}

cudaError_t launch_stream_dy(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype) {
    return with_stream(dtype, plan.ranks, [&](auto zero, auto tiles) {
        using T = decltype(zero);
        using S = DyShape<decltype(tiles)::value>;
        constexpr unsigned kSmall = 256;
        dim3 grid(static_cast<unsigned>(plan.slices), static_cast<unsigned>(plan.db_chunks));
        cudaError_t status =
            launch(queue, stream_dy_kernel<T, decltype(tiles)::value>, grid, S::THREADS, S::kShared, p, plan);
        if (status != cudaSuccess) return status;
        unsigned all = blocks((p.M + p.projection[0].n) * plan.ranks / 4, kSmall);
        return launch_next(queue, stream_ds_kernel<T>, all, kSmall, 0, p, plan);
    });
}

} // namespace l4j
