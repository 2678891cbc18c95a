/*
 * y of up to kVectorRows rows by NF4 or FP4, where every 64 columns of a row lie within a block. What costs time in codes_vector.cuh is
 * not memory but each code's instructions and its 8 bytes of shared memory. So here the code book is rounded to bf16, a byte of two
 * codes gives a pair of it in one word, and what the tensor cores sum of 64 columns is multiplied by the block's absmax: as near to the
 * decoded weight as one that is rounded.
 * A lane has 16 columns of each 64 of two rows. Codes and scales come through a ring of each warp's own in shared memory, 16 rows of
 * 256 columns at a time; loads into registers would wait for one another.
 * Order: of eight sums sum w takes the 256 columns at 256 · w, 256 · (w + 8), ..., 64 at a time, by a fused multiply-add with the absmax.
 */
#pragma once

#include "codes_vector.cuh"

namespace l4j {

constexpr int kMapRing = 3, kMapStep = 256;
/* A step of the ring: 16 rows of 128 bytes of codes, and two words for each of a lane's two rows. */
constexpr int kMapCodes = 16 * kMapStep / 2, kMapStage = kMapCodes + 4 * 32 * 4;
constexpr size_t kMapTable = 256 * 128, kMapShared = kMapTable + 1024 + kVectorWarps * kMapRing * kMapStage;

__device__ inline void copy4(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(to), "l"(from));
}
__device__ inline uint32_t shared_word(uint32_t at) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}
__device__ inline uint2 shared_words(uint32_t at) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}
/* Four words from memory, or as they were. */
__device__ inline void load_if(bool there, const void *from, uint32_t *to) {
    asm volatile("{\n .reg .pred p;\n setp.ne.u32 p, %5, 0;\n @p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
                 : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
                 : "l"(from), "r"(static_cast<uint32_t>(there)));
}

static __global__ void __launch_bounds__(kVectorThreads, 2)
    map4_vector_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set) {
    extern __shared__ uint4 raw[];
    __shared__ VectorSums sums[2];
    int z = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const Coded &q = set.of[z];
    int N = static_cast<int>(p.projection[z].n), K = static_cast<int>(p.K), tiles = (N + 15) / 16;
    int steps = (K + kMapStep - 1) / kMapStep, slots = (steps - warp + kVectorWarps - 1) / kVectorWarps;
    bool nested = q.nested_map != nullptr, live = group < p.M, fast = rows_are_aligned(p.x, L4J_BF16);
    const char *x = held(p.x.data + (live ? group : 0) * p.x.s0 * 2);
    uint32_t table = shared_address(raw), map = table + kMapTable, copy = held(table + lane * 4);
    uint32_t ring = held(map + 1024 + warp * kMapRing * kMapStage);

    /* What the copies of the lane are of: bytes 16 · (lane % 8) on of rows lane / 8 + 4 i, and its scales. */
    int next_tile = static_cast<int>(blockIdx.x), next_slot = 0, write_at = 0;
    auto unit_at = [&](int n, int unit) {
        return static_cast<uint32_t>(n < N ? n : N - 1) * q.row_units +
               static_cast<uint32_t>(unit < static_cast<int>(q.row_units) ? unit : static_cast<int>(q.row_units) - 1);
    };
    auto fetch = [&] {
        if (next_tile < tiles && slots > 0) {
            int unit = (warp + next_slot * kVectorWarps) * (kMapStep / kUnit), n = next_tile * 16;
            uint32_t stage = ring + write_at * kMapStage;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = lane / 8 + 4 * i;
                copy16(stage + r * 128 + ((lane % 8) ^ ((r & 3) << 1)) * 16,
                       bytes_of(q) + int64_t(16) * unit_at(n + r, unit + lane % 8), true);
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t block = unit_at(n + group + 8 * h, unit + 2 * t) >> q.shift;
                uint32_t to = stage + kMapCodes + (h * 64 + lane) * 4;
                if (nested) {
                    copy4(to, static_cast<const uint8_t *>(q.scales) + (block & ~3u));
                    copy4(to + 128, q.nested_scales + (block >> q.nested_shift));
                } else {
                    copy4(to, static_cast<const float *>(q.scales) + block);
                }
            }
            if (++next_slot == slots) {
                next_slot = 0;
                next_tile += static_cast<int>(gridDim.x);
            }
            write_at = write_at + 1 == kMapRing ? 0 : write_at + 1;
        }
        commit();
    };
    fetch();
    fetch();
    for (uint32_t b = threadIdx.x; b < 256; b += kVectorThreads) {
        uint32_t pair = packed<bf16>(q.map[b >> 4], q.map[b & 15]);
        uint4 *entry = reinterpret_cast<uint4 *>(reinterpret_cast<char *>(raw) + b * 128);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) entry[(i + b) % 8] = make_uint4(pair, pair, pair, pair);
        if (nested) reinterpret_cast<float *>(reinterpret_cast<char *>(raw) + kMapTable)[b] = q.nested_map[b];
    }
    __syncthreads();

    uint32_t xs[2][8] = {};
    float sum[4];
    int read_at = 0;
    auto step = [&](int tile, int slot) {
        wait<1>();
        __syncwarp(); /* the step is there, and all lanes have left the one whose place is filled next */
        fetch();
        int unit = (warp + slot * kVectorWarps) * (kMapStep / kUnit);
        uint32_t stage = ring + read_at * kMapStage;
        read_at = read_at + 1 == kMapRing ? 0 : read_at + 1;
        float absmax[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t from = stage + kMapCodes + (h * 64 + lane) * 4, word = shared_word(from);
            absmax[h] = __uint_as_float(word);
            if (nested) {
                uint32_t block = unit_at(tile * 16 + group + 8 * h, unit + 2 * t) >> q.shift;
                float scaled = __uint_as_float(shared_word(map + (word >> block % 4 * 8 & 255) * 4)) *
                               __uint_as_float(shared_word(from + 128));
                absmax[h] = scaled + q.nested_offset;
            }
        }
        const char *from = x + static_cast<int64_t>(unit) * kUnit * 2 + t * 32;
#pragma unroll
        for (int j = 0; j < kMapStep / 64; j++) {
            if ((unit + 2 * j) * kUnit >= K) break;
            uint32_t(&own)[8] = xs[j % 2];
            if (fast) {
                load_if(live, from + j * 128, own);
                load_if(live, from + j * 128 + 16, own + 4);
            } else {
                uint32_t slow[8];
                read_pairs(p.x, live ? group : 0, unit * kUnit + j * 64 + t * 16, 8, slow);
#pragma unroll
                for (int i = 0; i < 8; i++) own[i] = slow[i];
            }
            uint32_t codes = stage + group * 128 + ((2 * j + t / 2) ^ ((group & 3) << 1)) * 16 + t % 2 * 8;
            uint2 upper = shared_words(codes), lower = shared_words(codes + 8 * 128);
            float c[4] = {0, 0, 0, 0};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t u = i < 2 ? upper.x : upper.y, l = i < 2 ? lower.x : lower.y;
                uint32_t first = 128u << i % 2 * 16, second = first << 8; /* 128 times a byte */
                uint32_t a[4] = {shared_word(__dp4a(u, first, copy)), shared_word(__dp4a(l, first, copy)),
                                 shared_word(__dp4a(u, second, copy)), shared_word(__dp4a(l, second, copy))};
                mma<bf16>(c, a, own[2 * i], own[2 * i + 1]);
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float scale = __shfl_sync(0xFFFFFFFFu, absmax[h], j, 4);
                sum[2 * h] = __fmaf_rn(c[2 * h], scale, sum[2 * h]);
                sum[2 * h + 1] = __fmaf_rn(c[2 * h + 1], scale, sum[2 * h + 1]);
            }
        }
    };
    int parity = 0;
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x), parity ^= 1) {
        sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        for (int slot = 0; slot < slots; slot++) step(tile, slot);
            /* Two sets of sums: while some still read one, others write the other. */
#pragma unroll
        for (int e = 0; e < 4; e++) sums[parity][warp][group + e / 2 * 8][t * 2 + e % 2] = sum[e];
        __syncthreads();
        store_sums(p, z, tile, sums[parity]);
    }
    wait<0>();
}

template <> inline cudaError_t launch_vector<Map4>(const l4j_queue *queue, const LoraParams &p, const CodedSet &set) {
    bool fits = true;
    for (int g = 0; g < p.projections; g++) fits &= set.of[g].cols % 64 == 0 && set.of[g].block % 64 == 0;
    return fits ? launch(queue, map4_vector_kernel, vector_grid(queue, p), kVectorThreads, kMapShared, p, set)
                : launch(queue, codes_vector_kernel<Map4>, vector_grid(queue, p), kVectorThreads,
                         Decoder<Map4>::kShared, p, set);
}

} // namespace l4j
