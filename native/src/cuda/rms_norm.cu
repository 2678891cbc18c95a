/* rms_norm_forward and rms_norm_backward: a block for each row. */
#include "operations.cuh"

namespace l4j {

constexpr int kNormThreads = 256;

struct NormParams {
    View x, residual, weight, h, y, rstd, dy, dresidual, dx, dweight;
    int64_t M, N;
    float eps;
};

__global__ void __launch_bounds__(kNormThreads) rms_norm_forward_kernel(NormParams p) {
    __shared__ float scratch[32];
    int64_t m = blockIdx.x;
    float sum = 0.0f;
    for (int64_t n = threadIdx.x; n < p.N; n += kNormThreads) {
        float h = read(p.x, m, n);
        if (p.residual.data) h += read(p.residual, m, n);
        if (p.h.data) {
            write(p.h, m, n, h);
            h = read(p.h, m, n); /* as backward and the next layer will see it */
        }
        sum = __fmaf_rn(h, h, sum);
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, scratch) / static_cast<float>(p.N) + p.eps);
    if (threadIdx.x == 0) write(p.rstd, m, rstd);
    const View &h = p.h.data ? p.h : p.x;
    for (int64_t n = threadIdx.x; n < p.N; n += kNormThreads) {
        write(p.y, m, n, read(h, m, n) * rstd * read(p.weight, n));
    }
}

__global__ void __launch_bounds__(kNormThreads) rms_norm_backward_kernel(NormParams p) {
    __shared__ float scratch[32];
    int64_t m = blockIdx.x;
    float rstd = read(p.rstd, m), sum = 0.0f;
    for (int64_t n = threadIdx.x; n < p.N; n += kNormThreads) {
        sum = __fmaf_rn(read(p.dy, m, n) * read(p.weight, n), read(p.h, m, n), sum);
    }
    float c = block_sum(sum, scratch) * rstd * rstd / static_cast<float>(p.N);
    for (int64_t n = threadIdx.x; n < p.N; n += kNormThreads) {
        float dx = rstd * __fmaf_rn(-read(p.h, m, n), c, read(p.dy, m, n) * read(p.weight, n));
        if (p.dresidual.data) dx = read(p.dresidual, m, n) + dx;
        write(p.dx, m, n, dx);
    }
}

/* A block owns 32 columns; each of its eight rows of threads sums every eighth row, then the eight are added in order. */
__global__ void __launch_bounds__(256) rms_norm_dweight_kernel(NormParams p) {
    __shared__ float part[8][32];
    int64_t n = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
    float sum = 0.0f;
    for (int64_t m = threadIdx.y; m < p.M && n < p.N; m += 8) {
        sum = __fmaf_rn(read(p.dy, m, n), read(p.h, m, n) * read(p.rstd, m), sum);
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || n >= p.N) return;
    for (int i = 1; i < 8; i++) sum += part[i][threadIdx.x];
    write(p.dweight, n, read(p.dweight, n) + sum);
}

size_t rms_norm_forward_workspace(int, const l4j_rms_norm *) { return 0; }
l4j_status rms_norm_forward(l4j_queue *queue, const l4j_rms_norm *args, void *, l4j_error *error) {
    NormParams p = {};
    p.x = view(args->x);
    p.residual = view(args->residual);
    p.weight = view(args->weight);
    p.h = view(args->h);
    p.y = view(args->y);
    p.rstd = view(args->rstd);
    p.M = args->x->shape[0];
    p.N = args->x->shape[1];
    p.eps = args->eps;
    L4J_CUDA("rms_norm_forward",
             launch(queue, rms_norm_forward_kernel, dim3(static_cast<unsigned>(p.M)), kNormThreads, 0, p));
    return L4J_OK;
}

size_t rms_norm_backward_workspace(int, const l4j_rms_norm *) { return 0; }
l4j_status rms_norm_backward(l4j_queue *queue, const l4j_rms_norm *args, void *, l4j_error *error) {
    NormParams p = {};
    p.weight = view(args->weight);
    p.h = view(args->h);
    p.rstd = view(args->rstd);
    p.dy = view(args->dy);
    p.dresidual = view(args->dresidual);
    p.dx = view(args->dx);
    p.dweight = view(args->dweight);
    p.M = args->dy->shape[0];
    p.N = args->dy->shape[1];
    if (p.dweight.data && p.M > 0) { /* before dx, which may overwrite dy */
        L4J_CUDA("rms_norm_backward", launch(queue, rms_norm_dweight_kernel, dim3(blocks(p.N, 32)), dim3(32, 8), 0, p));
    }
    L4J_CUDA("rms_norm_backward",
             launch(queue, rms_norm_backward_kernel, dim3(static_cast<unsigned>(p.M)), kNormThreads, 0, p));
    return L4J_OK;
}

} // namespace l4j
