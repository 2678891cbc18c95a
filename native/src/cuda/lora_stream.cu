/* Which calls the kernels of lora_stream.cuh take, and how a backward call is cut into chunks. */
#include "lora_stream.cuh"

namespace l4j {

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
    plan.db_rows = chunk_rows(p.M, plan.slices, multiprocessors, 32);
    plan.db_chunks = ceil_div(p.M, plan.db_rows);
    plan.da_rows = chunk_rows(p.M, ceil_div(p.K, kXColumns), multiprocessors, 64);
    plan.da_chunks = ceil_div(p.M, plan.da_rows);
    auto take = [&](int64_t rows, size_t size) {
        return l4j_take(arena, static_cast<size_t>(rows * plan.ranks) * size);
    };
    plan.ds = static_cast<char *>(take(p.M, 2));
    plan.ds_parts = static_cast<float *>(take(plan.slices * p.M, sizeof(float)));
    plan.db_parts = static_cast<float *>(take(plan.db_chunks * q.n, sizeof(float)));
    plan.da_parts = static_cast<float *>(take(plan.da_chunks * p.K, sizeof(float)));
    plan.arrived =
        static_cast<int32_t *>(l4j_take(arena, sizeof(int32_t) * static_cast<size_t>(ceil_div(p.K, kXColumns))));
    return plan;
}

cudaError_t launch_stream_backward(const l4j_queue *queue, const LoraParams &p, const StreamPlan &plan, int32_t dtype) {
    cudaError_t status = launch_stream_dy(queue, p, plan, dtype);
    return status == cudaSuccess ? launch_stream_x(queue, p, plan, dtype) : status;
}

} // namespace l4j
