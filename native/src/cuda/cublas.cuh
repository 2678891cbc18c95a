/* cuBLASLt where it is: opened when a product first asks for it, never needed. LORA4J_CUBLAS=off leaves it closed; any other value is the
   path of the library to open. */
#pragma once

#include "common.cuh"

namespace l4j {

/* y[M, N] = x[M, K] · w + (add ? y : 0), all of one 16-bit dtype, rows aligned to 16 bytes. `down`: w is [K, N], else [N, K]. */
struct CublasProduct {
    View x, w, y;
    int64_t M, N, K;
    bool down, add;
};

/* Whether cuBLASLt is there and has a kernel without sums across blocks, which would not be the same in every run. */
bool cublas_has(const l4j_queue *queue, const CublasProduct &p);
/* Queues a product that cublas_has. */
cudaError_t cublas_multiply(const l4j_queue *queue, const CublasProduct &p);

} // namespace l4j
