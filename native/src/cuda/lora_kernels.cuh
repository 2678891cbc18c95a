/* The kernels of a lora call beside the product itself. */
#pragma once

#include "lora.cuh"

namespace l4j {

/* Values that a step may change: one block looks at them. */
__device__ inline void check_values(const LoraParams &p, int g) {
    for (int a = threadIdx.x; a < p.adapters; a += blockDim.x) {
        if (adapter_of(p, a, g).rank == 0) continue;
        if (!isfinite(p.scaling[a * p.projections + g])) report(p.fault, kBadScaling, a * p.projections + g, 0, 0);
        if (p.threshold && (p.adapter_id[a] < 0 || p.adapter_id[a] > 65535)) {
            report(p.fault, kBadAdapterId, a, p.adapter_id[a], 65535);
        }
        if (p.threshold && (p.module_id[g] < 0 || p.module_id[g] > 65535)) {
            report(p.fault, kBadModule, g, p.module_id[g], 65535);
        }
    }
}

/* s of all rows, or ds. */
cudaError_t launch_shrink(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype);
/* dB and dA of all adapters; `chunks` is the most that there can be. */
cudaError_t launch_gradients(const l4j_queue *queue, const LoraParams &p, int64_t chunks, int32_t dtype);
/* The descriptors of at most kTableEntries adapters into the workspace. */
cudaError_t launch_table(const l4j_queue *queue, const Adapter *entries, int count, Adapter *table);
/* Rows sorted by adapter, from the segments. */
cudaError_t launch_sort(const l4j_queue *queue, const LoraParams &p, const l4j_lora *args, bool chunks);

} // namespace l4j
