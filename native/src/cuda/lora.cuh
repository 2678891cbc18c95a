/* What the kernels of lora_forward and lora_backward are given, and how rows come to their adapters. */
#pragma once

#include "dropout.cuh"

namespace l4j {

constexpr int kProjections = 16;
constexpr int kFewAdapters = 16;   /* entries that travel with the launch; more of them lie in the workspace, */
constexpr int kTableEntries = 128; /* to which so many travel with a launch of their own */
constexpr int kChunkRows = 512;    /* rows of an adapter that one partial sum of its gradients covers */

/* One adapter on one projection; rank 0 = none. */
struct Adapter {
    View a, b, da, db;
    int32_t rank;
};

struct Projection {
    View w, bias, y, s, dy;
    View ds;                        /* backward, workspace: [M, width] like x */
    int64_t n;                      /* out-features */
    int32_t width;                  /* columns of s: the highest rank */
    float *partial_db, *partial_da; /* backward, workspace: [slots][n][width] and [slots][width][K] */
};

/* A run of at most kChunkRows rows of one adapter, in the order of its rows. */
struct Chunk {
    int32_t adapter, first, rows; /* [first, first + rows) of the sorted rows */
    int32_t slot; /* of the partial sums; -1: the adapter's only chunk, written straight to the gradient */
};

/* Rows sorted by adapter: written by sort_rows from the segments, or implied where all rows are adapter 0's. */
struct Sorted {
    int32_t *row_adapter; /* [M], -1 = none */
    int32_t *rows;        /* [M] rows in the order of adapters, ascending within one */
    int32_t *start;       /* [segment_capacity] of a segment's rows among the sorted ones */
    int32_t *count;       /* [adapters] rows of each */
    int32_t *first;       /* [adapters] its first sorted row */
    int32_t *slot;        /* [adapters] its first slot, -1 = it needs none */
    Chunk *chunks;
    int32_t *chunk_count; /* [1] */
};

/* Which tiles of rows a kernel takes of a call with segments: all; those whose rows have one adapter, or none; the others. */
enum TileRows : int32_t { kAllTiles, kTilesOfOne, kMixedTiles };

struct LoraParams {
    View x, dx;
    int64_t M, K;
    int32_t projections, adapters;
    uint32_t flags, threshold;
    double keep; /* 1 - p' */
    const float *scaling;
    const uint64_t *seed;
    const int64_t *step;
    const uint32_t *token_index;
    const int32_t *module_id, *adapter_id;
    bool segmented;
    bool adapters_aligned; /* all of a and b are like x, with rows that can be copied 16 bytes at a time */
    Sorted sorted;
    int64_t
        first; /* the columns of y or dx here are those from this one on (a multiple of 128) of adapters and masks */
    const float *row_scale; /* of dx, or NULL */
    bool low_rank_only;     /* without the base product, which is added later */
    TileRows tiles;
    bool low_rank_there; /* in y or dx already: where cuBLASLt takes the base product, it only adds that */
    int64_t fold;        /* the contraction is summed in blocks of so many; 0 = one chain */
    Fault *fault;
    const Adapter *table; /* NULL: `few` */
    Adapter few[kFewAdapters];
    Projection projection[kProjections];
};

__device__ inline const Adapter &adapter_of(const LoraParams &p, int adapter, int g) {
    int i = adapter * p.projections + g;
    return p.table ? p.table[i] : p.few[i];
}
__device__ inline int row_adapter(const LoraParams &p, int64_t m) {
    return p.segmented ? p.sorted.row_adapter[m] : p.adapters - 1;
}
/* c of the contract. */
__device__ inline float lora_factor(const LoraParams &p, int adapter, int g) {
    return static_cast<float>(static_cast<double>(p.scaling[adapter * p.projections + g]) / p.keep);
}
__device__ inline Dropout dropout_of(const LoraParams &p, int adapter, int g) {
    uint64_t seed = *p.seed;
    return Dropout{p.threshold,
                   static_cast<uint32_t>(seed),
                   static_cast<uint32_t>(seed >> 32),
                   static_cast<uint32_t>(p.module_id[g]) | static_cast<uint32_t>(p.adapter_id[adapter]) << 16,
                   static_cast<uint32_t>(*p.step),
                   p.token_index};
}

/* The adapters of a block's rows, one after another in ascending order. */
template <int BM, int THREADS> struct RowAdapters {
    int32_t of[BM];

    __device__ void load(const LoraParams &p, int64_t m0) {
        for (int r = threadIdx.x; r < BM; r += THREADS) of[r] = m0 + r < p.M ? row_adapter(p, m0 + r) : -1;
        __syncthreads();
    }
    /* The lowest adapter above `after`, or -1; the same on every thread. */
    __device__ int next(int after) const {
        int lowest = INT32_MAX;
        for (int r = threadIdx.x % 32; r < BM; r += 32) lowest = of[r] > after ? min(lowest, of[r]) : lowest;
        lowest = __reduce_min_sync(0xFFFFFFFFu, lowest);
        return lowest == INT32_MAX ? -1 : lowest;
    }
};

/* y or dx: the base product with the low-rank one in its accumulators. */
cudaError_t launch_gemm(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype);
/* Whether the base product is cuBLASLt's. */
bool takes_cublas(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype);

} // namespace l4j
