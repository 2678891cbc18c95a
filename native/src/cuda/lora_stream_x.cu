/*
 * dx = mask ⊙ (ds·A) with dA = dsᵀ·(mask ⊙ x) in one pass over x: a mask is drawn once for both. A block keeps dA of its columns in
 * registers while it goes down a chunk of rows; the last block of these columns to come adds the chunks up in their order.
 */
#include "stream_rows.cuh"

namespace l4j {

template <int RT> struct XShape {
    static constexpr int STRIPS = kXColumns / kStrip, GROUPS = 4 / RT, THREADS = STRIPS * GROUPS * 32, RANKS = 16 * RT;
    using Rows = Tiles<ByColumns, kTileRows * GROUPS, kStages, STRIPS * GROUPS>;
    static constexpr size_t kSums = (GROUPS - 1) * STRIPS * 32 * RT * 32 * sizeof(float);
    static constexpr size_t kShared = Rows::kBytes > kSums ? Rows::kBytes : kSums;
};

template <class T, int RT, bool DROP, bool ADD>
__global__ void __launch_bounds__(XShape<RT>::THREADS, 1)
    stream_x_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    using S = XShape<RT>;
    constexpr int RANKS = S::RANKS, STEP = kTileRows * S::GROUPS;
    await_previous();
    extern __shared__ __align__(128) float shares[];
    const Adapter &adapter = adapter_of(p, 0, 0);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, t = lane % 4;
    int strip = warp % S::STRIPS, group = warp / S::STRIPS;
    int64_t strip0 = static_cast<int64_t>(blockIdx.x) * kXColumns + strip * kStrip, col = strip0 + 8 * quad;
    bool in = col < p.K;
    int64_t chunk = blockIdx.y;
    int64_t first = chunk * plan.da_rows, end = first + plan.da_rows < p.M ? first + plan.da_rows : p.M;
    Dropout drop = {};
    if constexpr (DROP) drop = dropout_of(p, 0, 0);

    /* A of the strip, columns by ranks: a thread has columns 8·quad + 2j and + 1 of ranks 2t, 2t + 1, 2t + 8, 2t + 9. */
    uint32_t a[RT][4][4];
#pragma unroll
    for (int k = 0; k < RT; k++) {
        Vector8 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = 16 * k + 2 * t + i % 2 + i / 2 * 8;
            v[i] = load_vector(at(adapter.a, r, col), in && r < adapter.rank);
        }
#pragma unroll
        for (int i = 0; i < 16; i++) {
            a[k][i / 4][i % 4] = halves(v[i % 4 / 2 * 2].w[i / 4], v[i % 4 / 2 * 2 + 1].w[i / 4], i % 2);
        }
    }

    /* Likewise a thread has columns 8·quad to 8·quad + 7 of rows 2t, 2t + 1, 2t + 8, 2t + 9. */
    int64_t own = first + group * kTileRows, ld_dx = p.dx.s0 * 2, ld_ds = RANKS * 2;
    typename S::Rows tiles(shares, p.x, own, strip0, end, p.K);
    const char *ds_asked = plan.ds + (own + quad) * ld_ds + 4 * t;
    char *dx = at(p.dx, own + 2 * t, col);
    const uint32_t *tokens = DROP ? p.token_index + own + 2 * t : nullptr;
    int left = in ? static_cast<int>(end - own) - 2 * t : 0, token_left = static_cast<int>(end - own) - 2 * t;
    int ds_left = static_cast<int>(end - own) - quad;
    auto row_of = [](int i) { return i % 2 + i / 2 * 8; };
    Pairs<RT> next_ds;
    auto ask_ds = [&] {
        next_ds.load(ds_asked, ld_ds, ds_left, RANKS);
        ds_asked += STEP * ld_ds;
        ds_left -= STEP;
    };
    float da[RT * 32] = {}; /* [RT][column of eight][4] */
    int steps = static_cast<int>((end - first + STEP - 1) / STEP);
    ask_ds();
    for (int step = 0; step < steps; step++) {
        uint32_t token[4] = {};
        if constexpr (DROP) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                token[i] = load_pair(reinterpret_cast<const char *>(tokens + row_of(i)), row_of(i) < token_left);
            }
            tokens += STEP;
            token_left -= STEP;
        }
        Vector8 x[4];
        tiles.take(x);
        Pairs<RT> ds = next_ds;
        ask_ds();
#pragma unroll
        for (int half = 0; half < 2; half++) { /* two rows of a thread */
            uint32_t keep[2][4];
            if constexpr (DROP) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    keep_eight<4>(drop, token[2 * half + e], col / 32, quad % 4, keep[e]);
#pragma unroll
                    for (int w = 0; w < 4; w++) x[2 * half + e].w[w] &= keep[e][w];
                }
            }
            Vector8 out[2];
#pragma unroll
            for (int w = 0; w < 4; w++) {
                float v[4] = {};
#pragma unroll
                for (int k = 0; k < RT; k++) mma<T>(v, a[k][w], ds.w[k][2 * half], ds.w[k][2 * half + 1]);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    char *to = dx + row_of(2 * half + e) * ld_dx + 4 * w;
                    if (ADD) {
                        Pair<T> old = {};
                        if (row_of(2 * half + e) < left) old = *reinterpret_cast<const Pair<T> *>(to);
                        if (DROP && !(keep[e][w] & 0xFFFF)) v[e] = 0.0f;
                        if (DROP && !(keep[e][w] >> 16)) v[2 + e] = 0.0f;
                        v[e] += to_float(old.x);
                        v[2 + e] += to_float(old.y);
                    }
                    out[e].w[w] = packed<T>(v[e], v[2 + e]);
                    if (DROP && !ADD) out[e].w[w] &= keep[e][w];
                }
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                if (row_of(2 * half + e) < left) store_vector(dx + row_of(2 * half + e) * ld_dx, out[e]);
            }
        }
        dx += STEP * ld_dx;
        left -= STEP;
        uint32_t turned_ds[RT][4];
        ds.turn(turned_ds);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            uint32_t b0 = halves(x[0].w[c / 2], x[1].w[c / 2], c % 2), b1 = halves(x[2].w[c / 2], x[3].w[c / 2], c % 2);
#pragma unroll
            for (int k = 0; k < RT; k++) mma<T>(da + (k * 8 + c) * 4, turned_ds[k], b0, b1);
        }
    }

    wait<0>();
    add_groups<RT * 32, S::STRIPS, S::GROUPS>(da, shares);
#pragma unroll
    for (int k = 0; k < RT; k++) {
#pragma unroll
        for (int i = 0; i < 8; i++) { /* four columns of eight of two, of rank quad or quad + 8 */
            int r = 16 * k + quad + i / 4 * 8, e = i / 4 * 2 + i / 2 % 2;
            int64_t to = strip0 + 16 * t + i / 2 % 2 * 8 + i % 2 * 4;
            const float *c = da + (k * 8 + i % 2 * 4) * 4 + e;
            if (group == 0 && to < p.K) {
                *reinterpret_cast<float4 *>(plan.da_parts + (chunk * RANKS + r) * p.K + to) =
                    make_float4(c[0], c[4], c[8], c[12]);
            }
        }
    }

    /* The last block of these columns to come adds up their chunks. */
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(plan.arrived + blockIdx.x, 1) == static_cast<int>(gridDim.y) - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int i = threadIdx.x; i < RANKS * kXColumns / 4; i += S::THREADS) {
        int64_t r = i / (kXColumns / 4), to = static_cast<int64_t>(blockIdx.x) * kXColumns + i % (kXColumns / 4) * 4;
        if (to >= p.K || r >= adapter.rank) continue;
        const float4 *from = reinterpret_cast<const float4 *>(plan.da_parts + r * p.K + to);
        store_gradient(p, adapter.da, r, adapter.rank, to, p.K, add_parts(from, RANKS * p.K / 4, plan.da_chunks));
    }
}

cudaError_t launch_stream_x(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype) {
    return with_stream(dtype, plan.ranks, [&](auto zero, auto tiles) {
        using T = decltype(zero);
        constexpr int RT = decltype(tiles)::value;
        dim3 grid(blocks(p.K, kXColumns), static_cast<unsigned>(plan.da_chunks));
        bool add = p.flags & L4J_LORA_ACCUMULATE_DX;
        auto kernel = p.threshold ? (add ? stream_x_kernel<T, RT, true, true> : stream_x_kernel<T, RT, true, false>)
                                  : (add ? stream_x_kernel<T, RT, false, true> : stream_x_kernel<T, RT, false, false>);
        return launch_next(queue, kernel, grid, XShape<RT>::THREADS, XShape<RT>::kShared, p, plan);
    });
}

} // namespace l4j
