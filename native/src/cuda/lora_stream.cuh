/*
 * The low-rank work beside a base product of cuBLASLt, so that every activation passes once:
 *   forward    x -> s -> y            a block has 16 or 32 rows from end to end
 *   backward   dy, s -> ds, dB        a block has 512 columns of a chunk of rows
 *              x, ds -> dx, dA        a block has 256 columns of a chunk of rows: a mask is drawn once for both
 * Warps take an activation from memory straight to the fragments of the tensor cores, 16 bytes a thread: which columns a fragment holds
 * is free as long as both sides of a product agree, and 8x8 matrices are turned in registers. Nothing but sums of warps goes through
 * shared memory.
 */
#pragma once

#include "lora_kernels.cuh"

namespace l4j {

constexpr int kStreamRank = 32;                           /* the highest */
constexpr int64_t kStreamRows = 512, kStreamWidth = 1024; /* the fewest, the narrowest layers: measured on an H100 */
constexpr int kDyColumns = 512, kXColumns = 256;

/* What a backward call keeps in the workspace, and how its rows are cut. */
struct StreamPlan {
    int32_t ranks;              /* columns of what follows: a multiple of 16 */
    int64_t db_rows, db_chunks; /* of dy's pass */
    int64_t da_rows, da_chunks; /* of x's pass */
    int64_t slices;             /* blocks of columns of dy, each with its share of ds */
    float *ds_parts;            /* [slices][M][ranks] */
    char *ds;                   /* [M][ranks] like x */
    float *db_parts, *da_parts; /* [db_chunks][n][ranks], [da_chunks][ranks][K] */
    int32_t *arrived;           /* [blocks of columns of x] how many of its chunks are done */
};

/* Whether the ranks, shapes and wanted results are those of these kernels. Weights and what cuBLASLt takes are the caller's to see. */
bool stream_fits(const LoraParams &p, bool backward, int32_t dtype);
StreamPlan plan_stream(const LoraParams &p, int multiprocessors, l4j_arena *arena);

/* s, and y = s·Bᵀ. */
cudaError_t launch_stream_forward(const l4j_queue *queue, const LoraParams &p, int32_t dtype);
/* dx = mask ⊙ (ds·A), or added to the old dx, and dB and dA: the two passes that follow. */
cudaError_t launch_stream_backward(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype);
/* ds and dB. */
cudaError_t launch_stream_dy(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype);
/* dx and dA. */
cudaError_t launch_stream_x(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype);

} // namespace l4j
