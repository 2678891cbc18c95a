/* Kernels over the elements of [M, N]: a block walks over rows, its threads over columns, so that neighbours read neighbours. */
#pragma once

#include "operations.cuh"

namespace l4j {

constexpr int kRowThreads = 256;

/* Blocks for [M, N]: x over rows, y over columns. */
inline dim3 row_grid(int64_t M, int64_t N) {
    int64_t columns = ceil_div(N, kRowThreads), rows = M < 65536 * 16 ? M : 65536 * 16;
    return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(columns < 64 ? columns : 64));
}

/* f(m, n) for every element. */
template <class F> __device__ void each_element(int64_t M, int64_t N, F f) {
    for (int64_t m = blockIdx.x; m < M; m += gridDim.x) {
        for (int64_t n = static_cast<int64_t>(blockIdx.y) * kRowThreads + threadIdx.x; n < N;
             n += static_cast<int64_t>(gridDim.y) * kRowThreads) {
            f(m, n);
        }
    }
}

} // namespace l4j
