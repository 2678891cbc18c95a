/* The kernels of a lora call beside the product itself. */
#pragma once

#include "lora.cuh"

namespace l4j {

/* s of all rows, or ds. */
cudaError_t launch_shrink(const l4j_queue *queue, const LoraParams &p, bool backward, int32_t dtype);
/* dB and dA of all adapters; `chunks` is the most that there can be. */
cudaError_t launch_gradients(const l4j_queue *queue, const LoraParams &p, int64_t chunks, int32_t dtype);
/* The descriptors of at most kTableEntries adapters into the workspace. */
cudaError_t launch_table(const l4j_queue *queue, const Adapter *entries, int count, Adapter *table);
/* Rows sorted by adapter, from the segments. */
cudaError_t launch_sort(const l4j_queue *queue, const LoraParams &p, const l4j_lora *args, bool chunks);

} // namespace l4j
