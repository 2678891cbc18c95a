/*
 * ds = c · dy·B with dB = dyᵀ·s in one pass over dy, and dx = mask ⊙ (ds·A) with dA = dsᵀ·(mask ⊙ x) in one over x. A block keeps the
 * gradient of its columns in registers while it goes down a chunk of rows; chunks, and the shares of ds that blocks of columns have, are
 * added in their order afterwards.
 */
#include "stream_tile.cuh"

namespace l4j {

constexpr int kStages = 5; /* of tiles in shared memory, with the one that is worked on */

/* Pairs of ranks of 16 rows of s or ds: [ranks 16k][2 · half of the rows + half of the ranks] */
template <int RT> struct Pairs {
    uint32_t w[RT][4];

    /* `from` is at the thread's own row, of which `left` and on are there, and rank; rows are `ld` bytes apart. */
    __device__ void load(const char *from, int64_t ld, int left, int rank) {
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = 16 * k + i % 2 * 8;
                w[k][i] = load_pair(from + (i / 2 ? 8 * ld : 0) + 2 * r, i / 2 * 8 < left && r < rank);
            }
        }
    }
    /* The left operand of a product over the rows: ranks by rows. */
    __device__ void turn(uint32_t (&to)[RT][4]) const {
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) to[k][i] = turned(w[k][i]);
        }
    }
};

/* Adds up the accumulators of the groups of warps that share columns, in ascending order, into those of the first. */
template <int COUNT, int STRIPS, int GROUPS> __device__ void add_groups(float (&c)[COUNT], float *shared) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, strip = warp % STRIPS, group = warp / STRIPS;
    __syncthreads();
#pragma unroll
    for (int e = 0; e < COUNT; e++) {
        if (group > 0) shared[(((group - 1) * STRIPS + strip) * COUNT + e) * 32 + lane] = c[e];
    }
    __syncthreads();
    if (group > 0) return;
#pragma unroll
    for (int other = 0; other < GROUPS - 1; other++) {
#pragma unroll
        for (int e = 0; e < COUNT; e++) c[e] += shared[((other * STRIPS + strip) * COUNT + e) * 32 + lane];
    }
}

/* ---- dy ---- */

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

/* Four neighbours of the sum of `count` parts that are `size` vectors apart. */
__device__ static float4 add_parts(const float4 *from, int64_t size, int64_t count) {
    float4 sum = __ldcg(from);
#pragma unroll 8
    for (int64_t i = 1; i < count; i++) {
        float4 v = __ldcg(from + i * size);
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    return sum;
}
/* The gradient's elements (row, col) to (row, col + 3). */
__device__ static void store_gradient(const LoraParams &p, const View &out, int64_t row, int64_t rows, int64_t col, int64_t cols,
                                      const float4 &sum) {
    float of[4] = {sum.x, sum.y, sum.z, sum.w};
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (row < rows && col + e < cols) write(out, row, col + e, add ? read(out, row, col + e) + of[e] : of[e]);
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

/* ---- x ---- */

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

/* ---- plans and launches ---- */

bool stream_fits(const LoraParams &p, bool backward, int32_t dtype) {
    if (dtype == L4J_F32 || p.segmented || p.adapters != 1 || p.M < kStreamRows || p.K < kStreamWidth) return false;
    for (int g = 0; g < p.projections; g++) {
        const Projection &q = p.projection[g];
        if (q.width > kStreamRank || q.n < kStreamWidth) return false;
    }
    const Adapter &only = p.few[0];
    return !backward || (p.projections == 1 && p.dx.data && only.da.data && only.db.data);
}

/* Rows of a chunk, a multiple of `step`: a wave of blocks takes as long as its rows, and about 64 more for what it adds up. */
static int64_t chunk_rows(int64_t M, int64_t column_blocks, int multiprocessors, int64_t step) {
    int64_t best = M, least = INT64_MAX;
    for (int64_t chunks = 1; chunks <= 64; chunks++) {
        int64_t rows = ceil_div(ceil_div(M, chunks), step) * step;
        int64_t cost = ceil_div(ceil_div(M, rows) * column_blocks, multiprocessors) * (rows + 64);
        if (cost < least) {
            least = cost;
            best = rows;
        }
    }
    return best;
}

StreamPlan plan_stream(const LoraParams &p, int multiprocessors, l4j_arena *arena) {
    StreamPlan plan = {};
    const Projection &q = p.projection[0];
    plan.ranks = q.width <= 16 ? 16 : 32;
    plan.slices = ceil_div(q.n, kDyColumns);
    plan.db_rows = chunk_rows(p.M, plan.slices, multiprocessors, 2 * kTileRows);
    plan.db_chunks = ceil_div(p.M, plan.db_rows);
    plan.da_rows = chunk_rows(p.M, ceil_div(p.K, kXColumns), multiprocessors, 4 * kTileRows);
    plan.da_chunks = ceil_div(p.M, plan.da_rows);
    auto take = [&](int64_t rows, size_t size) { return l4j_take(arena, static_cast<size_t>(rows * plan.ranks) * size); };
    plan.ds = static_cast<char *>(take(p.M, 2));
    plan.ds_parts = static_cast<float *>(take(plan.slices * p.M, sizeof(float)));
    plan.db_parts = static_cast<float *>(take(plan.db_chunks * q.n, sizeof(float)));
    plan.da_parts = static_cast<float *>(take(plan.da_chunks * p.K, sizeof(float)));
    plan.arrived = static_cast<int32_t *>(l4j_take(arena, sizeof(int32_t) * static_cast<size_t>(ceil_div(p.K, kXColumns))));
    return plan;
}

cudaError_t launch_stream_backward(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype) {
    return with_stream(dtype, plan.ranks, [&](auto zero, auto tiles) {
        using T = decltype(zero);
        constexpr int RT = decltype(tiles)::value, kSmall = 256;
        int64_t n = p.projection[0].n;
        dim3 of_dy(static_cast<unsigned>(plan.slices), static_cast<unsigned>(plan.db_chunks));
        dim3 of_x(blocks(p.K, kXColumns), static_cast<unsigned>(plan.da_chunks));
        cudaError_t status =
            launch(queue, stream_dy_kernel<T, RT>, of_dy, DyShape<RT>::THREADS, DyShape<RT>::kShared, p, plan);
        if (status != cudaSuccess) return status;
        unsigned small = blocks((p.M + n) * plan.ranks / 4, kSmall);
        status = launch_next(queue, stream_ds_kernel<T>, small, kSmall, 0, p, plan);
        if (status != cudaSuccess) return status;
        bool add = p.flags & L4J_LORA_ACCUMULATE_DX;
        auto kernel = p.threshold ? (add ? stream_x_kernel<T, RT, true, true> : stream_x_kernel<T, RT, true, false>)
                                  : (add ? stream_x_kernel<T, RT, false, true> : stream_x_kernel<T, RT, false, false>);
        return launch_next(queue, kernel, of_x, XShape<RT>::THREADS, XShape<RT>::kShared, p, plan);
    });
}

} // namespace l4j
