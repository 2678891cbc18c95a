/*
 * ds = c · dy·B with dB = dyᵀ·s in one pass over dy, and dx = mask ⊙ (ds·A) with dA = dsᵀ·(mask ⊙ x) in one over x. A block keeps the
 * gradient of its columns in registers while it goes down a chunk of rows; chunks, and the shares of ds that blocks of columns have, are
 * added in their order afterwards.
 */
#include "stream_tile.cuh"

namespace l4j {

/* Rows of a warp's tile, and columns. */
constexpr int kTileRows = 16, kStrip = 64;

/* Pairs of ranks of 16 rows of s or ds: [ranks 16k][2 · half of the rows + half of the ranks] */
template <int RT> struct Pairs {
    uint32_t w[RT][4];

    __device__ void load(const char *data, int64_t ld, int64_t row, int64_t end, int rank) {
        int quad = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int k = 0; k < RT; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int64_t m = row + i / 2 * 8 + quad;
                int r = 16 * k + i % 2 * 8 + 2 * t;
                w[k][i] = load_pair(data + (m * ld + r) * 2, m < end && r < rank);
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
    static constexpr size_t kShared = 2 * GROUPS * STRIPS * SHARE * sizeof(float);
    static_assert((GROUPS - 1) * STRIPS * 32 * RT * 32 * sizeof(float) <= kShared);
};

template <class T, int RT>
__global__ void __launch_bounds__(DyShape<RT>::THREADS, 1)
    stream_dy_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    using S = DyShape<RT>;
    constexpr int RANKS = S::RANKS, STEP = kTileRows * S::GROUPS;
    await_previous();
    extern __shared__ float shares[];
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

    /* A thread has columns 8t to 8t + 7 of each 32, of rows quad and quad + 8. */
    Vector8 next[2][2];
    Pairs<RT> next_s;
    auto load = [&](int64_t row) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t m = row + i / 2 * 8 + quad, col = n0 + i % 2 * 32 + 8 * t;
            next[i / 2][i % 2] = load_activation(at(q.dy, m, col), m < end && col < q.n);
        }
        next_s.load(q.s.data, q.s.s0, row, end, adapter.rank);
    };
    float db[RT * 32] = {}; /* [RT][half of 32 columns][pair of columns][4] */
    int steps = static_cast<int>((end - first + STEP - 1) / STEP);
    load(first + group * kTileRows);
    for (int i = 0; i < steps; i++) {
        Vector8 dy[2][2] = {{next[0][0], next[0][1]}, {next[1][0], next[1][1]}};
        uint32_t s[RT][4];
        next_s.turn(s);
        int64_t row = first + static_cast<int64_t>(i) * STEP;
        load(row + STEP + group * kTileRows);

        float ds[2 * RT][4] = {};
#pragma unroll
        for (int step = 0; step < 4; step++) {
            const Vector8 &low = dy[0][step / 2], &high = dy[1][step / 2];
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
            uint32_t b0 = turned(dy[0][j / 4].w[j % 4]), b1 = turned(dy[1][j / 4].w[j % 4]);
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
            int64_t m = row + of * kTileRows + in / RANKS;
            if (m < end) plan.ds_parts[(blockIdx.x * p.M + m) * RANKS + in % RANKS] = sum;
        }
    }

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

/* ds from its shares: four ranks of a row a thread. */
template <class T> __global__ void stream_ds_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    await_previous();
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, count = p.M * plan.ranks / 4;
    if (i >= count) return;
    const float4 *from = reinterpret_cast<const float4 *>(plan.ds_parts) + i;
    float4 sum = from[0];
#pragma unroll 4
    for (int64_t n = 1; n < plan.slices; n++) {
        float4 v = from[n * count];
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    float factor = lora_factor(p, 0, 0);
    reinterpret_cast<uint2 *>(plan.ds)[i] =
        make_uint2(packed<T>(sum.x * factor, sum.y * factor), packed<T>(sum.z * factor, sum.w * factor));
}

/* ---- x ---- */

template <int RT> struct XShape {
    static constexpr int STRIPS = kXColumns / kStrip, GROUPS = 4 / RT, THREADS = STRIPS * GROUPS * 32, RANKS = 16 * RT;
    static constexpr size_t kShared = static_cast<size_t>(GROUPS - 1) * STRIPS * 32 * RT * 32 * sizeof(float);
};

template <class T, int RT, bool DROP>
__global__ void __launch_bounds__(XShape<RT>::THREADS, 1)
    stream_x_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    using S = XShape<RT>;
    constexpr int RANKS = S::RANKS, STEP = kTileRows * S::GROUPS;
    await_previous();
    extern __shared__ float shares[];
    const Adapter &adapter = adapter_of(p, 0, 0);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, t = lane % 4;
    int strip = warp % S::STRIPS, group = warp / S::STRIPS;
    int64_t strip0 = static_cast<int64_t>(blockIdx.x) * kXColumns + strip * kStrip, col = strip0 + 8 * quad;
    bool in = col < p.K, add = p.flags & L4J_LORA_ACCUMULATE_DX;
    
#ifdef L4J_DEV_FIRST
    int64_t chunk = blockIdx.y;
#else
    int64_t chunk = gridDim.y - 1 - blockIdx.y; /* the last rows first */
#endif
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
    Vector8 next[4];
    Pairs<RT> next_ds;
    auto row_of = [&](int64_t row, int i) { return row + 2 * t + i % 2 + i / 2 * 8; };
    auto load = [&](int64_t row) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t m = row_of(row, i);
            next[i] = load_activation(at(p.x, m, col), in && m < end);
        }
        next_ds.load(plan.ds, RANKS, row, end, RANKS);
    };
    float da[RT * 32] = {}; /* [RT][column of eight][4] */
    int steps = static_cast<int>((end - first + STEP - 1) / STEP);
    load(first + group * kTileRows);
    for (int step = 0; step < steps; step++) {
        Vector8 x[4] = {next[0], next[1], next[2], next[3]};
        Pairs<RT> ds = next_ds;
        int64_t row = first + static_cast<int64_t>(step) * STEP + group * kTileRows;
        uint32_t tokens[DROP ? 4 : 1];
        if constexpr (DROP) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int64_t m = row_of(row, i);
                tokens[i] = load_pair(reinterpret_cast<const char *>(p.token_index + m), m < end);
            }
        }
        load(row + STEP);
#pragma unroll
        for (int half = 0; half < 2; half++) { /* two rows of a thread */
            uint32_t keep[2][4];
            Vector8 out[2];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                if constexpr (DROP) {
                    keep_eight<4>(drop, tokens[2 * half + e], col / 32, quad % 4, keep[e]);
#pragma unroll
                    for (int w = 0; w < 4; w++) x[2 * half + e].w[w] &= keep[e][w];
                }
                int64_t m = row_of(row, 2 * half + e);
                if (add) out[e] = load_vector(at(p.dx, m, col), in && m < end);
            }
#pragma unroll
            for (int w = 0; w < 4; w++) {
                float v[4] = {};
#pragma unroll
                for (int k = 0; k < RT; k++) mma<T>(v, a[k][w], ds.w[k][2 * half], ds.w[k][2 * half + 1]);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float low = v[e], high = v[2 + e];
                    if constexpr (DROP) {
                        if (!(keep[e][w] & 0xFFFF)) low = 0.0f;
                        if (!(keep[e][w] >> 16)) high = 0.0f;
                    }
                    if (add) {
                        Pair<T> old = *reinterpret_cast<const Pair<T> *>(&out[e].w[w]);
                        low += to_float(old.x);
                        high += to_float(old.y);
                    }
                    out[e].w[w] = packed<T>(low, high);
                }
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int64_t m = row_of(row, 2 * half + e);
                if (in && m < end) store_vector(at(p.dx, m, col), out[e]);
            }
        }
        uint32_t left[RT][4];
        ds.turn(left);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            uint32_t b0 = halves(x[0].w[c / 2], x[1].w[c / 2], c % 2), b1 = halves(x[2].w[c / 2], x[3].w[c / 2], c % 2);
#pragma unroll
            for (int k = 0; k < RT; k++) mma<T>(da + (k * 8 + c) * 4, left[k], b0, b1);
        }
    }

    if constexpr (S::GROUPS > 1) add_groups<RT * 32, S::STRIPS, S::GROUPS>(da, shares);
    if (group > 0) return;
#pragma unroll
    for (int k = 0; k < RT; k++) {
#pragma unroll
        for (int i = 0; i < 8; i++) { /* four columns of eight of two, of rank quad or quad + 8 */
            int r = 16 * k + quad + i / 4 * 8, e = i / 4 * 2 + i / 2 % 2;
            int64_t to = strip0 + 16 * t + i / 2 % 2 * 8 + i % 2 * 4;
            const float *c = da + (k * 8 + i % 2 * 4) * 4 + e;
            if (to < p.K) {
                *reinterpret_cast<float4 *>(plan.da_parts + (chunk * RANKS + r) * p.K + to) =
                    make_float4(c[0], c[4], c[8], c[12]);
            }
        }
    }
}

/* ---- the gradients from their chunks ---- */

__global__ void stream_finish_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ StreamPlan plan) {
    await_previous();
    const Adapter &adapter = adapter_of(p, 0, 0);
    int64_t n = p.projection[0].n, of_db = n * plan.ranks / 4, of_da = p.K * plan.ranks / 4;
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    bool is_da = i >= of_db;
    if (is_da) i -= of_db;
    if (is_da && i >= of_da) return;
    int64_t cols = is_da ? p.K : plan.ranks, row = 4 * i / cols, col = 4 * i % cols, count = is_da ? of_da : of_db;
    int64_t chunks = is_da ? plan.da_chunks : plan.db_chunks;
    const float4 *from = reinterpret_cast<const float4 *>(is_da ? plan.da_parts : plan.db_parts) + i;
    float4 sum = from[0];
#pragma unroll 4
    for (int64_t c = 1; c < chunks; c++) {
        float4 v = from[c * count];
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    float of[4] = {sum.x, sum.y, sum.z, sum.w};
    const View &out = is_da ? adapter.da : adapter.db;
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
    if (is_da && row >= adapter.rank) return;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (!is_da && col + e >= adapter.rank) continue;
        write(out, row, col + e, add ? read(out, row, col + e) + of[e] : of[e]);
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
    return plan;
}

cudaError_t launch_stream_backward(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype) {
    return with_stream(dtype, plan.ranks, [&](auto zero, auto tiles) {
        using T = decltype(zero);
        constexpr int RT = decltype(tiles)::value, kSmall = 256;
        int64_t n = p.projection[0].n;
        dim3 of_dy(static_cast<unsigned>(plan.slices), static_cast<unsigned>(plan.db_chunks));
        dim3 of_x(blocks(p.K, kXColumns), static_cast<unsigned>(plan.da_chunks));
        cudaError_t status = launch(queue, stream_dy_kernel<T, RT>, of_dy, DyShape<RT>::THREADS, DyShape<RT>::kShared, p, plan);
        if (status != cudaSuccess) return status;
        status = launch_next(queue, stream_ds_kernel<T>, blocks(p.M * plan.ranks / 4, kSmall), kSmall, 0, p, plan);
        if (status != cudaSuccess) return status;
        status = p.threshold ? launch_next(queue, stream_x_kernel<T, RT, true>, of_x, XShape<RT>::THREADS, XShape<RT>::kShared, p, plan)
                             : launch_next(queue, stream_x_kernel<T, RT, false>, of_x, XShape<RT>::THREADS, XShape<RT>::kShared, p, plan);
        if (status != cudaSuccess) return status;
        return launch_next(queue, stream_finish_kernel, blocks((n + p.K) * plan.ranks / 4, kSmall), kSmall, 0, p, plan);
    });
}

} // namespace l4j
