/* What the two backward kernels of lora_stream.cuh share: how their blocks go down the rows, and sums of parts in their order. */
#pragma once

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

/* Four neighbours of the sum of `count` parts that are `size` vectors apart. */
__device__ inline float4 add_parts(const float4 *from, int64_t size, int64_t count) {
    float4 sum = __ldcg(from);
#pragma unroll 8
    for (int64_t i = 1; i < count; i++) {
        float4 v = __ldcg(from + i * size);
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    return sum;
}
/* The gradient's elements (row, col) to (row, col + 3). */
__device__ inline void store_gradient(const LoraParams &p, const View &out, int64_t row, int64_t rows, int64_t col,
                                      int64_t cols, const float4 &sum) {
    float of[4] = {sum.x, sum.y, sum.z, sum.w};
    bool add = p.flags & L4J_LORA_ACCUMULATE_GRADS;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (row < rows && col + e < cols) write(out, row, col + e, add ? read(out, row, col + e) + of[e] : of[e]);
    }
}

} // namespace l4j
